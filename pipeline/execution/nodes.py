"""Which nodes fail everything that they are given, while others do not."""

from __future__ import annotations

from collections import Counter

IN_A_ROW = 5
"""Failures of a node without a success between them that make it a bad one."""


class NodeWatch:
    """Counts what nodes fail; the runner asks it whether a node had better be avoided."""

    def __init__(self) -> None:
        self._row: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self.avoided: set[str] = set()

    def begin_grid(self) -> None:
        """Earlier failures say nothing about the chunks of another grid."""
        self._failed.clear()

    def done(self, node: str) -> None:
        """A node did a chunk."""
        self._row[node] = 0

    def failed(self, node: str) -> bool:
        """A node failed a chunk; True if it looks bad and is not avoided yet."""
        self._failed[node] += 1
        self._row[node] += 1
        return bool(node) and node not in self.avoided and self._row[node] >= IN_A_ROW

    def avoid(self, node: str) -> None:
        """From now on its failures say nothing about the chunks."""
        self.avoided.add(node)

    @property
    def failures(self) -> int:
        """How many attempts failed on nodes that are not avoided."""
        return sum(count for node, count in self._failed.items() if node not in self.avoided)
