"""Speed and time left of a stage, from the times at which chunks were finished, summed by the second."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

SECONDS_KEPT = 1000
"""Seconds in which a chunk was finished that are kept: hours of a stage of slow chunks, minutes of fast ones.
"""
WINDOW_SECONDS = 60.0
FEW = 20
"""If the last minute has fewer chunks than this, older ones also count for the time left."""
QUIET = 10
"""A pause this many times as long as usual between two chunks means that no driver works."""


@dataclass
class Pace:
    """Chunks and voxels finished, by whole seconds (Unix time) of the driver's clock."""

    last: float = 0.0
    """When the latest chunk was finished; 0 if none was."""
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

    def seconds_left(self, chunks: int, now: float) -> float | None:
        """Seconds until ``chunks`` more are finished; ``None`` if too few are known, or if no driver works."""
        usual = self._seconds_per_chunk()
        if usual is None or now - self.last > max(WINDOW_SECONDS, QUIET * usual):
            return None
        return chunks * usual

    def _seconds_per_chunk(self) -> float | None:
        """Seconds for each chunk in the minute before the latest one, or of the last ``FEW`` if these took longer."""
        count, first, with_first = 0, self.last, 0
        for second, chunks, _ in reversed(self._seconds):
            if count >= FEW and second <= self.last - WINDOW_SECONDS:
                break
            count, first, with_first = count + chunks, second, chunks
        after_first = count - with_first
        return (self.last - first) / after_first if after_first else None
