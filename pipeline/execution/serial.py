"""The reference executor: a plain loop in this process."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable

from pipeline.execution.base import Item, Outcome, Result, attempt
from pipeline.needs import Needs


class SerialExecutor:
    """One item after another. A time limit cannot be enforced here and is ignored."""

    def map_unordered(
        self,
        function: Callable[[Item], Result],
        items: Iterable[Item],
        *,
        needs: Needs,
        max_in_flight: int | None = None,
    ) -> Generator[Outcome[Item, Result], None, None]:
        """See ``Executor``."""
        for item in items:
            yield attempt(function, item)

    def avoid(self, node: str) -> bool:
        """False, since there is no other node."""
        return False

    def close(self) -> None:
        """Do nothing: there are no workers to release."""
