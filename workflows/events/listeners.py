"""The listeners to the events of a run besides the terminal: its event log, and metrics if the run file sets them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from pipeline.execution.runner import Listener, fan_out
from pipeline.runs.run import Run
from workflows.events.event_log import event_log


@contextmanager
def listening(run: Run, announce: Callable[[str], None]) -> Iterator[Listener]:
    """The listeners of a run as one, while the context is open; addresses are announced.

    Raises ``ConfigError`` if the metrics cannot be served at the address in the run file.
    """
    with ExitStack() as stack:
        listeners: list[Listener] = [stack.enter_context(event_log(run.store))]
        address = run.config.execution.metrics
        if address is not None:
            from workflows.events.metrics import RunMetrics, serve_metrics

            metrics = RunMetrics(run.url)
            announce(f"metrics: {stack.enter_context(serve_metrics(metrics, address))}")
            listeners.append(metrics)
        yield fan_out(*listeners)
