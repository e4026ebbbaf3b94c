"""The basin graph of a chunk: the passes that can decide, and how many voxels of each level every basin has.

A chunk reads its neighbours' basins one voxel before the core, as ``region_graph`` explains with ports and joins.

Of the passes between basins only those of a maximum spanning forest are kept: a pass that is the lowest of a cycle can
never be the one through which an object grows, whatever the thresholds and whatever lies outside the chunk. Which
seeds are connected follows from a second forest, that of the passes between voxels where seeds may lie. So the table
has no more passes than basins, twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np

from pipeline.errors import ConfigError
from pipeline.geometry import BoundingBox
from pipeline.segmentation.assembly import root_of, unite_pairs
from pipeline.segmentation.compiled import kernel
from pipeline.segmentation.contacts import Fragments, counted
from pipeline.segmentation.numbering import number
from pipeline.segmentation.objects.landscape import check_landscape
from pipeline.segmentation.objects.passes import Passes, find_passes
from pipeline.segmentation.objects.rules import LandscapeRules
from pipeline.segmentation.region_graph import check_cut, joined_ids, pick


@dataclass(frozen=True, eq=False)
class BasinGraph:
    """Basins of a chunk, the passes between them, and their voxels by level; plain arrays.

    Where seeds may lie everywhere, the four arrays of seeds are empty: they would repeat the others.
    """

    box: np.ndarray
    """int64 (2, 3): start and stop of the chunk, z y x."""
    regions: np.ndarray
    """uint64 (n,), ascending: fragments of the chunk, and those of its neighbours that touch them."""
    edges: np.ndarray
    """int32 (m, 2): places in ``regions``."""
    ranks: np.ndarray
    """uint64 (m,): of the best pass between the two (see ``passes``)."""
    offsets: np.ndarray
    """int64 (n + 1,): the levels of fragment i are offsets[i] .. offsets[i + 1]."""
    levels: np.ndarray
    """uint8: values of the landscape that occur in a fragment, ascending."""
    counts: np.ndarray
    """int32: voxels of the fragment with this value."""
    seed_edges: np.ndarray
    """int32 (s, 2): places in ``regions``."""
    seed_heights: np.ndarray
    """uint8 (s,): seeds of the two are connected at thresholds below this."""
    seed_offsets: np.ndarray
    """int64 (n + 1,), or (0,): as ``offsets``, for voxels where seeds may lie."""
    seed_levels: np.ndarray
    seed_counts: np.ndarray
    ports: np.ndarray
    """uint64 (p,), ascending: fragments that touch the rest of the dataset, or lie in it."""
    port_regions: np.ndarray
    """int32 (p,): places in ``regions``."""
    port_faces: np.ndarray
    """uint8 (p,): as in ``RegionGraph``."""
    joins: np.ndarray
    """int32 (j, 2): parts of one basin, as places in ``regions``."""

    @property
    def has_seed_places(self) -> bool:
        """True if seeds may lie only in some places."""
        return len(self.seed_offsets) > 0

    def to_arrays(self) -> dict[str, np.ndarray]:
        """All arrays by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> BasinGraph:
        """The inverse of ``to_arrays``; other names are ignored. ``CorruptError`` if an array is missing."""
        return cls(**pick(arrays, [field.name for field in fields(cls)]))


def build_basin_graph(
    ids: np.ndarray,
    landscape: np.ndarray,
    seeds_within: np.ndarray | None,
    joins: np.ndarray,
    *,
    core: BoundingBox,
    roi: BoundingBox,
    bounds: BoundingBox,
    rules: LandscapeRules,
) -> BasinGraph:
    """The basin graph of one chunk.

    Args:
        ids: uint64 (z, y, x), fragments of the core and of ``rules.context()`` where ``roi`` has it; 0 = none.
        landscape: uint8 (z, y, x) of the same box.
        seeds_within: bool (z, y, x) of the same box, True where seeds may lie; None = True everywhere.
        joins: int64 (n, 2), as ``extract_basins`` gives them.
        core: the voxels of the chunk.
        roi: the region of interest of the run.
        bounds: the dataset's extent.
        rules: those of the basins.

    Raises:
        ConfigError: arrays and boxes do not fit, or a fragment goes on beyond a low face under the same id.
        CorruptError: a join does not lie between two fragments on a low face.
    """
    box = core.grow(*rules.context()).intersect(roi)
    _check(ids, box, core, roi)
    check_landscape(landscape, box, seeds_within=seeds_within)
    low, volume = core.start - box.start, not rules.per_section
    goes_on = np.less(core.stop, roi.stop) & [volume, True, True]
    numbers, fragments = number(np.ascontiguousarray(ids), low, goes_on)
    check_cut(fragments.ids, fragments.sizes, fragments.faces)
    pairs = joined_ids(ids, joins, low, core, bounds)
    landscape = np.ascontiguousarray(landscape)
    seeds = landscape if seeds_within is None else landscape * seeds_within
    passes = find_passes(numbers, landscape, seeds, low=low, core=core, bounds=bounds, rules=rules)
    inner = core.slices(box.start)
    where = None if seeds_within is None else seeds_within[inner]
    return _assemble(core, fragments, passes, pairs, numbers[inner], landscape[inner], where)


