"""What watching costs: an event of the run for the driver, and a look at a long ledger for whoever looks.

    python benchmarks/watching.py [--chunks 1000000] [--events 100000] [--folder ...]

Driver: each finished chunk is written to the event log (a line of JSON in a folder) and counted in the metrics. Watch:
a ledger of so many chunks is written as its log would be if it never became arrays, the worst case; then it is read
once, again with nothing new, and again with 500 new records. Exit status 1 if an event costs more than 50 us in the
event log or in the metrics, or a later look more than 0.5 s, of processor time.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from pipeline.execution.runner import ChunkDone, Event, StageStarted
from pipeline.geometry import BoundingBox
from pipeline.grid import Chunk, ChunkGrid
from pipeline.ledger.ledger import Ledger
from pipeline.ledger.records import encode
from pipeline.stages.base import ChunkReport
from pipeline.storage import ObjectStore
from workflows.events.event_log import event_log
from workflows.events.metrics import RunMetrics

EVENT_LIMIT_US = 50.0
LOOK_LIMIT_S = 0.5
STAGE = "predict_heads"
LOG = "F 0"
"""Fingerprint of the ledger, and the number of its log."""
NEW = 500


def main() -> int:
    """Measure and judge."""
    arguments = parse()
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="petaseg-watching-") as folder:
        events = {
            "event log": measure_log(ObjectStore(folder), arguments.events),
            "metrics": measure_metrics(arguments.events),
        }
        first, nothing, some = measure_looks(ObjectStore(f"{folder}/run"), arguments.chunks)
    for name, microseconds in events.items():
        print(f"{name:<12}{microseconds:7.1f} us an event     (limit {EVENT_LIMIT_US:g})")
    print(f"ledger of {arguments.chunks:,} chunks: first look {first:.1f} s, nothing new {nothing:.3f} s, ", end="")
    print(f"{NEW} new {some:.3f} s     (limit {LOOK_LIMIT_S:g})")
    return int(max(events.values()) > EVENT_LIMIT_US or max(nothing, some) > LOOK_LIMIT_S)


def measure_log(store: ObjectStore, count: int) -> float:
    """Microseconds an event in the event log."""
    with event_log(store) as log:
        return measure(log, count)


def measure_metrics(count: int) -> float:
    """Microseconds an event in the metrics."""
    metrics = RunMetrics("benchmark")
    metrics(StageStarted(STAGE, count, 0))
    return measure(metrics, count)


def measure(listener: Callable[[Event], None], count: int) -> float:
    """Microseconds an event."""
    chunk = grid_of(1000).chunk((1, 2, 3))
    event = ChunkDone(STAGE, report_of(chunk), chunk, worker="node7:4711")
    began = time.process_time()
    for _ in range(count):
        listener(event)
    return (time.process_time() - began) / count * 1e6


def measure_looks(store: ObjectStore, chunks: int) -> tuple[float, float, float]:
    """Seconds of a first look at a ledger, of one with nothing new, and of one with some records more."""
    grid = grid_of(chunks)
    indices = list(grid.indices())[:chunks]
    key = f"ledger/{STAGE}/log.jsonl"
    store.put(key, encode({"begin": LOG, "t": time.time()}) * 2)
    store.append(key, records(grid.chunk(index) for index in indices[:-NEW]))
    began = time.process_time()
    ledger = Ledger(store, STAGE, LOG.split()[0], [grid], read_only=True)
    looks = [time.process_time() - began]
    for new in (b"", records(grid.chunk(index) for index in indices[-NEW:])):
        store.append(key, new)
        began = time.process_time()
        assert ledger.refresh()
        ledger.summary()
        looks.append(time.process_time() - began)
    assert ledger.summary().done == chunks
    return looks[0], looks[1], looks[2]


def records(chunks: Iterable[Chunk]) -> bytes:
    """The lines of finished chunks."""
    reports = map(report_of, chunks)
    return b"".join(
        encode({"done": [0, *r.index], "sum": r.checksum, "s": r.seconds, "v": r.voxels, "b": 1, "t": time.time()}, LOG)
        for r in reports
    )


def report_of(chunk: Chunk) -> ChunkReport:
    """What a worker reports."""
    timings = {"read": 0.1, "wait": 0.2, "compute": 0.8, "write": 0.1, "idle": 0.0}
    return ChunkReport(
        0, chunk.index, "5a" * 16, 1.2345, chunk.core.voxels, 1000, {"patches": 8, "skipped": 0}, timings
    )


def grid_of(chunks: int) -> ChunkGrid:
    """A cube of at least so many chunks."""
    side = next(n for n in range(1, 10_000) if n**3 >= chunks)
    bounds = BoundingBox.from_shape((64 * side, 64 * side, 64 * side))
    return ChunkGrid(bounds, bounds, (64, 64, 64))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=1_000_000)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, default=None, help="on which file system")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
