"""Fit the model to a run and true labels of some of its tissue."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from pipeline.geometry import BoundingBox
from pipeline.runs.run import Run
from pipeline.suspects.candidates import KINDS, Candidates, find_candidates
from pipeline.suspects.fitting import fit, has_enough
from pipeline.suspects.model import Model
from pipeline.suspects.oracle import Oracle
from pipeline.suspects.tables import Tables
from pipeline.suspects.truth import count_truth, open_labels

LEAST_VOXELS = 100
"""Candidates with a smaller side below this are crumbs, and teach nothing about neurons."""


def calibrate(run: Run, labels: str, box: BoundingBox | None = None) -> Model:
    """The model of a run with true labels, within a box of them.

    Raises:
        ConfigError: too few candidates are wrong there, or too few right.
        VolumeError: the labels do not fit to the run.
    """
    ends = (None, None) if box is None else (box.start, box.stop)
    oracle = Oracle.of(count_truth(run, open_labels(run, labels, *ends)))
    where = f" in {box}" if box is not None else ""
    found = fitted(((oracle, 1.0, each) for each in find_candidates(Tables(run))), f"{labels}{where}")
    return found.completed()


def fitted(judged: Iterable[tuple[Oracle, float, Candidates]], trained_on: str) -> Model:
    """The model of candidates, which come with the oracle that judges them, and with how often each counts.

    It has no numbers for kinds that have a prior and of which too few are wrong or right.
    """
    rows: dict[str, list[tuple[np.ndarray, ...]]] = {kind: [] for kind in KINDS}
    for oracle, weight, candidates in judged:
        wrong, known = oracle.judge(candidates)
        known &= candidates.sides[:, 0] >= LEAST_VOXELS
        rows[candidates.kind].append((candidates.features[known], wrong[known], np.full(known.sum(), weight)))
    joined = {
        kind: [np.concatenate(column) for column in zip(*parts, strict=True)] for kind, parts in rows.items() if parts
    }
    enough = {kind for kind, (_, wrong, _) in joined.items() if has_enough(wrong) or KINDS[kind].prior is None}
    return Model(trained_on, {kind: fit(kind, *columns) for kind, columns in joined.items() if kind in enough})
