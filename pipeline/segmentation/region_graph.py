"""The region graph: which regions touch, how often, and with which affinities, as integers that add up over chunks.

1. ``contacts.scan``      one pass over the voxels of a chunk: sizes, contacts, which fragment touches which face
2. ``_regions_in_use``    name regions by id, in order; forget neighbours that nothing touches
3. ``contacts.histograms``  count the values on each contact, for the quantile linkage

Every affinity belongs to one voxel, hence to one chunk; a chunk reads its low neighbours' fragments one voxel deep:

    +---+-----------+      . = fragments of the neighbours: regions of size 0, known from outside only
    | . |. . . . . .|      The chunk sees all contacts of its fragments but those across its high faces, and all
    +---+-----------+      cuts (joins) but those across its high faces. So a fragment has contacts or parts that the
    | . |           |      chunk does not know exactly if it touches a high face that is not the dataset's: it is a
    | . |   core    |      *port*, and so is each neighbour's fragment. A region without ports is closed.
    | . |           |
    +---+-----------+

The same type holds the graph of a chunk and what remains of a larger box after its closed regions were merged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from pipeline.errors import ConfigError, CorruptError
from pipeline.geometry import ZERO, BoundingBox, Vec, as_vec
from pipeline.segmentation.contacts import OUTSIDE, Contacts, histograms, scan
from pipeline.segmentation.far_contacts import NEAREST, check_offsets, reach_of, scan_offsets
from pipeline.segmentation.histograms import no_histograms

AXES = range(3)


@dataclass(frozen=True, eq=False)
class RegionGraph:
    """Regions of a box, their contacts, and the fragments that may continue outside; plain arrays."""

    box: np.ndarray
    """int64 (2, 3): start and stop of the box, z y x."""
    regions: np.ndarray
    """uint64 (n,), ascending: a region is named by its smallest fragment."""
    sizes: np.ndarray
    """int64 (n,): voxels within the box."""
    edges: np.ndarray
    """int32 (m, 2), ascending: touching regions as places in ``regions``, the smaller first."""
    counts: np.ndarray
    """int64 (m,): affinities that cross the contact."""
    sums: np.ndarray
    """int64 (m,): their sum, 0..255 each."""
    offsets: np.ndarray
    """int64 (m + 1,), or (0,) without histograms: the values of edge i are offsets[i] .. offsets[i + 1]."""
    values: np.ndarray
    """uint8: affinities that occur on an edge, ascending."""
    value_counts: np.ndarray
    """int64: how often each of them occurs."""
    ports: np.ndarray
    """uint64 (p,), ascending: fragments that touch the rest of the dataset, or lie in it."""
    port_regions: np.ndarray
    """int32 (p,): the region that holds each, as a place in ``regions``."""
    port_faces: np.ndarray
    """uint8 (p,): bit k = touches the high face of axis k and the dataset goes on there; bit 3 = lies outside."""
    joins: np.ndarray
    """int32 (j, 2): regions that are parts of one supervoxel, as places in ``regions``."""

    @property
    def has_histograms(self) -> bool:
        """True if the values on each contact are kept, which the quantile linkage needs."""
        return len(self.offsets) > 0

    @property
    def start(self) -> Vec:
        """First voxel of the box."""
        return as_vec(self.box[0])

    @property
    def stop(self) -> Vec:
        """One past the last voxel of the box."""
        return as_vec(self.box[1])

    def to_arrays(self) -> dict[str, np.ndarray]:
        """All arrays by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> RegionGraph:
        """The inverse of ``to_arrays``; other names are ignored. ``CorruptError`` if an array is missing."""
        return cls(**pick(arrays, [field.name for field in fields(cls)]))


def pick(arrays: Mapping[str, np.ndarray], names: list[str]) -> dict[str, np.ndarray]:
    """The arrays of these names; ``CorruptError`` if one is missing."""
    missing = [name for name in names if name not in arrays]
    if missing:
        raise CorruptError(f"arrays {missing} are missing among {sorted(arrays)}; delete the object and run again")
    return {name: arrays[name] for name in names}


def build_region_graph(
    ids: np.ndarray,
    affinities: np.ndarray,
    joins: np.ndarray,
    *,
    core: BoundingBox,
    roi: BoundingBox,
    bounds: BoundingBox,
    histograms: bool = False,
    offsets: Sequence[Vec] = NEAREST,
) -> RegionGraph:
    """The region graph of one chunk.

    Args:
        ids: uint64 (z, y, x), fragments of the core, and as many voxels before it as the longest offset has, where
            ``roi`` has them; 0 = none.
        affinities: uint8 (offsets, z, y, x) of the core; channel k at voxel v is that between v and v + offsets[k].
        joins: int64 (n, 2), linear index in ``bounds`` of voxel v and axis k: v and v - e_k are of one supervoxel.
        core: the voxels of the chunk.
        roi: the region of interest of the run.
        bounds: the dataset's extent.
        histograms: keep the values on each contact, not only their sum: the quantile linkage needs them.
        offsets: those of the affinities, the nearest neighbours first; a full chunk is at least as long as each.

    Raises:
        ConfigError: arrays and boxes do not fit, or a fragment goes on beyond a low face under the same id.
        CorruptError: a join does not lie between two fragments on a low face.
    """
    low = _check(ids, affinities, offsets, core, roi)
    goes_on = np.less(core.stop, roi.stop)
    contacts = _contacts(ids, affinities, offsets, low, goes_on, histograms)
    check_cut(contacts.ids, contacts.sizes, contacts.faces)
    pairs = joined_ids(ids, joins, low, core, bounds)
    return _assemble(contacts, pairs, core, histograms)


