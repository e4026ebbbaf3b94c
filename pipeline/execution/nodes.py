"""Detection of nodes that fail every chunk while other nodes succeed."""

from __future__ import annotations

from collections import Counter

IN_A_ROW = 5
"""A node counts as bad after this many failures without a success between them."""


class NodeWatch:
    """Counts the failures of nodes; the runner avoids those that look bad."""

    def __init__(self) -> None:
        self._row: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self.avoided: set[str] = set()

    def begin_grid(self) -> None:
        """Forget the counted failures, which do not concern the chunks of another grid."""
        self._failed.clear()

    def done(self, node: str) -> None:
        """Record that a node completed a chunk."""
        self._row[node] = 0

    def failed(self, node: str) -> bool:
        """Record that a node failed a chunk; True if the node looks bad and is not avoided yet."""
        self._failed[node] += 1
        self._row[node] += 1
        return bool(node) and node not in self.avoided and self._row[node] >= IN_A_ROW

    def avoid(self, node: str) -> None:
        """Record that a node is avoided: its failures no longer count."""
        self.avoided.add(node)

    @property
    def failures(self) -> int:
        """The number of failed attempts on nodes that are not avoided."""
        return sum(count for node, count in self._failed.items() if node not in self.avoided)
