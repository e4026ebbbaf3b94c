"""Expected run length: the mean length over which a neuron can be followed without an error of the segmentation.

Definition (Januszewski et al. 2018, Nature Methods 15:605). An edge of a skeleton is, in this order,

1. *omitted* if one of its nodes is in no segment (id 0);
2. *split* if its nodes are in different segments;
3. *merged* if its segment is a false merger, that is, holds nodes of more than one skeleton;
4. *correct* otherwise.

The correct edges of a skeleton that lie in one segment are one run. Start at a random point of all skeletons: the
expected length of the run around it (0 on an edge that is not correct) is

    ERL = sum over runs of length^2 / total length of all skeletons

The best possible value, every skeleton one run, is sum over skeletons of length^2 / total length; the normalised ERL is
the quotient of the two.

Voxels are visited chunk by chunk: ``node_segments`` looks up the segments of the nodes in one box, and ``merge_nodes``
joins the results.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.errors import CorruptError, VolumeError
from pipeline.storage import store_of

Triple = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Skeletons:
    """Skeletons of neurons: nodes and edges."""

    nodes_nm: np.ndarray
    """float64 (n, 3), z y x; voxel i of an axis covers [i, i + 1) times its size"""
    edges: np.ndarray
    """int64 (m, 2), indices of nodes"""
    skeleton: np.ndarray
    """int64 (n,), the neuron of each node"""

    def __post_init__(self) -> None:
        """Raise VolumeError unless the arrays fit each other."""
        count = len(self.nodes_nm)
        if self.nodes_nm.shape != (count, 3) or self.skeleton.shape != (count,) or not np.isfinite(self.nodes_nm).all():
            raise VolumeError(
                f"nodes_nm {self.nodes_nm.shape}, skeleton {self.skeleton.shape}: finite nodes (n, 3) and one skeleton "
                "id for each are needed; export them again"
            )
        edges = self.edges
        shaped = edges.ndim == 2 and edges.shape[1] == 2 and edges.dtype.kind in "iu"
        if not shaped or (edges.size and not 0 <= edges.min() <= edges.max() < count):
            raise VolumeError(
                f"edges {edges.shape} {edges.dtype}: integer (m, 2) indices below {count} are needed; export them again"
            )
        apart = np.flatnonzero(self.skeleton[edges[:, 0]] != self.skeleton[edges[:, 1]])
        if len(apart):
            raise VolumeError(f"edge {apart[0]} joins two skeletons: both nodes must have one id; export them again")

    @classmethod
    def load(cls, address: Path | str) -> Skeletons:
        """Read an npz file with ``nodes_nm``, ``edges`` and ``skeleton``: a path or a URL.

        Raises:
            VolumeError: the file is missing, incomplete, or its arrays do not fit each other.
        """
        folder, key = store_of(str(address))
        data = folder.get_or_none(key)
        if data is None:
            raise VolumeError(f"{address} does not exist; an npz of nodes_nm, edges and skeleton is needed")
        return cls.parse(data, str(address))

    @classmethod
    def parse(cls, data: bytes, name: str) -> Skeletons:
        """Like ``load``, of the bytes of such a file; ``name`` is where they come from, for messages."""
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as stored:
                nodes, edges, skeleton = (stored[key] for key in ("nodes_nm", "edges", "skeleton"))
        except Exception as error:  # zip, header and key errors of many kinds
            raise VolumeError(f"{name}: {error}; an npz of nodes_nm, edges and skeleton is needed") from error
        return cls(nodes.astype(np.float64), edges.astype(np.int64), skeleton.astype(np.int64))

    def edge_lengths_nm(self) -> np.ndarray:
        """float64 (m,)."""
        return np.linalg.norm(self.nodes_nm[self.edges[:, 0]] - self.nodes_nm[self.edges[:, 1]], axis=1)


@dataclass(frozen=True, eq=False)
class NodeSegments:
    """The segments of the nodes that lie in one chunk."""

    node: np.ndarray
    """int64 (k,), indices of nodes"""
    segment: np.ndarray
    """uint64 (k,)"""


@dataclass(frozen=True)
class RunLength:
    """Expected run length, and the segments that lower it."""

    erl_nm: float
    """Expected run length"""
    best_nm: float
    """Expected run length of a perfect segmentation"""
    total_nm: float
    """Length of all skeletons"""
    correct_nm: float
    omitted_nm: float
    split_nm: float
    merged_nm: float
    split_edges: int
    merged_segments: int
    """Segments that hold nodes of more than one skeleton"""

    @property
    def normalised(self) -> float:
        """ERL as a part of the best possible, 0 to 1."""
        return self.erl_nm / self.best_nm if self.best_nm else 0.0


def node_segments(
    skeletons: Skeletons, labels: np.ndarray, start: tuple[int, int, int], resolution_nm: Triple
) -> NodeSegments:
    """Look up the nodes that lie in one box.

    Args:
        skeletons: all skeletons.
        labels: segments of the box, (z, y, x).
        start: global voxel of ``labels[0, 0, 0]``.
        resolution_nm: nm per voxel.
    """
    voxel = np.floor(skeletons.nodes_nm / np.asarray(resolution_nm)).astype(np.int64) - np.asarray(start)
    inside = np.flatnonzero(((voxel >= 0) & (voxel < labels.shape)).all(axis=1))
    return NodeSegments(inside, labels[tuple(voxel[inside].T)].astype(np.uint64))


def merge_nodes(parts: Iterable[NodeSegments], count: int) -> np.ndarray:
    """Segments of all ``count`` nodes from the parts of all chunks: uint64 (count,).

    A node outside every chunk is in no segment (0).

    Raises:
        CorruptError: two parts disagree about a node, so they are not of one segmentation.
    """
    segments, known = np.zeros(count, np.uint64), np.zeros(count, bool)
    for part in parts:
        again = known[part.node]
        if (segments[part.node[again]] != part.segment[again]).any():
            raise CorruptError("two parts disagree about a node: chunks of one segmentation are needed; evaluate again")
        segments[part.node], known[part.node] = part.segment, True
    return segments


def expected_run_length(skeletons: Skeletons, segments: np.ndarray, *, merge_threshold: int = 1) -> RunLength:
    """Compute the expected run length.

    Args:
        skeletons: the truth.
        segments: segment of each node, (n,); 0 = none.
        merge_threshold: nodes that a skeleton needs in a segment before it counts as part of it. More than 1
            forgives single nodes that were placed on the wrong side of a membrane.

    Raises:
        VolumeError: the number of segments differs from that of nodes, or the skeletons have no length.
    """
    if segments.shape != (len(skeletons.nodes_nm),):
        raise VolumeError(
            f"segments {segments.shape} for {len(skeletons.nodes_nm)} nodes: one for each is needed; look up again"
        )
    length = skeletons.edge_lengths_nm()
    total = float(length.sum())
    if total <= 0:
        raise VolumeError("skeletons of 0 nm in all: a run length needs edges; check the file")
    first, second = segments[skeletons.edges[:, 0]], segments[skeletons.edges[:, 1]]
    mergers = _mergers(skeletons.skeleton, segments, merge_threshold)
    omitted = (first == 0) | (second == 0)
    split = ~omitted & (first != second)
    merged = ~omitted & ~split & np.isin(first, mergers)
    correct = ~(omitted | split | merged)
    owner = skeletons.skeleton[skeletons.edges[:, 0]]
    return RunLength(
        erl_nm=_squares(length[correct], owner[correct], first[correct]) / total,
        best_nm=_squares(length, owner) / total,
        total_nm=total,
        correct_nm=float(length[correct].sum()),
        omitted_nm=float(length[omitted].sum()),
        split_nm=float(length[split].sum()),
        merged_nm=float(length[merged].sum()),
        split_edges=int(split.sum()),
        merged_segments=len(mergers),
    )


def _mergers(skeleton: np.ndarray, segments: np.ndarray, merge_threshold: int) -> np.ndarray:
    """Segments with at least ``merge_threshold`` nodes of each of two skeletons or more."""
    pairs, nodes = np.unique(_columns(segments, skeleton)[segments != 0], axis=0, return_counts=True)
    ids, skeletons = np.unique(pairs[nodes >= merge_threshold, 0], return_counts=True)
    return ids[skeletons > 1]


def _columns(*keys: np.ndarray) -> np.ndarray:
    """Keys side by side as uint64 (n, k)."""
    return np.stack([key.astype(np.uint64) for key in keys], axis=1)


def _squares(length: np.ndarray, *keys: np.ndarray) -> float:
    """Sum of squared lengths of the groups of edges that agree in all keys."""
    if not len(length):
        return 0.0
    _, group = np.unique(_columns(*keys), axis=0, return_inverse=True)
    return float((np.bincount(group.ravel(), weights=length) ** 2).sum())
