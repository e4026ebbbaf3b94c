"""The mask of the tissue, on the voxels of a run."""

from __future__ import annotations

import numpy as np

from pipeline.geometry import BoundingBox
from pipeline.stages import opened
from pipeline.stages.layout import Layout
from pipeline.volumes.coarser import at_voxels


def tissue(mask_url: str | None, layout: Layout, box: BoundingBox) -> np.ndarray | None:
    """True at voxels of tissue, bool (z, y, x); ``None`` without a mask. One of a coarser mip is looked up at each."""
    if mask_url is None:
        return None
    return at_voxels("mask", opened.source(mask_url), layout.resolution_nm).read(box) != 0


def count_masked(mask: np.ndarray | None, core: BoundingBox, start: tuple[int, int, int]) -> dict[str, float]:
    """The counter of masked voxels in a core; ``mask`` begins at ``start``."""
    return {} if mask is None else {"masked": int((~mask[core.slices(start)]).sum())}
