"""Scores of any two volumes of labels, block by block in bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.evaluation.contingency import Contingency
from pipeline.evaluation.pairs import BLOCK, common_box, require_labels
from pipeline.evaluation.run_length import RunLength, Skeletons, expected_run_length, merge_nodes, node_segments
from pipeline.evaluation.scores import Scores, score
from pipeline.geometry import BoundingBox
from pipeline.grid import ChunkGrid
from pipeline.volumes import open_volume
from pipeline.volumes.base import Volume


@dataclass(frozen=True)
class Comparison:
    """Scores of one volume of labels against another."""

    box: BoundingBox
    """The voxels that were compared."""
    scores: Scores
    run_length: RunLength | None = None
    """``None`` without skeletons."""


def compare_volumes(
    truth: str,
    labels: str,
    box: BoundingBox | None = None,
    *,
    skeletons: str | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Comparison:
    """Score the labels of one volume against those of another, over all voxels that both have, or over a box of them.

    Args:
        truth: volume of true labels; 0 and the marks of ``labelled_voxels`` are not scored.
        labels: volume of predicted labels.
        box: global voxels; everything that both volumes hold if left out.
        skeletons: path or URL of an npz file, see ``pipeline.evaluation.run_length``.
        on_progress: called with (blocks done, blocks in all).

    Raises ``VolumeError`` if the volumes share no voxel, differ in voxel size, or the box reaches outside one of them.
    """
    volumes = open_volume(truth), open_volume(labels)
    box = shared_box(*volumes, box)
    lines = None if skeletons is None else Skeletons.load(skeletons)
    grid = ChunkGrid(box, box, BLOCK)
    table, nodes = Contingency.empty(), []
    for number, chunk in enumerate(grid):
        true, predicted = (volume.read(chunk.core) for volume in volumes)
        table = table + Contingency.from_labels(true, predicted)
        if lines is not None:
            nodes.append(node_segments(lines, predicted, chunk.core.start, volumes[1].spec.resolution_nm))
        on_progress(number + 1, len(grid))
    length = None if lines is None else expected_run_length(lines, merge_nodes(nodes, len(lines.nodes_nm)))
    return Comparison(box, score(table), length)


def shared_box(truth: Volume, labels: Volume, box: BoundingBox | None) -> BoundingBox:
    """The voxels to compare; ``VolumeError`` if the two are no labels, or do not fit each other or the box."""
    for volume in (truth, labels):
        require_labels(volume)
    return common_box(truth, labels, box)
