"""What is flooded, and where: a head as a landscape, and conditions on other heads, in the numbers that are stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from pipeline.config.run_file import DEFAULT_THRESHOLD, Condition, Segmentation, check_levels
from pipeline.errors import ConfigError
from pipeline.geometry import BoundingBox
from pipeline.segmentation.objects.rules import FACES, LandscapeRules, ObjectRules
from pipeline.stages.blend_heads import BlendHeads
from pipeline.stages.chain_stage import ChainStage
from pipeline.stages.filter_head import FilterHead
from pipeline.stages.setup import Setup
from pipeline.stages.valued_head import HIGHEST, ValuedHead, chosen_head, result_head, valued_head

LOWEST = 0.1
"""Tables of objects end at this probability if ``segmentation.lowest_threshold`` is left out."""


@dataclass(frozen=True)
class HeadRange:
    """A condition on a head: its stored number lies strictly between two others."""

    head: ValuedHead
    above: int
    """-1 if there is no limit."""
    below: int
    """256 if there is no limit."""

    @classmethod
    def of(cls, key: str, head: ValuedHead, condition: Condition) -> HeadRange:
        """The condition of a run file under a key; it is about values and not about stored numbers.

        Raises ``ConfigError`` if all values of the head fulfil it, or none.
        """
        head.check_level(f"{key}.above", condition.above)
        head.check_level(f"{key}.below", condition.below, above=False)
        above = -1 if condition.above is None else head.stored_below(condition.above)
        below = HIGHEST + 1 if condition.below is None else head.stored_from(condition.below)
        return cls(head, above, below)

    def holds(self, box: BoundingBox) -> np.ndarray:
        """Where it is fulfilled, bool (z, y, x)."""
        values = self.head.read(box)
        return (values > self.above) & (values < self.below)

    @property
    def identity(self) -> list[Any]:
        """What its result depends on."""
        return [self.head.identity, self.above, self.below]


def all_hold(conditions: Sequence[HeadRange], box: BoundingBox) -> np.ndarray | None:
    """Where all conditions are fulfilled, bool (z, y, x); ``None`` if there is no condition."""
    return reduce(np.logical_and, (each.holds(box) for each in conditions)) if conditions else None


def landscape_rules(head: ValuedHead, table: Segmentation) -> LandscapeRules:
    """What changes the basins of a landscape, and the passes between them."""
    floor = max(0, head.stored_below(lowest_threshold(head, table)))
    return LandscapeRules(floor, connectivity=table.connectivity or FACES)


def lowest_threshold(head: ValuedHead, table: Segmentation) -> float:
    """The value that a voxel of a basin exceeds: no lower threshold can be applied to the stored tables."""
    if table.lowest_threshold is not None:
        return table.lowest_threshold
    return min(_usual_lowest(head), threshold_of(head, table))


def refuse_below_tables(head: ValuedHead, table: Segmentation) -> None:
    """Raise ``ConfigError`` if stored tables are missing because the threshold is below those that they reach."""
    threshold, lowest = threshold_of(head, table), _usual_lowest(head)
    if table.lowest_threshold is None and threshold < lowest:
        raise ConfigError(
            f"segmentation.threshold is {threshold:g}, and stored tables reach down to {lowest:g} unless "
            f"segmentation.lowest_threshold says otherwise: choose at least {lowest:g}, or set lowest_threshold to "
            f"{threshold:g} in the run file and run it again, which computes basins and nothing of the network"
        )


def _usual_lowest(head: ValuedHead) -> float:
    return 0.0 if head.is_signed else LOWEST


def threshold_of(head: ValuedHead, table: Segmentation) -> float:
    """The value that a voxel of an object exceeds: by default the model's for a mask, else 0.5, or 0 of distances."""
    if table.threshold is not None:
        return table.threshold
    if head.threshold is not None:
        return head.threshold
    return 0.0 if head.is_signed else DEFAULT_THRESHOLD


def object_rules(head: ValuedHead, table: Segmentation) -> ObjectRules:
    """What is decided on the stored tables: a change touches no prediction and no basin.

    Raises ``ConfigError`` unless the levels are values of the head and rise from the lowest to that of the seeds, with
    all defaults filled in.
    """
    threshold = threshold_of(head, table)
    for key in ("lowest_threshold", "threshold", "seed_threshold"):
        head.check_level(key, getattr(table, key))
    try:
        check_levels(table.lowest_threshold, threshold, table.seed_threshold)
    except ValueError as error:
        raise ConfigError(f"{error} (the threshold is the default)") from None
    mask = max(0, head.stored_below(threshold))
    seed = mask if table.seed_threshold is None else max(mask, head.stored_below(table.seed_threshold))
    return ObjectRules(
        mask=mask,
        seed=seed,
        min_seed=table.min_seed_size or 0,
        min_size=table.min_size,
        seedless=table.seedless or "drop",
    )


@dataclass(frozen=True)
class Landscape:
    """A head that is flooded, and conditions on other heads."""

    head: ValuedHead
    objects_within: tuple[HeadRange, ...] = ()
    seeds_within: tuple[HeadRange, ...] = ()

    @property
    def identity(self) -> list[Any]:
        """What basins depend on."""
        conditions = [[each.identity for each in group] for group in (self.objects_within, self.seeds_within)]
        return [self.head.identity, *conditions]

    def within(self, box: BoundingBox) -> np.ndarray | None:
        """Where objects may be, bool (z, y, x); ``None`` if that is everywhere."""
        return all_hold(self.objects_within, box)

    def seeds(self, box: BoundingBox) -> np.ndarray | None:
        """Where seeds may be, bool (z, y, x); ``None`` if that is everywhere."""
        return all_hold(self.seeds_within, box)

    def rules(self, table: Segmentation) -> LandscapeRules:
        """The rules of its basins."""
        return landscape_rules(self.head, table)


def landscape_of(setup: Setup, before: Mapping[str, ChainStage]) -> Landscape | None:
    """What the run file floods, with its conditions; ``None`` if the run makes neither a mask nor objects.

    before: the stages that predict and filter heads, as far as the run has them.
    """
    table, predicted = setup.config.segmentation, before.get(BlendHeads.name)
    if not table.has_basins:
        return None
    head, filtered = chosen_head(setup, predicted), before.get(FilterHead.name)
    if filtered is not None:
        head = head.filtered(setup.layout.volume_url(FilterHead.volumes[0].name), filtered.fingerprint)

    _refuse_contradictions(table, result_head(table, setup.inputs.heads), threshold_of(head, table))

    def ranges(key: str, conditions: Mapping[str, Condition]) -> tuple[HeadRange, ...]:
        return tuple(
            HeadRange.of(f"{key}.{name}", valued_head(setup, predicted, name), conditions[name])
            for name in sorted(conditions)
        )

    return Landscape(head, ranges("within", table.within), ranges("seeds_within", table.seeds_within))


def _refuse_contradictions(table: Segmentation, name: str, threshold: float) -> None:
    """``ConfigError`` for a condition on the flooded head, called ``name``, that no voxel above its level fulfils."""
    seed = threshold if table.seed_threshold is None else table.seed_threshold
    for key, conditions, level in (("within", table.within, threshold), ("seeds_within", table.seeds_within, seed)):
        below = conditions[name].below if name in conditions else None
        if below is not None and below <= level:
            raise ConfigError(
                f"segmentation.{key}.{name}.below is {below:g}, and {name} must be above {level:g} there, so nothing "
                "is left: name another head, or a larger value"
            )