def _contacts(
    ids: np.ndarray, affinities: np.ndarray, offsets: Sequence[Vec], low: Vec, goes_on: np.ndarray, stream: bool
) -> Contacts:
    """The contacts of touching fragments in one fast pass, or of all that an offset connects."""
    if tuple(offsets) != NEAREST:
        return scan_offsets(ids, affinities, offsets, low, goes_on, stream)
    return scan(np.ascontiguousarray(ids), np.ascontiguousarray(affinities), low, goes_on, stream)


def _assemble(contacts: Contacts, pairs: np.ndarray, core: BoundingBox, with_histograms: bool) -> RegionGraph:
    """Replace ids by indices into the sorted regions; sort the edges."""
    regions, rank = _regions_in_use(contacts, pairs)
    edges = np.sort(rank[contacts.edges], axis=1)
    order = np.argsort((edges[:, 0].astype(np.int64) << 32) | edges[:, 1], kind="stable")
    offsets, values, value_counts = histograms(contacts, order) if with_histograms else no_histograms()
    source = np.flatnonzero(rank >= 0)
    source = source[np.argsort(rank[source])]
    faces = contacts.faces[source]
    return RegionGraph(
        box=np.array([core.start, core.stop]),
        regions=regions,
        sizes=contacts.sizes[source],
        edges=edges[order],
        counts=contacts.counts[order],
        sums=contacts.sums[order],
        offsets=offsets,
        values=values,
        value_counts=value_counts,
        ports=regions[faces != 0],
        port_regions=np.flatnonzero(faces).astype(np.int32),
        port_faces=faces[faces != 0],
        joins=np.searchsorted(regions, pairs).astype(np.int32).reshape(-1, 2),
    )


def _regions_in_use(contacts: Contacts, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorted ids of the core's fragments and of those neighbours that touch them; number -> place in them, or -1."""
    used = contacts.sizes > 0
    used[contacts.edges.ravel()] = True
    used |= np.isin(contacts.ids, pairs)
    numbers = np.flatnonzero(used)
    numbers = numbers[np.argsort(contacts.ids[numbers])]
    rank = np.full(len(used), -1, np.int32)
    rank[numbers] = np.arange(len(numbers), dtype=np.int32)
    return contacts.ids[numbers], rank


def joined_ids(ids: np.ndarray, joins: np.ndarray, low: Vec, core: BoundingBox, bounds: BoundingBox) -> np.ndarray:
    """Pairs of fragments that are parts of one supervoxel: uint64 (n, 2), each pair once."""
    if not len(joins):
        return np.empty((0, 2), np.uint64)
    voxels = np.stack(np.unravel_index(joins[:, 0], bounds.shape), axis=1)
    voxels += np.array(bounds.start, np.int64) - core.start + low
    axis, first = joins[:, 1], np.array(low)[joins[:, 1]]
    inside = (voxels >= low).all() and (voxels < ids.shape).all() and (first > 0).all()
    if not inside or (voxels[np.arange(len(axis)), axis] != first).any():
        raise CorruptError(
            f"a join of chunk {core} does not lie on one of its low faces; extract the supervoxels again"
        )
    before = voxels.copy()
    before[np.arange(len(axis)), axis] -= 1
    pairs = np.stack([ids[tuple(voxels.T)], ids[tuple(before.T)]], axis=1)
    if not pairs.all():
        raise CorruptError(f"a join of chunk {core} leads to a voxel without a fragment; extract the supervoxels again")
    return np.unique(np.sort(pairs, axis=1), axis=0)


def _check(ids: np.ndarray, affinities: np.ndarray, offsets: Sequence[Vec], core: BoundingBox, roi: BoundingBox) -> Vec:
    """How many voxels ``ids`` begins before the core, per axis."""
    if core.empty or not roi.contains(core):
        raise ConfigError(
            f"core {core} must be a non-empty part of the region of interest {roi}; take it from the grid"
        )
    check_offsets(offsets)
    low = (core.start - roi.start).minimum(reach_of(offsets))
    grown = core.grow(low, ZERO)
    if ids.dtype != np.uint64 or ids.shape != grown.shape:
        raise ConfigError(
            f"fragments are {ids.dtype} {ids.shape}; they must be uint64 {grown.shape}: read them from {grown}, the "
            "core and what offsets reach before it"
        )
    if affinities.dtype != np.uint8 or affinities.shape != (len(offsets), *core.shape):
        raise ConfigError(
            f"affinities are {affinities.dtype} {affinities.shape}; they must be uint8 {(len(offsets), *core.shape)}: "
            f"read them from the core {core}"
        )
    return low


def check_cut(ids: np.ndarray, sizes: np.ndarray, faces: np.ndarray) -> None:
    """``ConfigError`` if a fragment lies on both sides of a low face; all are (n,), as ``Contacts`` has them."""
    both = np.flatnonzero(((faces & OUTSIDE) != 0) & (sizes > 0))
    if len(both):
        raise ConfigError(
            f"fragment {ids[both[0]]} goes on beyond a low face of the chunk; fragments must be cut at chunk "
            "faces, with a join for every cut: use those of extract_supervoxels"
        )
