"""How fast something goes, from the times at which its parts were finished: sums by the second, so memory is flat."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

SECONDS_KEPT = 1000
"""Seconds in which something was finished; a stage of slow chunks so remembers hours, one of fast chunks minutes."""
WINDOW_SECONDS = 60.0
FEW = 20
"""Fewer chunks than this in the last minute are too few to tell the time left; then older ones count too."""
QUIET = 10
"""A pause this many times as long as usual between two chunks means that nobody works."""


@dataclass
class Pace:
    """Chunks and voxels finished, by whole seconds of the clock of those who finished them (Unix time)."""

    last: float = 0.0
    """When the latest was finished; 0 if none was."""
    _seconds: deque[list[int]] = field(default_factory=lambda: deque(maxlen=SECONDS_KEPT))
    """[second, chunks, voxels], ascending."""

    def go_on_from(self, earlier: Pace) -> None:
        """Remember what was finished before the first that is known here."""
        first = self._seconds[0][0] if self._seconds else earlier.last + 1
        older = [entry for entry in earlier._seconds if entry[0] < first]
        self._seconds = deque([*older, *self._seconds], maxlen=SECONDS_KEPT)
        self.last = max(self.last, earlier.last)

    def add(self, when: float, voxels: int) -> None:
        """A chunk of so many voxels was finished."""
        second = int(when)
        self.last = max(self.last, when)
        if self._seconds and second <= self._seconds[-1][0]:
            self._seconds[-1][1] += 1
            self._seconds[-1][2] += voxels
        else:
            self._seconds.append([second, 1, voxels])

    def voxels_per_second(self, now: float) -> float:
        """Over the minute before ``now``, or since the first chunk; a clock that is ahead of ours counts as now."""
        if not self._seconds:
            return 0.0
        end = max(now, self.last)
        span = min(WINDOW_SECONDS, max(1.0, end - self._seconds[0][0]))
        return sum(voxels for second, _, voxels in self._seconds if second > end - WINDOW_SECONDS) / span

    def seconds_left(self, chunks: int, now: float) -> float | None:
        """Until so many more chunks are finished; ``None`` if too little is known, or if nobody works any more."""
        usual = self._seconds_per_chunk()
        if usual is None or now - self.last > max(WINDOW_SECONDS, QUIET * usual):
            return None
        return chunks * usual

    def _seconds_per_chunk(self) -> float | None:
        """Of the last minute before the latest chunk, or of the last ``FEW`` chunks if these took longer."""
        count, first, with_first = 0, self.last, 0
        for second, chunks, _ in reversed(self._seconds):
            if count >= FEW and second <= self.last - WINDOW_SECONDS:
                break
            count, first, with_first = count + chunks, second, chunks
        after_first = count - with_first
        return (self.last - first) / after_first if after_first else None
