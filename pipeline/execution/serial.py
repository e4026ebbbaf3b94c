"""The reference executor: a plain loop in this process."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable

from pipeline.execution.base import Item, Outcome, Result, attempt
from pipeline.execution.stopping import Gate
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
        gate: Gate | None = None,
    ) -> Generator[Outcome[Item, Result], None, None]:
        """See ``Executor``."""
        gate = gate or Gate()
        for item in items:
            with gate.passing() as may_begin:
                outcome = attempt(function, item) if may_begin else None
            if outcome is None:
                return
            yield outcome

    def avoid(self, node: str) -> bool:
        """False, since there is no other node."""
        return False

    def close(self) -> None:
        """Do nothing: there are no workers to release."""
