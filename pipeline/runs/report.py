"""The report of a finished run: a summary, scores, the threshold sweep, and pictures.

It is made from small tables and two planes of voxels, so it takes seconds for a volume of any size.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from pipeline.config.fingerprint import fingerprint
from pipeline.errors import VolumeError
from pipeline.evaluation.compare_classes import ClassScores, require_classes
from pipeline.evaluation.compare_masks import MaskScores
from pipeline.evaluation.compare_objects import ObjectScores
from pipeline.evaluation.contingency import labelled_voxels
from pipeline.evaluation.error_plots import iou_plot
from pipeline.evaluation.object_sweep_plot import Line, object_sweep_plot
from pipeline.evaluation.plots import Planes, comparison_picture, sweep_plot
from pipeline.evaluation.png_text import has_text, with_text
from pipeline.evaluation.run_length import RunLength
from pipeline.evaluation.scores import Scores, score
from pipeline.evaluation.sweep import SweepPoint, best, sweep
from pipeline.geometry import BoundingBox, Vec
from pipeline.runs.class_summary import ClassSummary, summarise_classes
from pipeline.runs.object_sweep import sweep_objects
from pipeline.runs.run import Run
from pipeline.runs.summary import Summary, summarise
from pipeline.segmentation.merge_tree import canonical
from pipeline.stages import opened
from pipeline.stages.agglomerate import Agglomerate
from pipeline.stages.evaluate_segmentation import EvaluateSegmentation
from pipeline.stages.layout import BESIDE

FOLDER = "report"
DRAWING = 2
"""Raised by every change of what the pictures show, so that old ones are drawn again."""
PICTURE_SIDE = 512
"""Voxels along each side of the part that is drawn."""


AnyScores = Scores | MaskScores | ObjectScores | ClassScores
"""Scores of neurons, of a mask, of objects, or of classes."""
AnySummary = Summary | ClassSummary
"""The summary of a result that is cut from tables, or of a class map."""


@dataclass(frozen=True)
class Report:
    """Scores at the chosen threshold and over all thresholds; without ground truth there is only the picture."""

    picture: str
    summary: AnySummary
    scores: AnyScores | None = None
    points: tuple[SweepPoint, ...] = ()
    lines: tuple[Line, ...] = ()
    """The sweeps of a mask or of objects: over the threshold, and over that of the seeds."""
    sweep_picture: str = ""
    iou_picture: str = ""
    run_length: RunLength | None = None

    @property
    def best(self) -> SweepPoint | None:
        """The point of the sweep with the lowest total VOI."""
        return best(self.points) if self.points else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        points = [{"threshold": float(point.threshold), **point.scores.to_dict()} for point in self.points]
        return {
            "scores": None if self.scores is None else self.scores.to_dict(),
            "run_length": None if self.run_length is None else asdict(self.run_length),
            "sweep": points or [line.to_dict() for line in self.lines],
        }


def write_report(run: Run) -> Report:
    """Sum up a finished run, score it and draw it, into ``report/`` of the run directory, under the driver's lease.

    Scores are those of the run itself; a segmentation beside it has a summary and a picture in its own folder.
    """
    summary = summarise_classes(run) if run.kind.name == "classes" else summarise(run)
    report = Report(store_picture(run, "overview.png", lambda path: draw_run(run, path)), summary)
    store_table(run, "summary.json", report.summary.to_dict())
    truth = run.inputs.truth
    if truth is None or run.beside:
        return report
    stage = run.stage(EvaluateSegmentation.name)
    assert isinstance(stage, EvaluateSegmentation)
    if truth.labels is not None:
        report = replace(report, **SCORED[run.kind.name](run, stage))
    if truth.skeletons is not None:
        report = replace(report, run_length=stage.run_length())
    store_table(run, "scores.json", report.to_dict())
    return report


def _score_neurons(run: Run, stage: EvaluateSegmentation) -> dict[str, Any]:
    """Scores at the chosen threshold, and over all thresholds with a plot."""
    points = tuple(sweep(stage.table("supervoxels"), read_merge_tree(run), thresholds_of(run)))
    plot = store_picture(run, "sweep.png", lambda path: sweep_plot(points, path, chosen=run.threshold))
    return {"scores": score(stage.table("labels")), "points": points, "sweep_picture": plot}


def _score_labels(run: Run, stage: EvaluateSegmentation) -> dict[str, Any]:
    """Scores of given labels, which have no other thresholds."""
    return {"scores": score(stage.table(run.kind.volume))}


def _score_objects(run: Run, stage: EvaluateSegmentation) -> dict[str, Any]:
    """Scores of objects, with the sweeps, and a plot over the IoU from which an object counts as found."""
    table = stage.table(run.kind.volume)
    scores = ObjectScores.of_table(table, stage.truth.box.voxels - table.total)
    plot = store_picture(run, "iou.png", lambda path: iou_plot(scores, path))
    return {"scores": scores, "iou_picture": plot, **_swept(run, stage)}


def _score_mask(run: Run, stage: EvaluateSegmentation) -> dict[str, Any]:
    """Scores of a mask, with the sweep."""
    table = stage.table(run.kind.volume)
    return {"scores": MaskScores.of_table(table, stage.truth.box.voxels - table.total), **_swept(run, stage)}


def _score_classes(run: Run, stage: EvaluateSegmentation) -> dict[str, Any]:
    """Scores of a class map; ``VolumeError`` if the truth holds something that is no class, or nothing to score."""
    truth, table = stage.truth, stage.table(run.kind.volume)
    require_classes(truth.labels or "", table.truth)
    if not table.total:
        raise VolumeError(
            f"no voxel of {truth.labels} in {truth.box} is to be scored: all hold a mark, such as -1; correct "
            "evaluation.start and stop, or leave evaluation.labels out"
        )
    return {"scores": ClassScores.of_table(table, truth.box.voxels - table.total)}


def _swept(run: Run, stage: EvaluateSegmentation) -> dict[str, Any]:
    """The sweeps of a mask or of objects, with their picture."""
    lines = sweep_objects(run, stage)
    return {
        "lines": lines,
        "sweep_picture": store_picture(run, "sweep.png", lambda path: object_sweep_plot(lines, path)),
    }


SCORED: dict[str, Callable[[Run, EvaluateSegmentation], dict[str, Any]]] = {
    "neurons": _score_neurons,
    "mask": _score_mask,
    "objects": _score_objects,
    "classes": _score_classes,
    "labels": _score_labels,
}
"""Kind of result -> the fields of a report that come from its tables of scores."""


def store_table(run: Run, name: str, plain: Mapping[str, Any]) -> None:
    """Store plain values as JSON in ``report/`` of the run directory."""
    run.store.put(f"{folder_of(run)}/{name}", (json.dumps(plain, indent=2) + "\n").encode())


def store_picture(run: Run, name: str, draw: Callable[[Path], object]) -> str:
    """Draw a picture into ``report/`` of the run directory, wherever that is; returns its path or URL.

    A picture holds the fingerprint of what it shows, and one that shows the run as it is now is kept.
    """
    key, state = f"{folder_of(run)}/{name}", fingerprint(DRAWING, [stage.fingerprint for stage in run.stages])
    if not has_text(run.store.get_or_none(key), state):
        with tempfile.TemporaryDirectory(prefix="petaseg-report-") as folder:
            path = Path(folder) / name
            draw(path)
            run.store.put(key, with_text(path.read_bytes(), state))
    return f"{run.url}/{key}"


def folder_of(run: Run) -> str:
    """The folder of the report, within the run directory."""
    return f"{BESIDE}/{run.beside}" if run.beside else FOLDER


def read_merge_tree(run: Run) -> np.recarray:
    """All merges of a run in canonical order, best first: the same bytes whatever the chunking.

    It needs 24 bytes of memory for each merge; the pipeline itself never builds it.
    """
    stage = run.stage(Agglomerate.name)
    assert isinstance(stage, Agglomerate)
    parts = [stage.merges(chunk) for grid in stage.grids() for chunk in grid]
    return canonical(np.concatenate(parts))


def thresholds_of(run: Run) -> np.ndarray:
    """51 thresholds from the end of the merge tree to 1."""
    return np.linspace(run.config.agglomeration.stop_score, 1, 51)


def draw_run(run: Run, path: Path) -> Path:
    """Draw raw, affinities, segmentation and truth side by side, in two planes: where there is truth, or the middle."""
    roi = run.layout.roi if run.inputs.truth is None else run.inputs.truth.box
    half, point = PICTURE_SIDE // 2, point_with_truth(run) or roi.middle
    box = BoundingBox(point, point).grow((half, half, half)).intersect(roi)
    truth = None if run.inputs.truth is None else run.inputs.truth.labels
    comparison_picture(
        path,
        image=None if run.inputs.image_url is None else planes(opened.source(run.inputs.image_url), box, point).grey,
        affinities=planes(run.affinities, box, point) if run.kind.name == "neurons" else None,
        prediction=None if run.landscape is None else planes(run.landscape.head, box, point),
        segmentation=planes(opened.source(run.result_url), box, point),
        truth=None if truth is None else planes(opened.source(truth), box, point),
        resolution_nm=run.layout.resolution_nm,
        same_ids=run.kind.name == "classes",
    )
    return path


def point_with_truth(run: Run) -> Vec | None:
    """A voxel whose planes show true labels, near the middle; ``None`` without such labels.

    Truth may cover a part of its volume only. A chunk with labels is found in the tables of the evaluation, and the
    voxel in this chunk alone, so a volume of any size takes no longer.
    """
    truth = run.inputs.truth
    if truth is None or truth.labels is None or run.beside:  # the tables are those of the run itself
        return None
    stage = run.stage(EvaluateSegmentation.name)
    assert isinstance(stage, EvaluateSegmentation)
    middle, counts = truth.box.middle, {chunk: stage.labelled(chunk) for chunk in stage.grids()[0]}
    if not any(counts.values()):
        return None
    full = [chunk.core.intersect(truth.box) for chunk in counts if 2 * counts[chunk] >= max(counts.values())]
    box = min(full, key=lambda each: sum(abs(each.middle - middle)))
    return box.start + point_on_labels(labelled_voxels(opened.source(truth.labels).read(box)), middle - box.start)


def point_on_labels(labelled: np.ndarray, middle: Vec) -> Vec:
    """Of a mask (z, y, x) the voxel nearest to a middle whose planes hold at least half of what the fullest hold."""
    z, y, x = (
        _near(labelled.sum(others), place) for others, place in zip(((1, 2), (0, 2), (0, 1)), middle, strict=True)
    )
    return Vec(z, y, x)


def _near(counts: np.ndarray, place: int) -> int:
    """The index nearest to ``place`` whose count is at least half of the largest."""
    return min(np.flatnonzero(2 * counts >= counts.max()).tolist(), key=lambda index: abs(index - place))


class Readable(Protocol):
    """An object from which the voxels of a box can be read."""

    def read(self, box: BoundingBox) -> np.ndarray:
        """(..., z, y, x)."""
        ...


def planes(volume: Readable, box: BoundingBox, point: Vec) -> Planes:
    """The xy and the xz plane of a box through a point of it; nothing else of it is read."""
    z, y, _ = point
    (z0, y0, x0), (z1, y1, x1) = box.start, box.stop
    xy = volume.read(BoundingBox((z, y0, x0), (z + 1, y1, x1)))[..., 0, :, :]
    xz = volume.read(BoundingBox((z0, y, x0), (z1, y + 1, x1)))[..., 0, :]
    return Planes(xy, xz)
