"""``petaseg status``: while another process runs, after it died, and from a machine without the run's inputs."""

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.config.run_file import Execution
from pipeline.errors import CorruptError
from pipeline.execution.runner import RunOptions, run_stage
from pipeline.execution.serial import SerialExecutor
from pipeline.ledger.ledger import Ledger
from pipeline.runs.outline import RunOutline, StageOutline, read_outline
from pipeline.runs.run import Run
from pipeline.runs.status import RunWatch, open_outline, read_status
from pipeline.storage import ObjectStore
from tests.contracts.toy import ToyStage
from tests.runs import petaseg, run
from tests.stages.test_every_stage import small_run

WAIT = 60.0
SMALL = ("--set", "chunk_shape=[5, 6, 7]", "--set", "storage_chunk_shape=[5, 6, 7]")
"""These shapes give 64 chunks a stage, so the run lasts long enough to be watched."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is complete, with its inputs."""
    made = tmp_path_factory.mktemp("watched")
    run(small_run(made))
    return made


@contextmanager
def started(*arguments: object, **options: object) -> Iterator[subprocess.Popen[str]]:
    """The real command in a process of its own, killed in the end."""
    command = [sys.executable, "-m", "workflows.cli", *map(str, arguments)]
    process = subprocess.Popen(command, text=True, start_new_session=True, **options)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


@pytest.mark.slow
def test_a_run_of_another_process_is_followed_to_its_end(tmp_path: Path) -> None:
    """``status --watch``, begun before the driver, follows the run of another process to its end."""
    file = small_run(tmp_path)
    watching = ("status", file, "--watch", "--interval", "0.1", "--json")
    with started(*watching, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as watch:
        assert "no driver has begun" in watch.stderr.readline()
        with started("run", file, "--quiet", *SMALL) as driver:
            readings = [json.loads(line) for line in watch.stdout]
            assert driver.wait(WAIT) == 0
        assert watch.wait(WAIT) == 0
    assert readings[-1]["complete"]
    assert not readings[0]["complete"]
    done = [sum(stage["done"] for stage in reading["stages"]) for reading in readings]
    assert done == sorted(done)
    assert len(set(done)) > 2
    assert done[-1] > 64 * 8
    assert readings[0]["driver"]["holder"]["pid"] == driver.pid
    assert [s["name"] for s in readings[-1]["stages"]] == [s.name for s in Run.open(file).stages]


@pytest.mark.slow
def test_a_dead_run_is_shown_and_ctrl_c_ends_the_watch(tmp_path: Path) -> None:
    """The watch shows a run whose driver is dead; Ctrl-C ends it and leaves its table on the terminal."""
    file, store = small_run(tmp_path), ObjectStore(tmp_path / "run")
    with started("run", file, "--quiet", *SMALL, stderr=subprocess.DEVNULL) as driver:
        wait_until(lambda: read_outline(store) is not None and read_status(read_outline(store))[0].done)
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()
    with started("status", tmp_path / "run", "--watch", "--interval", "0.1", stdout=subprocess.PIPE) as watch:
        first = watch.stdout.readline()
        watch.send_signal(signal.SIGINT)
        rest = watch.stdout.read()
        assert watch.wait(WAIT) == 1
    assert "predict_heads" in first
    assert "/ 64 done" in first
    assert "extract_supervoxels" in rest
    assert f"process {driver.pid}" in rest


def wait_until(happened, seconds: float = WAIT) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_only_the_run_directory_is_read(folder: Path, tmp_path: Path) -> None:
    """``petaseg status`` reads only the run directory: a copy is shown without image, weights or GPU."""
    shutil.copytree(folder / "run", tmp_path / "copied")
    moved = tmp_path / "copied"
    data = (moved / "run.yaml").read_text()
    (moved / "run.yaml").write_text(data.replace(str(folder), "/nowhere"))
    for options in ((), ("--watch",)):
        shown = petaseg("status", moved, *options)
        assert shown.returncode == 0, shown.stderr
        assert "4 / 4" in shown.stdout
        assert "another configuration" not in shown.stdout
    assert petaseg("run", moved, "--dry-run").returncode == 1


def test_a_run_file_is_judged_as_it_would_be_run_now(folder: Path) -> None:
    """Under a changed run file, status shows as done only the stages whose results stay valid."""
    assert RunWatch(open_outline(str(folder / "run.yaml"))).read().complete
    changed = RunWatch(open_outline(str(folder / "run"), ["segmentation.threshold=0.7"])).read()
    complete = {stage.name: stage.complete for stage in changed.stages}
    assert complete["agglomerate"]
    assert not complete["relabel"]


def test_outside_a_terminal_a_watch_prints_lines(folder: Path) -> None:
    shown = petaseg("status", folder / "run", "--watch")
    told = [line.split()[1:5] for line in shown.stdout.splitlines() if " done, " in line]
    assert ["relabel", "4", "/", "4"] in told
    assert len(told) == len(Run.open(folder / "run").stages)


def test_in_a_terminal_a_watch_draws_a_table(folder: Path) -> None:
    terminal, inside = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "140"}
    with started("status", folder / "run", "--watch", stdout=inside, stderr=inside, env=environment) as watch:
        os.close(inside)
        drawn = b"".join(iter(lambda: read_terminal(terminal), b"")).decode()
        assert watch.wait(WAIT) == 0
    os.close(terminal)
    assert "│ relabel" in drawn
    assert "chunk hours" in drawn


def read_terminal(terminal: int) -> bytes:
    """The text drawn since the last call; empty when the other end is closed."""
    try:
        return os.read(terminal, 1 << 16)
    except OSError:
        return b""


