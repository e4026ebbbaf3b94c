"""One channel of a head together with what its stored numbers mean, so that thresholds are said in values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.config.run_file import Segmentation
from pipeline.errors import ConfigError
from pipeline.geometry import BoundingBox
from pipeline.models.heads import AFFINITIES, CLASSES, FOREGROUND, MAPPINGS, Mapping, heads_of, makes_mask
from pipeline.stages.base import Stage
from pipeline.stages.heads import HeadSource
from pipeline.stages.setup import Setup

ARGMAX = ":argmax"
"""Behind the name of a channel: where it is the largest."""
HIGHEST = 255
"""The largest stored number."""


@dataclass(frozen=True)
class ValuedHead:
    """A head, or a channel of one, as stored numbers with their meaning."""

    source: HeadSource
    mapping: Mapping
    threshold: float | None = None
    """What the model's card says about it, for a mask whose run file names none."""

    @property
    def identity(self) -> list[Any]:
        """What decides about its voxels."""
        return [*self.source.identity]

    @property
    def is_signed(self) -> bool:
        """True if its values are from -1 to 1, and otherwise from 0 to 1."""
        return self.mapping == "signed"

    def read(self, box: BoundingBox) -> np.ndarray:
        """The stored numbers of a box, uint8 (z, y, x)."""
        return self.source.read(box)

    def stored_below(self, value: float) -> int:
        """The largest stored number that does not stand for more than ``value``; below 0 if all do."""
        return math.floor(self._scaled(value))

    def stored_from(self, value: float) -> int:
        """The smallest stored number that does not stand for less than ``value``."""
        return math.ceil(self._scaled(value))

    def level_at(self, stored: int) -> float:
        """The shortest number that as a threshold keeps the stored numbers above ``stored``, from 0 to 254."""
        low, high = MAPPINGS[self.mapping][1]
        for digits in (1, 2, 3):
            value = math.ceil((low + (high - low) * stored / HIGHEST) * 10**digits - 1e-9) / 10**digits
            if self.stored_below(value) == stored:
                return value
        raise AssertionError("a thousandth is less than the distance of two stored numbers")

    def check_level(self, key: str, value: float | None, *, above: bool = True) -> None:
        """Raise ``ConfigError`` if no value of the head is on one side of a level.

        key: the key of the run file that says the level. above: True if it asks for more than that, not for less.
        """
        low, high = MAPPINGS[self.mapping][1]
        if value is None or (low <= value < high if above else low < value <= high):
            return
        limit = f"below {high:g}" if above else f"above {low:g}"
        raise ConfigError(
            f"segmentation.{key} is {value:g}, and the values of {self.source.name} are from {low:g} to {high:g}: "
            f"choose one there, {limit}"
        )

    def _scaled(self, value: float) -> float:
        low, high = MAPPINGS[self.mapping][1]
        return round(HIGHEST * (value - low) / (high - low), 9)  # 0.6, which binary numbers only come near, is 153

    def filtered(self, url: str, fingerprint: str) -> ValuedHead:
        """The same head after a filter, whose result another stage has stored."""
        return replace(self, source=HeadSource(self.source.name, url, fingerprint))


def chosen_head(setup: Setup, predicted: Stage | None) -> ValuedHead:
    """The head of which a mask or objects are made."""
    name = result_head(setup.config.segmentation, setup.inputs.heads)
    return replace(valued_head(setup, predicted, name), threshold=card_threshold(setup, name))


def card_threshold(setup: Setup, name: str) -> float | None:
    """The threshold of the model's card for a mask of the head ``name``; cards of neurons' models say no such one."""
    network = setup.inputs.network
    if network is None or setup.config.segmentation.kind != "mask":
        return None
    is_about = makes_mask(heads_of(network.card)) and name == FOREGROUND
    return network.card.threshold if is_about else None


def valued_head(setup: Setup, predicted: Stage | None, name: str) -> ValuedHead:
    """A head of the run by the name that the run file gives it: ``foreground``, or ``classes:2`` for one channel.

    ``classes:2:argmax`` is 1 where that channel has the largest value of all, and 0 elsewhere.

    Raises ``ConfigError`` if the run has no such head, or the name does not say which of several channels is meant.
    """
    head, channel, argmax = split_name(name)
    source, mapping, count = setup.head(head, predicted), *setup.inputs.meaning_of(head)
    if count == 1 and head != name:
        raise ConfigError(f"{name!r} names a channel of head {head}, which has only one: leave out {name[len(head) :]}")
    if count > 1 and (channel is None or channel >= count):
        raise ConfigError(
            f"{name!r} names no channel of head {head}, which has {count}: choose one from {head}:0 to "
            f"{head}:{count - 1}"
        )
    if argmax:
        return ValuedHead(replace(source, largest=channel), "probability")
    return ValuedHead(source if count == 1 or channel is None else source.select(channel), mapping)


def split_name(name: str) -> tuple[str, int | None, bool]:
    """The head, the channel if one is named, and whether its argmax is meant: ``classes``, ``classes:2:argmax``."""
    head, _, channel = name.partition(":")
    argmax = channel.endswith(ARGMAX)
    channel = channel.removesuffix(ARGMAX)
    return head, int(channel) if channel.isascii() and channel.isdecimal() else None, argmax


def result_head(table: Segmentation, names: Sequence[str]) -> str:
    """The head of which the result is made: as the run file says, else foreground, or classes, else the only one.

    names: the heads that there are. ``ConfigError`` if that leaves a choice.
    """
    if table.head is not None:
        return table.head
    usual = CLASSES if table.kind == CLASSES else FOREGROUND
    others = [name for name in names if name not in (AFFINITIES, *table.within, *table.seeds_within)]
    if usual in others or len(others) == 1:
        return usual if usual in others else others[0]
    if others:
        raise ConfigError(
            f"segmentation.kind is {table.kind}, and there is no head called {usual}; say in segmentation.head "
            f"which one is meant: {', '.join(others)}"
        )
    raise ConfigError(
        f"segmentation.kind is {table.kind}, and of {', '.join(names) or 'nothing'} none is left that is no affinity "
        "and in no condition: name the head in segmentation.head, give it as input.heads, or take a model that "
        f"predicts {usual}"
    )


def needed_heads(table: Segmentation, names: Sequence[str]) -> tuple[str, ...]:
    """The heads, without channels, of which a result is made that is no neurons, each once; ``names``: all heads."""
    wanted = (result_head(table, names), *table.within, *table.seeds_within)
    return tuple(dict.fromkeys(split_name(name)[0] for name in wanted))
