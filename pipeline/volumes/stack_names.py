"""The order of sections by the numbers in their file names, refused where the names leave a choice.

The section's number is the number in the name that is different in every file. If several are (a date, a stage
position), it is the one of which the fewest are missing. Names that are not of one series are refused:

    raw_01 seg_01           two words: two series
    z00_ch00 z00_ch01       no number differs in every file: two channels
    z3 z003, z3 copy        a section twice

``#files=raw_*`` takes a part of a folder, ``#order=names`` takes the files as their names sort, whatever is missing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from itertools import pairwise

from pipeline.errors import ConfigError, VolumeError
from pipeline.volumes.location import Location

NUMBER = re.compile(r"(\d+)")
VALUE = re.compile(r"[-+]?\d+(?:\.\d+)?")
"""A number with its sign and fraction: what may differ between the names of one series."""
SHOWN = 10
"""How many file names or numbers a message lists."""
REMEDY = "name one series by adding #files=PATTERN (such as #files=raw_*), or take all as they sort: #order=names"


def natural_key(name: str) -> list[tuple[int, int | str]]:
    """Sort key that puts ``z9`` before ``z10``."""
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in NUMBER.split(name)]


def in_order(location: Location, names: Iterable[str]) -> list[str]:
    """The file names of a folder that are its sections, in their order.

    Raises ``VolumeError`` if they are not of one series or a number is missing, ``ConfigError`` for a wrong option.
    """
    order, pattern = location.options.get("order", "numbers"), location.options.get("files", "*")
    if order not in ("numbers", "names"):
        raise ConfigError(f"{location.url}: order is {order!r}; it is numbers or names")
    chosen = sorted((name for name in names if fnmatchcase(name, pattern)), key=natural_key)
    if not chosen:
        raise VolumeError(f"{location.url} has no file whose name is like {pattern}; correct the pattern")
    if order == "names" or len(chosen) == 1:
        return chosen
    _refuse_other_words(location, chosen)
    sections = _sections(location, chosen)
    _refuse_missing(location, sections)
    return [name for _, name in sorted(zip(sections, chosen, strict=True))]


def missing_numbers(numbers: Iterable[int]) -> list[int]:
    """Numbers that a series leaves out; its step is the smallest that occurs."""
    found = sorted(set(numbers))
    if len(found) < 2:
        return []
    return sorted(set(range(found[0], found[-1] + 1, _step(found))) - set(found))


def _refuse_other_words(location: Location, names: Sequence[str]) -> None:
    """Refuse names that differ in more than numbers."""
    words = Counter(_words(name) for name in names)
    if len(words) > 1:
        examples = [next(name for name in names if _words(name) == word) for word in words]
        raise VolumeError(
            f"{location.url} holds files of {len(words)} series, such as {_listed(examples)}; a folder is one series "
            f"of sections: {REMEDY}"
        )


def _words(name: str) -> str:
    return VALUE.sub("0", name.lower().rpartition(".")[0])


def _sections(location: Location, names: Sequence[str]) -> list[int]:
    """The section number of each file; ``VolumeError`` if it is not clear which one that is."""
    values = [VALUE.findall(name.rpartition(".")[0]) for name in names]
    columns = [[abs(int(text)) for text in column] for column in zip(*values, strict=True) if _is_whole(column)]
    counting = [column for column in columns if len(set(column)) == len(names)]
    if not counting:
        raise VolumeError(
            f"{location.url} holds files of several series, or a section twice, such as {_listed(_alike(names))}: no "
            f"number is different in each of the {len(names)} names; {REMEDY}"
        )
    best = min(counting, key=_gaps)
    for column in counting:
        if _gaps(column) == _gaps(best) and _ranks(column) != _ranks(best):
            raise VolumeError(
                f"{location.url} holds files such as {_listed(names[:2])}, with several numbers that put them into "
                f"different orders; {REMEDY}"
            )
    return best


def _refuse_missing(location: Location, sections: Sequence[int]) -> None:
    count = _gaps(sections)
    if count:
        missing = missing_numbers(sections) if count < 10**6 else sorted(sections)[:1]
        shown = ", ".join(map(str, missing[:SHOWN])) + (" ..." if count > SHOWN else "")
        raise VolumeError(
            f"{location.url} lacks {count} of its numbered sections: {shown}; bring them, or put a copy of a "
            "neighbour or a black image in their places; if the numbers do not count sections, add #order=names"
        )


def _gaps(sections: Sequence[int]) -> int:
    """How many numbers a series leaves out."""
    found = sorted(set(sections))
    return 0 if len(found) < 2 else (found[-1] - found[0]) // _step(found) + 1 - len(found)


def _step(found: Sequence[int]) -> int:
    return min(b - a for a, b in pairwise(found))


def _ranks(column: Sequence[int]) -> list[int]:
    return sorted(range(len(column)), key=column.__getitem__)


def _is_whole(column: Iterable[str]) -> bool:
    return all("." not in text for text in column)


def _alike(names: Sequence[str]) -> list[str]:
    """Two names whose first numbers are the same, if there are any."""
    first = [NUMBER.findall(name)[:1] for name in names]
    pair = next((k for k in range(len(names) - 1) if [*map(int, first[k])] == [*map(int, first[k + 1])]), 0)
    return list(names[pair : pair + 2])


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (" ..." if len(names) > SHOWN else "")
