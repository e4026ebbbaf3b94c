"""Basins of a landscape by steepest ascent, the same whatever the chunking.

A voxel points to the highest of itself and its neighbours, of equal ones to the first in C order. Where seeds may lie
only in some places, a voxel of these points only to others of these. So the voxels of a basin that lie above any
threshold, and those of them where seeds may lie, are connected within the basin: a basin holds at most one seed,
whatever the threshold is, and the thresholds can be chosen later.

Touching voxels of the full height, 255, lie above every threshold. Where both may be of a seed, they are of one seed
under any rules, so they are put into one basin at once: saturated predictions have few basins.
"""

from __future__ import annotations

import numpy as np

from pipeline.errors import ConfigError
from pipeline.geometry import BoundingBox
from pipeline.segmentation.basins import WAY, pointers
from pipeline.segmentation.heights import NOTHING
from pipeline.segmentation.objects.rules import LandscapeRules
from pipeline.segmentation.supervoxels import RIM, Supervoxels, check_boxes, crossed, cut_at_faces

FULL_HEIGHT = 255


def extract_basins(
    landscape: np.ndarray,
    within: np.ndarray | None,
    seeds_within: np.ndarray | None,
    *,
    read_box: BoundingBox,
    core: BoundingBox,
    roi: BoundingBox,
    bounds: BoundingBox,
    rules: LandscapeRules,
) -> Supervoxels:
    """The basins of a core, cut at its faces, and the joins that undo the cuts on its low faces.

    Args:
        landscape: uint8 (z, y, x) on ``read_box``.
        within: bool (z, y, x) on ``read_box``, False where there is no object; None = True everywhere.
        seeds_within: bool (z, y, x) on ``read_box``, True where seeds may lie; None = True everywhere.
        read_box: at least the core and its halo.
        core: the voxels of the chunk.
        roi: the region of interest of the run.
        bounds: the dataset's extent.
        rules: the floor, and whether each section stands for itself.

    Raises:
        ConfigError: arrays and boxes do not fit.
    """
    needed = core.grow(*rules.halo()).intersect(roi)
    check_boxes(read_box, core, needed, roi, bounds)
    check_landscape(landscape, read_box, within=within, seeds_within=seeds_within)
    part = needed.slices(read_box.start)
    inside = landscape[part] > rules.floor
    if within is not None:
        inside &= within[part]
    seeds = None if seeds_within is None else seeds_within[part]
    rim = core.grow(RIM * crossed(rules.axes)).intersect(roi)
    return cut_at_faces(_pointers(landscape[part], inside, seeds, needed, rim, rules), rim, core, bounds, rules.axes)


def check_landscape(landscape: np.ndarray, box: BoundingBox, **wheres: np.ndarray | None) -> None:
    """``ConfigError`` unless the landscape and the volumes of True and False beside it fit the box that was read."""
    if landscape.dtype != np.uint8 or landscape.shape != box.shape:
        raise ConfigError(
            f"landscape is {landscape.dtype} {landscape.shape}; it must be uint8 {box.shape}, z y x, to fit what is "
            f"read, {box}: convert it, 255 = certainly inside an object"
        )
    for name, where in wheres.items():
        if where is not None and (where.dtype != np.bool_ or where.shape != box.shape):
            raise ConfigError(f"{name} is {where.dtype} {where.shape}; it must be bool {box.shape} to fit {box}")


def _pointers(
    landscape: np.ndarray,
    inside: np.ndarray,
    seeds: np.ndarray | None,
    box: BoundingBox,
    rim: BoundingBox,
    rules: LandscapeRules,
) -> np.ndarray:
    """The pointers of ``rim``, given a landscape of ``box``: uint8 (z, y, x)."""
    towards_all = _ascent(landscape, inside, box, rim, rules)
    if seeds is None:
        return towards_all
    towards_seeds = _ascent(landscape, inside & seeds, box, rim, rules)
    return np.where(seeds[rim.slices(box.start)], towards_seeds, towards_all & WAY)


def _ascent(
    landscape: np.ndarray, inside: np.ndarray, box: BoundingBox, rim: BoundingBox, rules: LandscapeRules
) -> np.ndarray:
    """The pointers of ``rim`` if only what is inside exists."""
    heights = np.full(box.shape + 2, NOTHING, np.int32)
    np.copyto(heights[1:-1, 1:-1, 1:-1], landscape, where=inside)
    return pointers(
        heights, rim.start - box.start + 1, rim.shape, volume=not rules.per_section, full_height=FULL_HEIGHT
    )
