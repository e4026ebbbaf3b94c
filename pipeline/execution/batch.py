"""What a Dask worker does with a batch of items."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from distributed import get_worker

from pipeline.execution.base import Item, Outcome, Result, attempt, worker_name
from pipeline.execution.stopping import Gate
from pipeline.execution.within_workers import tell_of_chunks

BATCH_SECONDS = 0.25
KEPT_GATES = 64
"""Gates that a worker keeps, one for each of the last flows of items that it was given."""
_gates: dict[str, Gate] = {}
_lock = threading.Lock()


def gate_of(flow: str) -> Gate:
    """The gate of a flow of items in this process."""
    with _lock:
        gate = _gates.setdefault(flow, Gate())
        while len(_gates) > KEPT_GATES:
            del _gates[next(iter(_gates))]
    return gate


def close_gate(flow: str) -> int:
    """Let no other item of a flow begin in this process; returns the number of those that run."""
    return gate_of(flow).close()


def run_batch(
    function: Callable[[Item], Result], batch: Sequence[Item], limit: float | None, flow: str = ""
) -> tuple[list[Outcome[Item, Result]], float, str]:
    """Run items of a batch in a worker for ``BATCH_SECONDS``, but at least one item unless the flow's gate is closed.

    Returns the outcomes so far, in order, the seconds they took, and the worker's address if the last item exceeded
    ``limit`` (seconds).
    """
    tell_of_chunks()
    began, gate = time.perf_counter(), gate_of(flow)
    outcomes: list[Outcome[Item, Result]] = []
    for item in batch:
        with gate.passing() as may_begin:
            if not may_begin:
                break
            outcome = attempt(function, item) if limit is None else attempt_within(function, item, limit)
        if outcome is None:
            text = f"no result after {limit:g} seconds (execution.timeout_seconds); its worker is restarted"
            outcomes.append(Outcome(item, error=text, worker=worker_name()))
            return outcomes, time.perf_counter() - began, get_worker().address
        outcomes.append(outcome)
        if time.perf_counter() - began > BATCH_SECONDS:
            break
    return outcomes, time.perf_counter() - began, ""


def attempt_within(function: Callable[[Item], Result], item: Item, limit: float) -> Outcome[Item, Result] | None:
    """The outcome of an item, or None if it takes longer; its thread then runs on until the worker is restarted."""
    box: list[Outcome[Item, Result]] = []
    thread = threading.Thread(target=lambda: box.append(attempt(function, item)), daemon=True)
    thread.start()
    thread.join(limit)
    return box[0] if box else None
