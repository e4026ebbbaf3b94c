"""How sure each predicted object is: a table of two columns, the id and a number, larger for surer.

    # id, confidence
    17, 0.93
    18, 0.41

Columns are parted by commas or spaces; empty lines, and what follows a ``#``, are left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.errors import VolumeError
from pipeline.storage import store_of


@dataclass(frozen=True, eq=False)
class Confidences:
    """Numbers by id, for ``pipeline.evaluation.objects``."""

    name: str
    """Where they come from, for messages"""
    numbers: Mapping[int, float]

    @classmethod
    def load(cls, address: Path | str) -> Confidences:
        """Read a table: a path or a URL. ``VolumeError`` if it is missing, or a line is not an id and a number."""
        folder, key = store_of(str(address))
        data = folder.get_or_none(key)
        if data is None:
            raise VolumeError(f"{address} does not exist; a text file with an id and a number a line is needed")
        return cls.parse(data.decode("utf-8", "replace").splitlines(), str(address))

    @classmethod
    def parse(cls, lines: Iterable[str], name: str) -> Confidences:
        """Like ``load``, of the lines of such a file."""
        numbers: dict[int, float] = {}
        for place, line in enumerate(lines, start=1):
            words = line.partition("#")[0].replace(",", " ").split()
            if not words:
                continue
            each, number = _entry(words, f"{name}, line {place}", line)
            if each in numbers:
                raise VolumeError(f"{name}, line {place}: id {each} stands there twice; keep one of the lines")
            numbers[each] = number
        return cls(name, numbers)

    def __call__(self, ids: np.ndarray) -> np.ndarray:
        """The number of each id; ``VolumeError`` if one has none."""
        missing = [each for each in ids.tolist() if each not in self.numbers]
        if missing:
            raise VolumeError(
                f"{self.name} has no confidence of {len(missing):,} of {len(ids):,} predicted objects, such as "
                f"{missing[0]}; each needs a line with its id and a number: add them, or leave --confidence out"
            )
        return np.array([self.numbers[each] for each in ids.tolist()], np.float64)


def _entry(words: list[str], place: str, line: str) -> tuple[int, float]:
    try:
        each, number = words
        found = int(each), float(number)
    except ValueError:
        found = -1, math.nan
    if found[0] < 0 or not math.isfinite(found[1]):
        raise VolumeError(f"{place} is {line[:80]!r}; it must be an id and a finite number, like 17, 0.93: correct it")
    return found
