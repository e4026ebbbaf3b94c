"""What a finished run is worth: scores, the threshold sweep, and pictures to look at.

Everything comes from small tables and from two planes of voxels, so it takes seconds for a volume of any size.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from pipeline.evaluation.plots import comparison_picture, sweep_plot
from pipeline.evaluation.scores import Scores, score
from pipeline.evaluation.sweep import SweepPoint, best, sweep
from pipeline.geometry import BoundingBox
from pipeline.merge_tree import read_merge_tree
from pipeline.run import Run
from pipeline.stages import resources
from pipeline.stages.evaluate_segmentation import EvaluateSegmentation

PICTURE_SIDE = 512
"""Voxels along each side of the part that is drawn."""


@dataclass(frozen=True)
class Report:
    """Scores at the chosen threshold and over all thresholds; without ground truth there is only the picture."""

    picture: str
    scores: Scores | None = None
    points: tuple[SweepPoint, ...] = ()
    sweep_picture: str = ""

    @property
    def best(self) -> SweepPoint | None:
        """The point of the sweep with the lowest total VOI."""
        return best(self.points) if self.points else None


def write_report(run: Run) -> Report:
    """Score a finished run and draw it; files go to ``report/`` of the run directory (the current folder if remote)."""
    folder = Path(f"{run.url}/report" if run.store.local_path else "petaseg-report")
    folder.mkdir(parents=True, exist_ok=True)
    picture = draw_run(run, folder / "overview.png")
    if run.inputs.truth is None:
        return Report(str(picture))
    stage = run.stage(EvaluateSegmentation.name)
    assert isinstance(stage, EvaluateSegmentation)
    scores = score(stage.table("labels"))
    points = tuple(sweep(stage.table("supervoxels"), read_merge_tree(run), thresholds_of(run)))
    sweep_plot(points, folder / "sweep.png", chosen=run.config.segmentation.threshold)
    (folder / "scores.json").write_text(
        json.dumps({"scores": asdict(scores), "sweep": [asdict(p) for p in points]}, indent=2)
    )
    return Report(str(picture), scores, points, str(folder / "sweep.png"))


def thresholds_of(run: Run) -> np.ndarray:
    """51 thresholds from the end of the merge tree to 1."""
    return np.linspace(run.config.agglomeration.stop_score, 1, 51)


def draw_run(run: Run, path: Path) -> Path:
    """Draw raw, affinities, segmentation and truth side by side, in two planes through the middle."""
    roi = run.layout.roi
    half = PICTURE_SIDE // 2
    middle = tuple((a + b) // 2 for a, b in zip(roi.start, roi.stop, strict=True))
    box = BoundingBox(middle, middle).grow((half,) * 3).intersect(roi)
    comparison_picture(
        path,
        image=None if run.inputs.network is None else _planes(resources.source(run.inputs.url), box, middle),
        affinities=_planes(run.affinities, box, middle),
        segmentation=_planes(resources.source(run.layout.volume_url("labels")), box, middle),
        truth=None if run.inputs.truth is None else _planes(resources.source(run.inputs.truth.url), box, middle),
        resolution_nm=run.layout.resolution_nm,
    )
    return path
