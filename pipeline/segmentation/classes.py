"""The most probable class of every voxel, and how many voxels each class has."""

from __future__ import annotations

import numpy as np

MOST = 256
"""The number of classes that uint8 can tell apart."""


def most_probable(stored: np.ndarray, tissue: np.ndarray | None) -> np.ndarray:
    """The channel with the largest stored number at each voxel, of equal ones the first: uint8 (z, y, x).

    stored: uint8 (c, z, y, x), at most ``MOST`` channels. tissue: bool (z, y, x), or ``None`` for tissue everywhere;
    voxels outside are 0.
    """
    # numpy's argmax is as fast, and its numbers of 64 bits take eight times the memory
    classes, largest = np.zeros(stored.shape[1:], np.uint8), stored[0].copy()
    for number in range(1, len(stored)):
        higher = stored[number] > largest
        classes[higher] = number
        np.maximum(largest, stored[number], out=largest)
    return classes if tissue is None else np.where(tissue, classes, np.uint8(0))


def count_classes(classes: np.ndarray, tissue: np.ndarray | None) -> np.ndarray:
    """Voxels of each class within the tissue: int64 (``MOST``,). Arguments as those of ``most_probable``."""
    inside = classes.ravel() if tissue is None else classes[tissue]
    return np.bincount(inside, minlength=MOST).astype(np.int64, copy=False)