def test_what_was_set_aside_and_noted_is_shown(folder: Path, tmp_path: Path) -> None:
    """Status shows chunks that were set aside, notes on avoided nodes, and the command that goes on."""
    shutil.copytree(folder / "run", tmp_path / "run")
    outline = read_outline(ObjectStore(tmp_path / "run"))
    assert outline is not None
    stage = next(stage for stage in outline.stages if stage.name == "relabel")
    ledger = Ledger(outline.store, stage.name, stage.fingerprint, stage.grids)
    chunk = stage.grids[0].chunk((1, 0, 1))
    ledger.forget(chunk)
    ledger.record_failure(chunk, "ValueError: [odd] brackets", "trace", 3, final=True)
    ledger.note("node node-3 failed 5 chunks in a row and is avoided; its last error: OSError: [Errno 5]")
    ledger.close()
    shown = petaseg("status", tmp_path / "run")
    assert shown.returncode == 1
    assert "failed relabel 1_0_1: ValueError: [odd] brackets" in shown.stdout
    assert "note relabel: node node-3 failed 5 chunks" in shown.stdout
    assert "OSError: [Errno 5]" in shown.stdout
    assert "retry with: petaseg run" in shown.stdout
    assert "driver        none; go on with: petaseg run" in shown.stdout


def outline_of(store: ObjectStore, *stages: ToyStage) -> RunOutline:
    """The outline of a run of toy stages, as a driver writes it."""
    store.put("run.yaml", b"run_directory: run\ninput: {image: image.zarr}\n")
    outlines = tuple(StageOutline.of(stage) for stage in stages)
    example = read_outline_example()
    made = replace(example, url=store.url, stages=outlines)
    made.write()
    return made


def read_outline_example() -> RunOutline:
    from pipeline.config.reading import parse_config

    config = parse_config({"run_directory": "run", "input": {"image": "image.zarr"}})
    return RunOutline("", "petaseg run toy.yaml", config, ())


def work(store: ObjectStore, stage: ToyStage) -> None:
    ledger = Ledger(store, stage.name, stage.fingerprint, stage.grids())
    run_stage(stage, ledger, SerialExecutor(), RunOptions.of(Execution(), "petaseg run run.yaml"))
    ledger.compact()


def test_an_outline_comes_back_as_it_was_written(folder: Path, tmp_path: Path) -> None:
    opened = Run.open(folder / "run")
    found = read_outline(opened.store)
    assert found is not None
    assert [replace(stage, grids=()) for stage in found.stages] == [
        replace(stage, grids=()) for stage in opened.outline.stages
    ]
    for read, made in zip(found.stages, opened.outline.stages, strict=True):
        assert [(c.name, c.core) for grid in read.grids for c in grid] == [
            (c.name, c.core) for grid in made.grids for c in grid
        ]
    assert [replace(s, voxels_per_second=0.0) for s in read_status(found)] == [
        replace(s, voxels_per_second=0.0) for s in read_status(opened)
    ]
    assert read_outline(ObjectStore(tmp_path)) is None


def test_a_damaged_outline_says_who_mends_it(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path)
    outline_of(store, ToyStage(store))
    store.put("stages.json", b"{")
    with pytest.raises(CorruptError, match=r"stages\.json.*petaseg run. writes both anew"):
        read_outline(store)


@pytest.mark.slow
def test_a_watch_outlives_what_cannot_be_read_for_a_while(tmp_path: Path) -> None:
    """A watch that cannot read the run directory for a while says so and goes on."""
    store = ObjectStore(tmp_path)
    stage = ToyStage(store)
    outline = outline_of(store, stage)
    watching = ("status", tmp_path, "--watch", "--interval", "0.1", "--json")
    with started(*watching, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as watch:
        assert json.loads(watch.stdout.readline())["stages"][0]["done"] == 0
        store.put("stages.json", b"{")
        assert "trying again" in watch.stderr.readline()
        outline.write()
        work(store, stage)
        readings = [json.loads(line) for line in watch.stdout]
        assert watch.wait(WAIT) == 0
    assert readings[-1]["stages"][0]["done"] == 48


def test_a_watch_goes_on_when_a_log_becomes_arrays(tmp_path: Path) -> None:
    """A watch keeps its counts and its speed when a ledger's log is compacted."""
    store = ObjectStore(tmp_path)
    stage = ToyStage(store, level_count=3)
    outline = outline_of(store, stage)
    ledger = Ledger(store, stage.name, stage.fingerprint, stage.grids())
    for chunk in stage.chunks()[:20]:
        ledger.record(stage.run_chunk(chunk))
    watch = RunWatch(outline)
    before = watch.read().stages[0]
    ledger.compact()
    after = watch.read().stages[0]
    assert (before.done, after.done) == (20, 20)
    assert after.voxels_per_second > 0
    assert after.last == before.last
    ledger.record(stage.run_chunk(stage.chunks()[20]))
    assert watch.read().stages[0].done == 21


def test_a_watch_follows_a_new_configuration(tmp_path: Path) -> None:
    """A watch follows the run under a new configuration, and shows the old marks as outdated."""
    store = ObjectStore(tmp_path)
    work(store, ToyStage(store))
    watch = RunWatch(outline_of(store, ToyStage(store)))
    assert watch.follow().complete
    other = ToyStage(store, version=2)
    outline_of(store, other)
    status = watch.follow()
    assert (status.stages[0].done, status.stages[0].outdated) == (0, True)
    work(store, other)
    assert watch.follow().complete
