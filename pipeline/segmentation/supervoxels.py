"""Supervoxels by steepest ascent on a height map: the same basins whatever the chunking.

1. ``heights.height_map``  evidence of membranes -> distance to them, capped -> box filter: integers
2. ``basins.pointers``     each voxel points uphill
3. ``basins.basins``       pointers -> basins, named by their first voxel in the core
4. ``basins.crossings``    where a basin goes on beyond a low face of the core: joins

      read_box                        what decides a voxel's basin within the core lies within
    +--------------------------+      - RIM voxels: pointers around the core are followed ...
    | cap + filter + evidence  |      - 1 voxel: ... which compare a voxel with its neighbours
    |   +------------------+   |      - the filter's radius: distances that are averaged into a height
    |   | neighbours, rim  |   |      - the steps that are nearer than the cap: membranes that a distance can see
    |   |   +----------+   |   |      - 1 voxel, on the high side: the affinity of a voxel's high face
    |   |   |   core   |   |   |
    |   |   +----------+   |   |      Where the region of interest ends, nothing beyond it exists: a missing face counts
    |   +------------------+   |      as the opposite one, and filters repeat the last voxel.
    +--------------------------+

The basins of the whole are the fragments of all chunks united over all joins, with the smallest id of each: equal to
the ids of a run in one chunk, byte for byte. After Zlateski and Seung 2015 (arXiv:1505.00249, steepest ascent on
affinities) and the distance-based fragments that are common in the field, with every choice made local and strict.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from operator import gt
from typing import Any

import numpy as np

from pipeline.errors import ConfigError
from pipeline.geometry import BoundingBox, Vec, as_vec
from pipeline.segmentation.basins import basins, crossings, first_ids, pointers
from pipeline.segmentation.heights import Scale, height_map, height_scale, reach_of

RIM = 4
"""Voxels around the core whose pointers are followed, so that parts which meet just outside it are one fragment.

