"""Maps of the weight of every voxel of a target, after PyTorch Connectomics (Lin et al. 2021)."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

LEAST_SHARE = 0.05


def ratio_weights(target: np.ndarray, mask: np.ndarray | None = None, *, dilate: bool = False) -> np.ndarray:
    """The rarer class has weight r = max(p, 1 - p) / min(p, 1 - p), the other 1; p is the share of ones.

    p is taken over all channels together and kept within 0.05 and 0.95, so r is at most 19. A target of one value has
    weight 1 everywhere.

    Args:
        target: (c, y, x) or (c, z, y, x); what is not 0 is a one.
        mask: 1 where the target counts, of the target's shape or without its channels; no voxel is masked if left out.
        dilate: give the higher weight also to the voxels beside ones (3 x 3 in the plane), as for the contours of
            MitoEM; p is still that of the target.

    Returns:
        float32, the target's shape; 0 outside the mask.
    """
    counted = np.ones(target.shape) if mask is None else np.broadcast_to(mask, target.shape).astype(float)
    ones = target != 0
    if target.max() == target.min() or not counted.any():
        return counted.astype(np.float32)
    share = float(np.clip((ones * counted).sum() / counted.sum(), LEAST_SHARE, 1 - LEAST_SHARE))
    if dilate:
        ones = ndimage.binary_dilation(ones, np.ones((1,) * (target.ndim - 2) + (3, 3)))
    rare = ~ones if share > 1 - share else ones
    return (np.where(rare, max(share, 1 - share) / min(share, 1 - share), 1.0) * counted).astype(np.float32)


def unet_weights(labels: np.ndarray, *, between: float = 10.0, inside: float = 5.0, sigma: float = 5.0) -> np.ndarray:
    """The map of the 2D U-Net: background counts more the closer its two nearest objects are, section by section.

    between * exp(-(d1 + d2)^2 / (2 sigma^2)) in the background, ``inside`` in objects, at least 1 and at most the
    larger of the two; d1 and d2 are distances in pixels. Sections with one object have 1 in the background.

    Args:
        labels: integers (z, y, x) or (y, x); 0 is background.
        between, inside, sigma: w0, w1 and sigma of PyTorch Connectomics (option '2-w0-w1').

    Returns:
        float32 (1, ...).
    """
    if labels.ndim == 2:
        return _unet_section(labels, between, inside, sigma)[None]
    return np.stack([_unet_section(section, between, inside, sigma) for section in labels])[None]


def _unet_section(labels: np.ndarray, between: float, inside: float, sigma: float) -> np.ndarray:
    """The map of one section (y, x): float32."""
    objects = labels != 0
    weight = np.where(objects, inside, 0.0)
    ids = np.unique(labels[objects])
    if len(ids) > 1:
        nearest = np.sort([ndimage.distance_transform_edt(labels != i) for i in ids], axis=0)[:2].sum(axis=0)
        weight = np.where(objects, inside, between * np.exp(-(nearest**2) / (2 * sigma**2)))
    return np.clip(weight, 1.0, max(between, inside)).astype(np.float32)
