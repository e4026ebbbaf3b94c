"""Clusters of basins and the passes between them that are not decided: a chunk's, or what goes up from a box."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np

from pipeline.segmentation.objects.basin_graph import BasinGraph
from pipeline.segmentation.objects.passes import heights_of
from pipeline.segmentation.objects.rules import ObjectRules
from pipeline.segmentation.region_graph import pick


@dataclass(frozen=True, eq=False)
class ObjectGraph:
    """Clusters of basins in a box, and the passes between them that are not decided; plain arrays."""

    box: np.ndarray
    """int64 (2, 3): start and stop of the box, z y x."""
    regions: np.ndarray
    """uint64 (n,), ascending: a cluster is named by its smallest fragment; in a chunk, the fragments."""
    voxels: np.ndarray
    """int64 (n,): voxels above ``mask`` in the box."""
    seeds: np.ndarray
    """int64 (n,): seed voxels in the box, of the one atom that counts."""
    edges: np.ndarray
    """int32 (m, 2): places in ``regions``."""
    ranks: np.ndarray
    """uint64 (m,): of the passes."""
    ports: np.ndarray
    """uint64 (p,), ascending: fragments that touch the rest of the dataset, or lie in it."""
    port_regions: np.ndarray
    """int32 (p,): places in ``regions``."""
    port_faces: np.ndarray
    """uint8 (p,): as in ``RegionGraph``."""
    joins: np.ndarray
    """int32 (j, 2): parts of one atom, as places in ``regions``."""

    def to_arrays(self) -> dict[str, np.ndarray]:
        """All arrays by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> ObjectGraph:
        """The inverse of ``to_arrays``; other names are ignored. ``CorruptError`` if an array is missing."""
        return cls(**pick(arrays, [field.name for field in fields(cls)]))


def chunk_objects(graph: BasinGraph, rules: ObjectRules) -> ObjectGraph:
    """The basin graph of a chunk under rules: nothing is united yet. The floor of the basins is at most ``mask``."""
    voxels = _above(rules.mask, graph.offsets, graph.levels, graph.counts)
    if graph.has_seed_places:
        seeds = _above(rules.seed, graph.seed_offsets, graph.seed_levels, graph.seed_counts)
        connected = graph.seed_edges[graph.seed_heights > rules.seed]
    else:
        seeds = _above(rules.seed, graph.offsets, graph.levels, graph.counts)
        connected = graph.edges[heights_of(graph.ranks) > rules.seed]
    passable = heights_of(graph.ranks) > rules.mask
    return ObjectGraph(
        box=graph.box,
        regions=graph.regions,
        voxels=voxels,
        seeds=seeds,
        edges=graph.edges[passable],
        ranks=graph.ranks[passable],
        ports=graph.ports,
        port_regions=graph.port_regions,
        port_faces=graph.port_faces,
        joins=np.concatenate([graph.joins, connected]),
    )


def _above(threshold: int, offsets: np.ndarray, levels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Voxels above a threshold of each fragment: int64 (n,)."""
    sums = np.concatenate([[0], np.cumsum(np.where(levels > threshold, counts, 0), dtype=np.int64)])
    return np.diff(sums[offsets])