1 is enough to be exact, but leaves many small pieces at the faces to join: on real tissue in chunks of 64^3,
148,000 fragments of 23,000 basins, against 87,000 with 4.
"""

LARGEST_REACH = 100
"""How many voxels a capped distance may span."""


@dataclass(frozen=True)
class SupervoxelRules:
    """How affinities become supervoxels."""

    threshold: int
    """A voxel is inside a cell if the affinities on its faces, 0..255 each, reach this sum: 6 faces, 4 per section."""
    max_distance_nm: int
    """Distances to the membrane are capped here; a voxel this far outside gets no label."""
    filter_width: int
    """Odd width in voxels of the box filter that smooths the heights of the inside."""
    per_section: bool
    """Work in each section by itself: for voxels much deeper than wide."""
    resolution_nm: Vec
    """Voxel size, z, y, x, whole nm."""
    evidence_nm: int = 0
    """The height that the clearest evidence adds, as a distance; 0 = distance alone."""
    saturation: int = 0
    """The sum of affinities at which the inside is as clear as possible; 0 stands for the largest sum."""
    border_level: int = 0
    """Where the sum of affinities is below this, it alone is the height, so that borders lie where it is least;
    0 = borders by distance."""

    def __post_init__(self) -> None:
        largest = 255 * 2 * len(self.axes)
        object.__setattr__(self, "resolution_nm", as_vec(self.resolution_nm, "resolution_nm"))
        object.__setattr__(self, "saturation", self.saturation or largest)
        check_range("resolution_nm", min(self.resolution_nm), 1, 10**6)
        finest = min(self.resolution_nm[a] for a in self.axes)
        check_range("threshold", self.threshold, 0, largest)
        check_range("saturation", self.saturation, 1, largest)
        check_range("max_distance_nm", self.max_distance_nm, 1, LARGEST_REACH * finest)
        check_range("border_level", self.border_level, 0, largest)
        if 0 < self.border_level < self.threshold:
            raise ConfigError(
                f"supervoxels.border_level is {self.border_level / largest:.3g}, which is below supervoxels.threshold, "
                f"{self.threshold / largest:.3g}: set border_level to at least that, or borders: distance"
            )
        check_range("evidence_nm", self.evidence_nm, 0, LARGEST_REACH * finest)
        check_range("filter_width", self.filter_width, 1, 2 * LARGEST_REACH + 1)
        if self.filter_width % 2 == 0:
            raise ConfigError(
                f"filter_width is {self.filter_width}; it must be odd, so that the filter has a middle: "
                f"take {self.filter_width + 1}"
            )
        if self.scale.full_height >= 2**31:
            raise ConfigError(
                f"filter_width {self.filter_width} sums heights up to {self.scale.full_height}; they must stay below "
                f"{2**31}: lower filter_width, max_distance_nm or evidence_nm"
            )

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes along which voxels are neighbours."""
        return (1, 2) if self.per_section else (0, 1, 2)

    @property
    def scale(self) -> Scale:
        """These rules as whole numbers and tables."""
        return height_scale(
            resolution_nm=self.resolution_nm,
            axes=self.axes,
            threshold=self.threshold,
            saturation=self.saturation,
            evidence_nm=self.evidence_nm,
            max_distance_nm=self.max_distance_nm,
            filter_width=self.filter_width,
            border_level=self.border_level,
        )

    @property
    def identity(self) -> dict[str, Any]:
        """What decides about supervoxels; borders by distance have that of the rules that knew no others."""
        every = asdict(self)
        return {key: value for key, value in every.items() if key != "border_level" or value}

    def halo(self) -> tuple[Vec, Vec]:
        """Voxels of context needed before and after a core, z, y, x: the exact minimum."""
        reach = reach_of(self.resolution_nm, self.max_distance_nm, self.axes)
        low = (reach + RIM + 1 + self.filter_width // 2) * crossed(self.axes)
        return low, low + crossed(self.axes)


def default_rules(resolution_nm: Vec, per_section: bool | None = None) -> SupervoxelRules:
    """Rules for neurites at ``resolution_nm``; per section, unless told, if voxels are three times as deep as wide.

    Chosen on FIB-SEM tissue of 8 nm: a voxel is inside at a third of the largest evidence, because a low threshold
    leaves few specks for the agglomeration, and evidence divides cells where a membrane is fainter. The inside counts
    as clearest at 95 %. A cap of 60 nm keeps the halo short, and a larger one scores no better.
    """
    size = as_vec(resolution_nm, "resolution_nm")
    flat = size[0] >= 3 * max(size[1:]) if per_section is None else per_section
    largest = 255 * 2 * (2 if flat else 3)
    return SupervoxelRules(
        threshold=largest // 3,
        max_distance_nm=min(60, LARGEST_REACH * min(size[1:] if flat else size)),
        filter_width=3,
        per_section=flat,
        resolution_nm=size,
        evidence_nm=100,
        saturation=largest * 19 // 20,
    )


@dataclass(frozen=True)
class Supervoxels:
    """The fragments of a core, and the places where they continue beyond its low faces."""

    ids: np.ndarray
    """uint64 (z, y, x) of the core: 1 + the linear index in the bounds of the fragment's first voxel; 0 = no label."""
    joins: np.ndarray
    """int64 (n, 2), linear index of voxel v and axis k: v on the low face of k shares a basin with v - e_k."""


def check_range(name: str, value: int, least: int, most: int) -> None:
    """``ConfigError`` unless a rule's value is a whole number from ``least`` to ``most``."""
    if isinstance(value, bool) or int(value) != value or not least <= value <= most:
        raise ConfigError(f"{name} is {value}; it must be a whole number from {least} to {most}: choose one in between")


def extract_supervoxels(
    affinities: np.ndarray,
    mask: np.ndarray | None,
    *,
    read_box: BoundingBox,
    core: BoundingBox,
    roi: BoundingBox,
    bounds: BoundingBox,
    rules: SupervoxelRules,
) -> Supervoxels:
    """The supervoxels of a core, cut at its faces, and the joins that undo the cuts on its low faces.

    ``affinities`` is uint8 (3, z, y, x) on ``read_box``: channel k at voxel v is the affinity between v and v - e_k,
    not used on the first plane of ``roi``. ``mask`` is bool (z, y, x) on ``read_box``, False outside the tissue: not
    inside a cell, no label, and no basin goes through. ``roi`` is the run's region of interest, ``bounds`` the
    dataset's extent.
    ``ConfigError`` if arrays and boxes do not fit, or ``read_box`` holds less than the core and its halo.
    """
    needed = core.grow(*rules.halo()).intersect(roi)
    check_boxes(read_box, core, needed, roi, bounds)
    _check_arrays(affinities, mask, read_box)
    part = needed.slices(read_box.start)
    z, y, x = map(gt, needed.start, roi.start)
    heights = height_map(
        affinities[:, *part],
        None if mask is None else mask[part],
        (z, y, x),
        rules.scale,
    )
    rim = core.grow(RIM * crossed(rules.axes)).intersect(roi)
    offset, volume = rim.start - needed.start + 1, not rules.per_section
    pointer = pointers(heights, offset, rim.shape, volume=volume, full_height=rules.scale.full_height)
    return cut_at_faces(pointer, rim, core, bounds, rules.axes)


def crossed(axes: Sequence[int]) -> Vec:
    """1 for each of these axes, 0 for the others."""
    return Vec(*(int(a in axes) for a in range(3)))


def cut_at_faces(
    pointer: np.ndarray, rim: BoundingBox, core: BoundingBox, bounds: BoundingBox, axes: Sequence[int]
) -> Supervoxels:
    """Fragments and joins of a core, given the pointers of ``rim``, which is uint8 (z, y, x)."""
    low = core.start - rim.start
    summits, smallest = basins(pointer, volume=0 in axes)
    start = core.start - bounds.start
    ids = first_ids(summits, smallest, low, core.shape, start, bounds.shape)
    joins = [_linear(crossings(pointer, low, core.shape, a), a, start, bounds.shape) for a in axes if low[a]]
    return Supervoxels(ids, np.concatenate([np.empty((0, 2), np.int64), *joins]))


def _linear(voxels: np.ndarray, axis: int, start: Vec, shape: Vec) -> np.ndarray:
    """Joins at ``voxels`` (n, 3) of a core that begins at ``start`` in a dataset of ``shape``."""
    z, y, x = (voxels + np.array(start)).T
    return np.stack([(z * shape[1] + y) * shape[2] + x, np.full_like(z, axis)], axis=1)


def check_boxes(
    read_box: BoundingBox, core: BoundingBox, needed: BoundingBox, roi: BoundingBox, bounds: BoundingBox
) -> None:
    """``ConfigError`` unless the core is a part of the region, and what is read holds what is needed."""
    if core.empty or not roi.contains(core):
        raise ConfigError(
            f"core {core} must be a non-empty part of the region of interest {roi}; take it from the grid"
        )
    if not bounds.contains(roi):
        raise ConfigError(f"region of interest {roi} reaches outside the dataset {bounds}; correct its start and stop")
    if not read_box.contains(needed):
        raise ConfigError(
            f"read box {read_box} must hold {needed}, the core and its halo; make the grid with rules.halo()"
        )


def _check_arrays(affinities: np.ndarray, mask: np.ndarray | None, read_box: BoundingBox) -> None:
    if affinities.dtype != np.uint8 or affinities.shape != (3, *read_box.shape):
        raise ConfigError(
            f"affinities are {affinities.dtype} {affinities.shape}; they must be uint8 {(3, *read_box.shape)}, "
            "z y x, to fit the read box; convert them, 255 = certainly the same object"
        )
    if mask is not None and (mask.dtype != np.bool_ or mask.shape != read_box.shape):
        raise ConfigError(
            f"mask is {mask.dtype} {mask.shape}; it must be bool {read_box.shape} to fit the read box; "
            "convert it, True = tissue"
        )
