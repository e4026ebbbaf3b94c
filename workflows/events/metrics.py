"""The driver's metrics for Prometheus, made from the events of a run; docs/watching.md explains each.

Counters begin at zero with every driver. The two gauges ``petaseg_chunks`` and ``petaseg_chunks_complete`` also count
the chunks of earlier drivers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector, start_http_server

from pipeline import __version__
from pipeline.errors import ConfigError
from pipeline.execution.runner import ChunkDone, ChunkFailed, Event, NodeAvoided, StageFinished, StageStarted
from pipeline.stages.base import ChunkReport

SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000)
"""Upper bounds of the histogram of chunks."""
PHASES = ("read", "wait", "compute", "write")


class RunMetrics:
    """Listens to the events of a run; ``registry`` holds the metrics."""

    def __init__(self, run_url: str) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        Info("petaseg_run", "The run that this driver works on", registry=self.registry).info(
            {"url": run_url, "version": __version__}
        )
        gauge = partial(Gauge, registry=self.registry)
        self.chunks = gauge("petaseg_chunks", "Chunks of the stage", ["stage"])
        self.complete = gauge("petaseg_chunks_complete", "Chunks done, by this driver or an earlier one", ["stage"])
        self.running = gauge("petaseg_stage_running", "1 for the stage that runs", ["stage"])
        self.last = gauge("petaseg_last_event_timestamp_seconds", "Unix time of the last event")
        counter = partial(Counter, registry=self.registry)
        self.done = counter("petaseg_chunks_done", "Chunks done by this driver", ["stage"])
        self.failed = counter("petaseg_chunks_failed", "Attempts that failed; final: set aside", ["stage", "final"])
        self.voxels = counter("petaseg_voxels", "Voxels of these chunks", ["stage"])
        self.written = counter("petaseg_bytes_written", "Bytes of their products, not compressed", ["stage"])
        self.phases = counter("petaseg_chunk_phase_seconds", "What chunks spend their time on", ["stage", "phase"])
        self.waits = counter("petaseg_input_wait_seconds", "No chunk to compute in a worker that had one", ["stage"])
        self.counts = counter("petaseg_stage_count", "What a stage counts by itself", ["stage", "what"])
        self.avoided = counter("petaseg_nodes_avoided", "Nodes that failed all that they were given", ["stage"])
        self.seconds = Histogram(
            "petaseg_chunk_seconds", "Seconds of a chunk", ["stage"], buckets=SECONDS, registry=self.registry
        )
        self._stages: dict[str, _StageMetrics] = {}

    def __call__(self, event: Event) -> None:
        """Count one event."""
        self.last.set_to_current_time()
        if isinstance(event, ChunkDone):
            self._stages[event.stage].count(event.report)
        elif isinstance(event, ChunkFailed):
            self.failed.labels(event.stage, _flag(event.final)).inc()
        elif isinstance(event, NodeAvoided):
            self.avoided.labels(event.stage).inc()
        elif isinstance(event, StageStarted):
            self._start(event)
        elif isinstance(event, StageFinished):
            self.running.labels(event.stage).set(0)

    def _start(self, event: StageStarted) -> None:
        self._stages[event.stage] = _StageMetrics(self, event.stage)
        self.chunks.labels(event.stage).set(event.total)
        self.complete.labels(event.stage).set(event.done)
        self.running.clear()  # the previous stage may have failed
        self.running.labels(event.stage).set(1)
        self.avoided.labels(event.stage)
        for final in (False, True):  # a rate can be computed only from a zero before the first failure
            self.failed.labels(event.stage, _flag(final))


class _StageMetrics:
    """The metrics of one stage, looked up once, since they may count a million chunks."""

    def __init__(self, metrics: RunMetrics, stage: str) -> None:
        self.complete = metrics.complete.labels(stage)
        self.done = metrics.done.labels(stage)
        self.voxels = metrics.voxels.labels(stage)
        self.written = metrics.written.labels(stage)
        self.seconds = metrics.seconds.labels(stage)
        self.waits = metrics.waits.labels(stage)
        self.phases = {phase: metrics.phases.labels(stage, phase) for phase in PHASES}
        self.count_of = partial(metrics.counts.labels, stage)

    def count(self, report: ChunkReport) -> None:
        """Count a completed chunk."""
        self.complete.inc()
        self.done.inc()
        self.voxels.inc(report.voxels)
        self.written.inc(report.bytes_written)
        self.seconds.observe(report.seconds)
        self.waits.inc(report.timings.get("idle", 0.0))
        for phase, counter in self.phases.items():
            counter.inc(report.timings.get(phase, 0.0))
        for what, value in report.counters.items():
            self.count_of(what).inc(value)


def _flag(value: bool) -> str:
    return str(value).lower()


@contextmanager
def serve_metrics(metrics: RunMetrics, address: str) -> Iterator[str]:
    """Serve metrics at ``host:port`` (port 0: any free one) while the context is open; yields the URL.

    Raises ``ConfigError`` if nothing can listen there.
    """
    host, _, port = address.rpartition(":")
    try:
        server, thread = start_http_server(int(port), host, metrics.registry)
    except OSError as error:
        raise ConfigError(
            f"execution.metrics is {address}, where this driver cannot listen ({error.strerror or error}): "
            "choose another port, or leave it out"
        ) from error
    try:
        yield f"http://{host}:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
