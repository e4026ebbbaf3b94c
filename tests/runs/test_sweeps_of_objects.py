"""Sweeps and previews of masks and objects equal the results that they foretell, in any chunks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.evaluation.compare_masks import MaskScores
from pipeline.evaluation.contingency import Contingency
from pipeline.evaluation.objects import score_objects
from pipeline.runs.preview import preview
from pipeline.runs.run import Run
from pipeline.runs.summary import summarise
from tests.object_runs import SEEDS, TRUTH, result_of, write
from workflows.driver import segment


def plain_scores(kind: str, found: np.ndarray) -> dict[str, Any]:
    """The scores of a result, from its voxels."""
    table = Contingency.from_labels(TRUTH, found, background=True)
    return (MaskScores.of_table(table, 0).mask if kind == "mask" else score_objects(table)).to_dict()


@pytest.mark.parametrize(
    ("kind", "table"),
    [
        ("mask", {"threshold": 0.6}),
        ("mask", {"threshold": 0.6, "min_size": 40, "median": [3, 3, 3]}),
        ("objects", {"threshold": 0.6}),
        ("objects", {**SEEDS, "min_seed_size": 5, "min_size": 30}),
        ("objects", {**SEEDS, "seedless": "keep", "within": {"contours": {"below": 0.8}}}),
    ],
)
def test_a_sweep_foretells_every_relabelled_result(tmp_path: Path, kind: str, table: dict[str, Any]) -> None:
    """Each point has the scores of the volume that relabel then writes, for the lowest, best, own and last choice."""
    file = write(tmp_path, kind, **table)
    lines = segment(str(file), report=True).report.lines
    assert [line.key for line in lines] == ["threshold", "seed_threshold"][: 1 + ("seed_threshold" in table)]
    for line in lines:
        for point in (line.points[0], line.best, line.own, line.points[-1]):
            rule = f"segmentation.{line.key}={point.value:g}"
            after = segment(str(file), [rule], only_after="tables").run
            assert plain_scores(kind, result_of(after)) == point.scores


@pytest.mark.parametrize("kind", ["mask", "objects"])
def test_chunks_change_no_byte_of_a_sweep(tmp_path: Path, kind: str) -> None:
    """The stored numbers, sweep among them, are the same whatever the chunks."""
    file, stored = write(tmp_path, kind, threshold=0.5, min_size=20), []
    for name, chunk in (("small", "[8,10,12]"), ("slabs", "[8,30,36]"), ("whole", "[24,30,36]")):
        settings = [f"run_directory={tmp_path}/{name}", f"chunk_shape={chunk}"]
        segment(str(file), settings, report=True)
        stored.append((tmp_path / name / "report" / "scores.json").read_bytes())
    assert stored[0] == stored[1] == stored[2]
    assert len(json.loads(stored[0])["sweep"][0]["points"]) >= 51


@pytest.mark.parametrize(("kind", "table"), [("mask", {"threshold": 0.6, "min_size": 40}), ("objects", SEEDS)])
def test_a_preview_of_objects_says_what_relabel_then_does(tmp_path: Path, kind: str, table: dict[str, Any]) -> None:
    """Thresholds at once, also with another size: pieces, sizes and chunks to write; nothing is written."""
    file = write(tmp_path, kind, **table)
    segment(str(file))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    own = table["threshold"]
    others = Run.open(file, ["segmentation.min_size=700"])
    now, larger = preview(Run.open(file), [0.3, own, 0.65]), preview(others, [0.3, own, 0.65])
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before
    assert [each.is_present for each in now] == [False, True, False]
    assert now[0].rewritten == now[2].rewritten == now[1].chunks == 27
    for size, previews in ((None, now), (700, larger)):
        for each in previews:
            settings = [f"segmentation.threshold={each.threshold}"]
            settings += [] if size is None else [f"segmentation.min_size={size}"]
            then = segment(str(file), settings, only_after="tables", beside="other").run
            assert each.summary.labelled == np.count_nonzero(result_of(then))
            assert replace(summarise(then), threshold=each.summary.threshold, labels="", warnings=()) == replace(
                each.summary, labels=""
            )
    first = result_of(Run.open(file))
    after = result_of(segment(str(file), ["segmentation.min_size=700"], only_after="tables").run)
    assert np.count_nonzero(first != after) > 0
    assert 0 < larger[1].rewritten <= 27


def test_a_preview_below_the_tables_of_objects_is_refused(tmp_path: Path) -> None:
    """The tables end at the lowest threshold, and seeds are above the threshold."""
    file = write(tmp_path, "objects", **SEEDS, lowest_threshold=0.3)
    segment(str(file))
    with pytest.raises(ConfigError, match=r"--preview: threshold 0\.2 is below 0\.3, where the stored tables end"):
        preview(Run.open(file), [0.2, 0.5])
    with pytest.raises(ConfigError, match=r"must rise"):
        preview(Run.open(file), [0.8])
