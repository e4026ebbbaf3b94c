"""Rules by which patches are accepted for training."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from pipeline.config.base import Count, CountOrZero, Shape, Share, Table
from pipeline.errors import ConfigError
from pipeline.geometry import BoundingBox, Vec
from pipeline.training.target_specs import AnyTarget

KNOWN_SHARE = 0.3
"""Where label 0 is not known, a patch with fewer labelled voxels than this is drawn again."""


class Sampling(Table):
    """How patches are drawn; positions are uniform over the voxels of all volumes."""

    labelled: Share | None = None
    """Least share of voxels with a label; 0.3 if left out and label 0 is unknown to some target, else 0."""
    valid: Share = 0.5
    """Least share of voxels inside the mask of the volume."""
    foreground: CountOrZero = 0
    """Patches with fewer labelled voxels than this are rejected with probability ``reject``."""
    objects: CountOrZero = 0
    """Patches with fewer different labels than this are rejected with the same probability."""
    reject: Share = 0.95
    """Probability of a rejection."""
    chunk_shape: Shape | None = None
    """Voxels of a part that is read into memory at once, for slow stores; if left out, each patch is read by itself."""
    patches_per_chunk: Count = 200
    """Patches that are drawn from such a part before the next one is read."""
    apart: bool = False
    """Each of several processes that train together draws from its own slab of every volume; slabs do not overlap."""


class PatchRules:
    """Decides by labels and masks which patches are drawn again."""

    def __init__(self, sampling: Sampling, targets: Sequence[AnyTarget]) -> None:
        self.sampling = sampling
        unknown = any(target.zero_is_unknown for target in targets)
        self.labelled = sampling.labelled if sampling.labelled is not None else KNOWN_SHARE if unknown else 0.0

    def refuse(self, labels: np.ndarray, mask: np.ndarray | None, rng: np.random.Generator) -> bool:
        """True if a patch is to be drawn again."""
        if self._unusable(labels, mask):
            return True
        return self._poor(labels) and rng.random() < self.sampling.reject

    def lacking(self, labels: np.ndarray, mask: np.ndarray | None) -> bool:
        """True if a chunk has too few known, unmasked or object voxels to draw patches from it."""
        return self._unusable(labels, mask) or self._poor(labels)

    def _unusable(self, labels: np.ndarray, mask: np.ndarray | None) -> bool:
        """True if too few voxels are known, or unmasked."""
        if mask is not None and mask.mean() < self.sampling.valid:
            return True
        return bool((labels > 0).mean() < self.labelled)

    def _poor(self, labels: np.ndarray) -> bool:
        """True if there are too few voxels of objects, or too few objects."""
        s = self.sampling
        if s.foreground and (labels > 0).sum() < s.foreground:
            return True
        return bool(s.objects and len(np.unique(labels[labels > 0])) < s.objects)

    def __str__(self) -> str:
        s = self.sampling
        limits = [f"less than {self.labelled:.0%} labelled voxels", f"less than {s.valid:.0%} of them in the mask"]
        limits += [f"fewer than {s.foreground} voxels of objects"] if s.foreground else []
        limits += [f"fewer than {s.objects} objects"] if s.objects else []
        return ", or ".join(limits)


def slabs_of(box: BoundingBox, count: int, patch_shape: Vec, name: str) -> list[BoundingBox]:
    """``count`` slabs of a box, along its longest axis; ``ConfigError`` if a patch does not fit in one of them.

    name: of the volume, for the message.
    """
    axis = int(np.argmax(box.shape))
    along = Vec(*(int(a == axis) for a in range(3)))
    cuts = [box.shape[axis] * k // count for k in range(count + 1)]
    slabs = [
        BoundingBox(box.start + along * first, box.stop - along * (cuts[-1] - last)) for first, last in pairwise(cuts)
    ]
    if not all(patch_shape.at_most(slab.shape) for slab in slabs):
        raise ConfigError(
            f"sampling.apart cuts {name} into {count} slabs of {list(slabs[0].shape)} voxels; each must hold a patch "
            f"of {list(patch_shape)}: take fewer processes, a smaller patch, or leave apart out"
        )
    return slabs
