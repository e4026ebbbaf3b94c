"""Sweeps and previews of masks and objects equal the results that they foretell, in any chunks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.evaluation.compare_masks import MaskScores
from pipeline.evaluation.contingency import Contingency
from pipeline.evaluation.objects import score_objects
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
