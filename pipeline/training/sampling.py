"""Which patches are worth training on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.config.base import Count, CountOrZero, Shape, Share, Table
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
    """So are those with fewer different labels."""
    reject: Share = 0.95
    """Probability of a rejection."""
    chunk_shape: Shape | None = None
    """Voxels of a part that is read into memory at once, for slow stores; if left out, each patch is read by itself."""
    patches_per_chunk: Count = 200
    """Patches that are drawn from such a part before the next one is read."""


class PatchRules:
    """Judges labels and masks of patches."""

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
        """True if there is too little in a chunk to draw patches from it."""
        return self._unusable(labels, mask) or self._poor(labels)

    def _unusable(self, labels: np.ndarray, mask: np.ndarray | None) -> bool:
        """Too little is known, or asked."""
        if mask is not None and mask.mean() < self.sampling.valid:
            return True
        return bool((labels > 0).mean() < self.labelled)

    def _poor(self, labels: np.ndarray) -> bool:
        """Too few voxels of objects, or objects."""
        s = self.sampling
        if s.foreground and (labels > 0).sum() < s.foreground:
            return True
        return bool(s.objects and len(np.unique(labels[labels > 0])) < s.objects)

    def __str__(self) -> str:
        s = self.sampling
        asked = [f"less than {self.labelled:.0%} labelled voxels", f"less than {s.valid:.0%} of them in the mask"]
        asked += [f"fewer than {s.foreground} voxels of objects"] if s.foreground else []
        asked += [f"fewer than {s.objects} objects"] if s.objects else []
        return ", or ".join(asked)
