"""Scores of a mask or of objects at other thresholds and seed limits, exact and without reading a voxel.

1. the voxels of each chunk by true object, basin and height, once       stage evaluate_segmentation
2. the objects under each choice, from the basin graph                   object_cuts
3. both joined: the contingency table of the result that the choice would give

A mask without a least size needs the first step only, so all of its thresholds are scored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.evaluation.basin_counts import BasinCounts
from pipeline.evaluation.compare_masks import MaskScores
from pipeline.evaluation.contingency import Contingency
from pipeline.evaluation.masks import MaskCounts, ValueCounts
from pipeline.evaluation.object_sweep_plot import Line, Tried
from pipeline.evaluation.objects import Levels, score_objects
from pipeline.runs.object_cuts import cut_objects
from pipeline.runs.run import Run
from pipeline.runs.summary import lowest_of
from pipeline.segmentation.objects.rules import HIGHEST, ObjectRules
from pipeline.stages.evaluate_segmentation import EvaluateSegmentation
from pipeline.stages.landscape import object_rules
from pipeline.stages.valued_head import ValuedHead

MOST = 51
"""The number of choices along a line whose objects must be joined anew."""
AT_ONCE = 8
"""Choices for which the tables of the run are read once."""

AnyScores = MaskCounts | Levels


@dataclass(frozen=True)
class _Case:
    """What a sweep of a run needs."""

    run: Run
    stage: EvaluateSegmentation
    head: ValuedHead
    rules: ObjectRules
    lowest: int
    """The lowest stored number that the tables reach."""


def sweep_objects(run: Run, stage: EvaluateSegmentation) -> tuple[Line, ...]:
    """The scores over the threshold and, of objects that have seeds, over the threshold of seeds.

    stage: complete, with true labels.
    """
    assert run.landscape is not None, "the run makes no neurons"
    table, head = run.config.segmentation, run.landscape.head
    rules, lowest = object_rules(head, table), run.landscape.rules(table).floor
    case = _Case(run, stage, head, rules, lowest)
    has_seeds = bool(table.seed_threshold is not None or table.seeds_within or table.min_seed_size)
    if run.kind.name == "mask" and rules.min_size <= 1:
        return (_mask_line(case),)
    return (_threshold_line(case), *([_seed_line(case)] if has_seeds and run.kind.name == "objects" else []))


def _mask_line(case: _Case) -> Line:
    """Every threshold of a mask without a least size, from counts of voxels alone."""
    counts = sum((each.values() for each in _counts(case)), ValueCounts.empty())
    tried = ((stored, counts.at(stored + 1)) for stored in range(case.lowest, HIGHEST + 1))
    points = tuple(_tried(stored, _threshold_of(case, stored), scores) for stored, scores in tried)
    return Line("threshold", points, case.rules.mask, counts.average_precision())


def _threshold_line(case: _Case) -> Line:
    """Thresholds up to that of the seeds, if the run has one, with all else as it is."""
    given = case.run.config.segmentation.seed_threshold
    numbers = _spread(case.lowest, HIGHEST if given is None else case.rules.seed, case.rules.mask)
    rules = [replace(case.rules, mask=each, seed=each if given is None else case.rules.seed) for each in numbers]
    points = zip(numbers, _scores(case, rules), strict=True)
    return Line(
        "threshold",
        tuple(_tried(stored, _threshold_of(case, stored), scores) for stored, scores in points),
        case.rules.mask,
    )


def _seed_line(case: _Case) -> Line:
    """Thresholds of seeds, with all else as it is."""
    numbers = _spread(case.rules.mask, HIGHEST, case.rules.seed)
    points = zip(numbers, _scores(case, [replace(case.rules, seed=each) for each in numbers]), strict=True)
    return Line(
        "seed_threshold",
        tuple(_tried(stored, max(case.head.level_at(stored), case.run.threshold), scores) for stored, scores in points),
        case.rules.seed,
    )


def _threshold_of(case: _Case, stored: int) -> float:
    """The threshold to be given for a stored number, between the lowest one and that of the seeds."""
    seed = case.run.config.segmentation.seed_threshold
    value = max(case.head.level_at(stored), lowest_of(case.run))
    return value if seed is None else min(value, seed)


def _spread(first: int, last: int, own: int) -> list[int]:
    """Numbers from ``first`` to ``last``, evenly spread, and ``own`` among them."""
    return sorted({*np.linspace(first, last, MOST).astype(int).tolist(), own})


def _counts(case: _Case) -> Iterator[BasinCounts]:
    return (case.stage.basin_counts(chunk) for chunk in case.stage.grids()[0])


def _scores(case: _Case, rules: Sequence[ObjectRules]) -> Iterator[AnyScores]:
    """The scores under each choice of rules."""
    for first in range(0, len(rules), AT_ONCE):
        yield from map(SCORED[case.run.kind.name], _tables(case, rules[first : first + AT_ONCE]))


def _tables(case: _Case, rules: Sequence[ObjectRules]) -> list[Contingency]:
    """The table of truth and objects under each choice of rules."""
    cuts = cut_objects(case.run, rules)
    parts: list[list[Contingency]] = [[] for _ in rules]
    for chunk, counts in zip(case.stage.grids()[0], _counts(case), strict=True):
        for rule, cut, found in zip(rules, cuts, parts, strict=True):
            table = cut.tables[chunk.name]
            found.append(counts.contingency(table.fragment, table.segment, rule.mask))
    return [Contingency.sum(found) for found in parts]


SCORED: dict[str, Callable[[Contingency], AnyScores]] = {
    "mask": lambda table: MaskScores.of_table(table, 0).mask,
    "objects": score_objects,
}
"""Kind of result -> its scores from a table that counts the background."""


def _tried(stored: int, value: float, scores: AnyScores) -> Tried:
    """A point of a line, with the numbers that are drawn and stored."""
    plain: dict[str, Any] = scores.to_dict()
    return Tried(stored, value, plain)
