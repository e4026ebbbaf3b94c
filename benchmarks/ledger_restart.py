"""What a driver finds that was killed in the middle of a million chunks: seconds to read its ledger again, and memory.

    python benchmarks/ledger_restart.py [--chunks 1000000] [--layouts lines segments] [--folder ... | --store s3://...]

A driver runs an empty stage (``executor_overhead.py``) with the serial executor and is killed with SIGKILL when half of
the chunks are recorded. Then a new process opens the ledger, and another one goes on to the end; both print their
peak memory. "lines" is the layout of file systems, "segments" that of object stores, here in a folder that pretends
that nothing can be appended; ``--store`` takes a real bucket.
Exit status 1 if the ledger takes more than ``LIMIT_SECONDS`` to be read, or if a driver that was killed needs more
than ``LIMIT_MB`` more memory than one of a hundredth of the chunks.
"""

from __future__ import annotations

import argparse
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from executor_overhead import EmptyStage

from pipeline.config.run_file import Execution
from pipeline.execution.runner import RunOptions, run_stage
from pipeline.execution.serial import SerialExecutor
from pipeline.ledger.ledger import Ledger
from pipeline.storage import ObjectStore

LIMIT_SECONDS = 10.0
LIMIT_MB = 100.0
POLL_SECONDS = 0.05


class WholeObjects(ObjectStore):
    """A folder in which objects can only be put whole, as in a bucket."""

    @property
    def supports_append(self) -> bool:
        """Never."""
        return False


def main() -> int:
    """Print a line a step; 1 if a limit is exceeded."""
    arguments = parse()
    if arguments.step:
        store = make_store(arguments.layouts[0], arguments.store)
        print(*STEPS[arguments.step](EmptyStage(arguments.chunks), store), peak_mb())
        return 0
    if arguments.store:
        return int(not restart("segments", arguments.chunks, arguments.store))
    within = []
    for layout in arguments.layouts:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            within.append(restart(layout, arguments.chunks, folder))
    return int(not all(within))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=1_000_000)
    parser.add_argument("--layouts", nargs="+", default=["lines", "segments"], choices=["lines", "segments"])
    parser.add_argument("--folder", help="where ledgers are written; default: the system's temporary folder")
    parser.add_argument("--store", help="an empty folder or bucket for one measurement")
    parser.add_argument("--step", choices=STEPS, help="one step, in this process")
    return parser.parse_args()


def restart(layout: str, chunks: int, place: str) -> bool:
    """Kill a driver half-way, look at its ledger, and go on; True if within the limits."""
    *_, least = in_fresh_process("finish", layout, chunks // 100, f"{place}/small")
    killed_at, seconds = kill_half_way(layout, chunks, place)
    each = 1000 * seconds / killed_at
    print(f"{layout:9s} killed after {killed_at} of {chunks} chunks, {each:.3f} ms each", flush=True)
    done, read, peak = in_fresh_process("look", layout, chunks, place)
    print(f"{layout:9s} read again in {read:.2f} s: {done:.0f} chunks are done, {peak:.0f} MB", flush=True)
    total, took, most = in_fresh_process("finish", layout, chunks, place)
    each = 1000 * took / max(1.0, chunks - done)
    print(f"{layout:9s} the other {chunks - done:.0f} took {each:.3f} ms each, {most:.0f} MB, against {least:.0f} MB")
    assert total == chunks
    return read <= LIMIT_SECONDS and most - least <= LIMIT_MB


def kill_half_way(layout: str, chunks: int, place: str) -> tuple[int, float]:
    """Start a driver and kill it when half of the chunks are done: how many it had told of, and seconds."""
    process = subprocess.Popen(command("run", layout, chunks, place), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    began, count = time.perf_counter(), 0
    for line in process.stdout:
        count = int(line)
        if count >= chunks // 2:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    return count, time.perf_counter() - began


def in_fresh_process(step: str, layout: str, chunks: int, place: str) -> tuple[float, float, float]:
    """The three numbers that a step prints."""
    done = subprocess.run(command(step, layout, chunks, place), stdout=subprocess.PIPE, text=True, check=True)
    first, second, third = map(float, done.stdout.split()[-3:])
    return first, second, third


def command(step: str, layout: str, chunks: int, place: str) -> list[str]:
    """The command line of one step in a process of its own."""
    return [sys.executable, __file__, "--step", step, "--layouts", layout, "--chunks", str(chunks), "--store", place]


def make_store(layout: str, place: str) -> ObjectStore:
    """A folder whose objects can be appended to, or one where they cannot."""
    return ObjectStore(place) if layout == "lines" or "://" in place else WholeObjects(Path(place))


def open_ledger(stage: EmptyStage, store: ObjectStore, *, read_only: bool = False) -> Ledger:
    """The ledger of the stage as ``petaseg run``, or ``petaseg status``, opens it."""
    return Ledger(store, stage.name, stage.fingerprint, stage.grids(), read_only=read_only)


def run(stage: EmptyStage, store: ObjectStore) -> tuple[int, float]:
    """All chunks, telling of every thousandth; this process is killed before it is done."""
    ledger, told = open_ledger(stage, store), [0]

    def tell(_: object) -> None:
        told[0] += 1
        if told[0] % 1000 == 0:
            print(told[0], flush=True)

    run_stage(stage, ledger, SerialExecutor(), RunOptions.of(Execution(), "petaseg run run.yaml"), on_event=tell)
    return told[0], 0.0


def look(stage: EmptyStage, store: ObjectStore) -> tuple[int, float]:
    """Open the ledger: chunks that are done, and seconds."""
    began = time.perf_counter()
    done = open_ledger(stage, store, read_only=True).summary().done
    return done, time.perf_counter() - began


def finish(stage: EmptyStage, store: ObjectStore) -> tuple[int, float]:
    """Compute what is missing: chunks that are done then, and seconds."""
    began = time.perf_counter()
    ledger = open_ledger(stage, store)
    summary = run_stage(stage, ledger, SerialExecutor(), RunOptions.of(Execution(), "petaseg run run.yaml"))
    ledger.close()
    return summary.done, time.perf_counter() - began


def peak_mb() -> float:
    """Of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


STEPS = {"run": run, "look": look, "finish": finish}

if __name__ == "__main__":
    sys.exit(main())