def _check(ids: np.ndarray, box: BoundingBox, core: BoundingBox, roi: BoundingBox) -> None:
    if core.empty or not roi.contains(core):
        raise ConfigError(
            f"core {core} must be a non-empty part of the region of interest {roi}; take it from the grid"
        )
    if ids.dtype != np.uint64 or ids.shape != box.shape:
        raise ConfigError(
            f"fragments are {ids.dtype} {ids.shape}; they must be uint64 {box.shape}: read them from {box}, the core "
            "and its context"
        )


def _assemble(
    core: BoundingBox,
    fragments: Fragments,
    passes: Passes,
    joined: np.ndarray,
    numbers: np.ndarray,
    landscape: np.ndarray,
    seeds_within: np.ndarray | None,
) -> BasinGraph:
    """Keep the forests of passes, the core's fragments and those neighbours that touch them; replace numbers by places
    among the sorted ids.
    """
    order = np.argsort(fragments.ids)
    joins = order[np.searchsorted(fragments.ids, joined, sorter=order)].astype(np.int32).reshape(-1, 2)
    kept = _forest(len(order), joins, passes.edges, np.argsort(passes.ranks)[::-1])
    seeds = np.empty(0, np.int64)
    if seeds_within is not None:
        highest = np.lexsort((passes.ranks, passes.seeds))[::-1]
        seeds = _forest(len(order), joins, passes.edges, highest[: np.count_nonzero(passes.seeds)])
    used = fragments.sizes > 0
    used[passes.edges[kept].ravel()] = used[joins.ravel()] = True
    source = order[used[order]]
    place = np.full(len(order), -1, np.int32)
    place[source] = np.arange(len(source), dtype=np.int32)
    faces = fragments.faces[source]
    return BasinGraph(
        np.array([core.start, core.stop]),
        fragments.ids[source],
        place[passes.edges[kept]],
        passes.ranks[kept],
        *_levels(numbers, landscape, fragments.sizes, source),
        place[passes.edges[seeds]],
        passes.seeds[seeds],
        *_seed_levels(numbers, landscape, seeds_within, source),
        ports=fragments.ids[source[faces != 0]],
        port_regions=np.flatnonzero(faces).astype(np.int32),
        port_faces=faces[faces != 0],
        joins=place[joins],
    )


def _forest(n: int, joins: np.ndarray, edges: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Those edges, in order, that connect what neither joins nor earlier edges connect, int64."""
    root = np.arange(n, dtype=np.int32)
    unite_pairs(root, joins)
    kept = np.empty(len(order), np.int64)
    return kept[: _span(root, edges, order, kept)].copy()


@kernel
def _span(root, edges, order, kept):  # type: ignore[no-untyped-def]
    n = 0
    for e in order:
        a, b = root_of(root, edges[e, 0]), root_of(root, edges[e, 1])
        if a != b:
            root[max(a, b)] = min(a, b)
            kept[n] = e
            n += 1
    return n


def _levels(
    numbers: np.ndarray, landscape: np.ndarray, sizes: np.ndarray, source: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Offsets, levels and voxels of each level for the fragments of ``source``; -1 = no fragment."""
    offsets, levels, counts = counted(numbers.ravel(), landscape.ravel(), sizes, source)
    return offsets, levels, counts.astype(np.int32)


def _seed_levels(
    numbers: np.ndarray, landscape: np.ndarray, seeds_within: np.ndarray | None, source: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same for voxels where seeds may lie; empty if these are all."""
    if seeds_within is None:
        return np.empty(0, np.int64), np.empty(0, np.uint8), np.empty(0, np.int32)
    numbers = np.where(seeds_within, numbers, np.int32(-1))
    sizes = np.bincount(numbers.ravel() + 1, minlength=source.max(initial=-1) + 2)[1:]
    return _levels(numbers, landscape, sizes, source)
