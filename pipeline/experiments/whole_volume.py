"""Segmentation and scores of one volume in memory, for experiments that try many settings on the same affinities.

The functions are those of a run, called once for the whole volume instead of chunk by chunk; a run gives the same
supervoxels and merges, byte for byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pipeline.evaluation.contingency import Contingency
from pipeline.evaluation.scores import Scores, score
from pipeline.evaluation.sweep import MergeTree, SweepPoint, best, steadiest, sweep
from pipeline.geometry import BoundingBox, Vec
from pipeline.segmentation.agglomeration import Linkage, agglomerate_node
from pipeline.segmentation.far_contacts import NEAREST
from pipeline.segmentation.merge_tree import canonical
from pipeline.segmentation.region_graph import build_region_graph
from pipeline.segmentation.supervoxels import SupervoxelRules, default_rules, extract_supervoxels

VOXEL_NM = Vec(8, 8, 8)
LARGEST = 6 * 255
"""The sum of the affinities on all six faces of a voxel, each 255."""
STOP_SCORE = 0.1
"""Merge trees are built down to this score."""
THRESHOLDS = np.arange(0.1, 0.96, 0.025)


@dataclass(frozen=True)
class Cutting:
    """How affinities become neurons."""

    border_level: float = 0
    """Borders of supervoxels by evidence below this level; 0: by distance."""
    far: tuple[int, ...] = ()
    """Channels of far affinities that count in the mean of a contact."""
    rules: dict[str, Any] = field(default_factory=dict)
    """Other rules of supervoxels that differ from the default."""

    @property
    def supervoxel_rules(self) -> SupervoxelRules:
        """The rules in whole numbers."""
        return replace(default_rules(VOXEL_NM), border_level=round(self.border_level * LARGEST), **self.rules)


def supervoxels(affinities: np.ndarray, rules: SupervoxelRules) -> np.ndarray:
    """Ids, uint64 (z, y, x), of the three nearest affinities, uint8 (3, z, y, x)."""
    box = BoundingBox.from_shape(Vec(*affinities.shape[1:]))
    return extract_supervoxels(affinities, None, read_box=box, core=box, roi=box, bounds=box, rules=rules).ids


def merge_tree(ids: np.ndarray, affinities: np.ndarray, far: Sequence[Vec] = ()) -> tuple[MergeTree, int]:
    """The merges by mean affinity, and the number of supervoxels.

    affinities: uint8 (c, z, y, x), the three nearest, then one channel for each of ``far``.
    """
    box = BoundingBox.from_shape(Vec(*ids.shape))
    boxes = {"core": box, "roi": box, "bounds": box}
    joins = np.empty((0, 2), np.int64)
    graph = build_region_graph(ids, affinities, joins, histograms=False, offsets=(*NEAREST, *far), **boxes)
    merges = agglomerate_node([graph], roi=box, linkage=Linkage("mean", 0.5), stop_score=STOP_SCORE).merges
    return canonical(merges), len(graph.regions)


@dataclass(frozen=True)
class Judged:
    """The scores of one segmentation: its threshold is chosen on some planes, its scores are those of others."""

    supervoxels: int
    chosen: SweepPoint
    """Where the threshold was chosen: the one whose neighbours are good too."""
    reported: list[SweepPoint]
    """The sweep over the planes to report on."""
    perfect: Scores
    """There, if each supervoxel were given to the neuron that holds most of it: the fault of supervoxels alone."""

    @property
    def scores(self) -> Scores:
        """On the planes to report on, at the threshold that was chosen on the others."""
        return next(point.scores for point in self.reported if point.threshold == self.chosen.threshold)

    @property
    def best(self) -> Scores:
        """On the planes to report on, at the threshold that is best there."""
        return best(self.reported).scores


def judge(ids: np.ndarray, tree: tuple[MergeTree, int], truth: np.ndarray, choose: slice, report: slice) -> Judged:
    """Score supervoxels (z, y, x) and their merge tree against the true labels: planes to choose and to report on."""
    merges, count = tree
    chosen, reported = (
        sweep(Contingency.from_labels(truth[part], ids[part]), merges, THRESHOLDS) for part in (choose, report)
    )
    return Judged(count, steadiest(chosen), reported, perfectly_merged(truth[report], ids[report]))


def perfectly_merged(truth: np.ndarray, ids: np.ndarray) -> Scores:
    """The scores if each supervoxel is given to the neuron that holds most of its voxels; of equal ones, the first."""
    labelled = truth > 0
    names, pieces = np.unique(ids[labelled], return_inverse=True)
    pairs, counts = np.unique(np.stack([pieces, truth[labelled]]), axis=1, return_counts=True)
    order = np.lexsort((-counts, pairs[0]))
    first = np.unique(pairs[0][order], return_index=True)[1]
    neuron = pairs[1][order][first]
    assert len(neuron) == len(names)
    return score(Contingency.from_labels(truth[labelled][None, None], neuron[pieces].astype(np.uint64)[None, None]))
