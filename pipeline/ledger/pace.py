"""Speed and time left of a stage: from the seconds of its chunks, the number of workers, and recent times of ends.

    few chunks left     waves: each worker ends its chunk and takes the next, until none is left     ``in_waves``
    many chunks left    the interval between the ends of recent chunks, which has every overhead in it

A stage over the tree of chunks does this level by level: a level begins when the one before it is finished.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

SECONDS_KEPT = 1000
"""Seconds in which a chunk was finished that are kept: hours of a stage of slow chunks, minutes of fast ones.
"""
WINDOW_SECONDS = 60.0
FEW = 20
"""If the last minute has fewer chunks than this, older ones also count for the interval."""
WAVES = 2
"""The interval counts if it is measured over the time of so many chunks, and for so many chunks of each worker."""


@dataclass(frozen=True)
class Level:
    """The chunks of one grid of a stage, as far as the time left depends on them."""

    done: int
    missing: int
    seconds: float | None
    """Mean seconds of a chunk, measured or estimated; ``None`` if it is not known."""


def in_waves(levels: Sequence[Level], slots: int) -> float | None:
    """Seconds of the missing chunks if none has begun; ``None`` if a level's seconds are not known.

    slots: how many chunks run at a time.
    """
    total = 0.0
    for level in levels:
        if level.missing and level.seconds is None:
            return None
        total += math.ceil(level.missing / slots) * (level.seconds or 0.0)
    return total


@dataclass
class Pace:
    """Chunks and voxels finished, by whole seconds (Unix time) of the driver's clock."""

    last: float = 0.0
    """When the latest chunk was finished; 0 if none was."""
    began: float = 0.0
    """When the log that holds these times was begun, so no chunk of it before; 0 if that is not known."""
    _seconds: deque[list[int]] = field(default_factory=lambda: deque(maxlen=SECONDS_KEPT))
    """[second, chunks, voxels], ascending."""

    def go_on_from(self, earlier: Pace) -> None:
        """Take over the chunks of ``earlier`` that were finished before the first one known here."""
        first = self._seconds[0][0] if self._seconds else earlier.last + 1
        older = [entry for entry in earlier._seconds if entry[0] < first]
        self._seconds = deque([*older, *self._seconds], maxlen=SECONDS_KEPT)
        self.last = max(self.last, earlier.last)

    def add(self, when: float, voxels: int) -> None:
        """Record that a chunk of ``voxels`` was finished."""
        second = int(when)
        self.last = max(self.last, when)
        if self._seconds and second <= self._seconds[-1][0]:
            self._seconds[-1][1] += 1
            self._seconds[-1][2] += voxels
        else:
            self._seconds.append([second, 1, voxels])

    def voxels_per_second(self, now: float) -> float:
        """Voxels per second over the minute before ``now``, or since the first chunk; later times count as ``now``."""
        if not self._seconds:
            return 0.0
        end = max(now, self.last)
        span = min(WINDOW_SECONDS, max(1.0, end - self._seconds[0][0]))
        return sum(voxels for second, _, voxels in self._seconds if second > end - WINDOW_SECONDS) / span

    def seconds_left(self, levels: Sequence[Level], slots: int | None, now: float, since: float = 0.0) -> float | None:
        """Seconds until all chunks are finished, if a driver works; ``None`` if that is not known yet.

        levels: in the order in which they run. slots: how many chunks run at a time; ``None`` if nobody knows.
        since: when the driver began, or could begin this stage; what ended before tells nothing about its workers.
        """
        waiting = [level for level in levels if level.missing]
        if not waiting:
            return 0.0
        now, since = max(now, self.last), max(since, self.began)
        level, above = waiting[0], waiting[1:]
        interval = self._interval(level, since)
        at_once = self._at_once(level, slots, interval)
        rest = None if at_once is None else in_waves(above, at_once)
        if level.seconds is None or at_once is None or rest is None:
            return None
        if interval is not None and level.missing >= WAVES * at_once:
            return level.missing * interval + rest
        return self._until_last(level, level.seconds, at_once, now, since) + rest

    def _at_once(self, level: Level, slots: int | None, interval: float | None) -> int | None:
        """How many chunks run at a time: fewer than ``slots`` if the workers are not all there."""
        if interval is None or not level.seconds:
            return slots
        measured = max(1, round(level.seconds / interval))
        return measured if slots is None else min(slots, measured)

    def _until_last(self, level: Level, seconds: float, slots: int, now: float, since: float) -> float:
        """Seconds until the last chunk of a level ends: running ones began when the latest ones ended."""
        ends = self._ends(min(level.done, slots))
        began = max(since, ends[0] - seconds if ends else self.last) or now
        seconds = seconds if level.done else max(seconds, now - began)  # no chunk has ended within the estimate
        begins = [began] * (slots - len(ends)) + [max(since, end) for end in ends]
        next_ends = sorted(max(now, begin + seconds) for begin in begins[: level.missing])
        waves, place = divmod(level.missing - 1, slots)
        return next_ends[place] + waves * seconds - now

    def _ends(self, count: int) -> list[float]:
        """When the latest chunks ended, ascending, at most ``count``."""
        found: list[float] = []
        for second, chunks, _ in reversed(self._seconds):
            if len(found) >= count:
                break
            found += [float(second)] * min(chunks, count - len(found))
        return found[::-1]

    def _interval(self, level: Level, since: float) -> float | None:
        """Seconds between two ends in the minute before the latest one, or of the last ``FEW`` if these took longer.

        ``None`` if they span less than the time of ``WAVES`` chunks: then chance decides how many ended.
        """
        count, first, with_first = 0, self.last, 0
        for second, chunks, _ in reversed(self._seconds):
            if second < since or count >= level.done or (count >= FEW and second <= self.last - WINDOW_SECONDS):
                break
            count, first, with_first = count + chunks, second, chunks
        after_first, span = count - with_first, self.last - first
        if not after_first or span < max(1.0, WAVES * (level.seconds or 0.0)):
            return None
        return span / after_first
