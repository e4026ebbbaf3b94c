"""``petaseg logs`` and ``petaseg cancel`` on a run that was started in another terminal of this machine."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.runs.lease import KEY, Holder, LeaseRecord, read_lease
from pipeline.runs.outline import read_outline
from pipeline.runs.status import read_status
from pipeline.storage import ObjectStore
from tests.runs import petaseg, results, run
from tests.stages.test_every_stage import small_run
from tests.workflows.terminal.test_watch import started, wait_until

SMALL = ("--set", "chunk_shape=[2,6,7]", "--set", "storage_chunk_shape=[2,6,7]")
"""160 chunks a stage: a driver is still at work when the next commands have started."""


@pytest.mark.slow
def test_a_run_of_another_terminal_is_read_ended_and_resumed(tmp_path: Path) -> None:
    """A run of another terminal is read and cancelled by its directory, and resumed to the same bytes."""
    file, store = small_run(tmp_path), ObjectStore(tmp_path / "run")
    with started("run", file, "--quiet", *SMALL, stderr=subprocess.DEVNULL) as driver:
        wait_until(lambda: read_outline(store) is not None and read_status(read_outline(store))[0].done)
        logs = petaseg("logs", tmp_path / "run")
        assert "predict_heads: 0 of 160 chunks are done already" in logs.stdout
        ended = petaseg("cancel", tmp_path / "run")
        assert ended.returncode == 0, ended.stderr
        assert driver.wait(1) == 143
    assert f"process {driver.pid}" in ended.stdout
    assert f"petaseg run {tmp_path / 'run'}" in ended.stdout.replace("\n", "")
    assert read_lease(store).released
    again = petaseg("cancel", tmp_path / "run")
    assert again.returncode == 1
    assert "no driver works on" in again.stderr
    assert sum(stage.done for stage in read_status(read_outline(store))) > 0
    killed = results(run(file, *SMALL[1::2]))
    (tmp_path / "calm").mkdir()
    assert killed == results(run(small_run(tmp_path / "calm")))


@pytest.mark.parametrize(
    ("holder", "said"),
    [
        (Holder("far.away", 7, 0.0), "`kill 7`, on far.away"),
        (
            Holder("far.away", 7, 0.0, job="slurm 12"),
            "process 7 on far.away (slurm 12) drives this run and was submitted by hand",
        ),
        (replace(Holder.here(), pid=2**22 + 1), "no driver works on"),
    ],
)
def test_what_cannot_be_ended_from_here_is_said(tmp_path: Path, holder: Holder, said: str) -> None:
    """``petaseg cancel`` of a driver that it cannot end from here fails and says where and how to end it."""
    file = small_run(tmp_path)
    ObjectStore(tmp_path / "run").put(KEY, LeaseRecord(holder, "a beat", 0.0).encode())
    ended = petaseg("cancel", file)
    assert ended.returncode == 1
    assert said in ended.stderr.replace("\n", " ")


def test_nobody_is_ended_for_a_damaged_lease(tmp_path: Path) -> None:
    """``petaseg cancel`` and ``petaseg status`` say of a damaged lease that its driver is unknown."""
    file, store = small_run(tmp_path), ObjectStore(tmp_path / "run")
    store.put(KEY, b"{")
    ended = petaseg("cancel", file)
    assert ended.returncode == 1
    assert "is damaged, so nobody can tell who drives this run" in ended.stderr.replace("\n", " ")
    assert "an unknown driver (lease.json is damaged)" in petaseg("status", file).stdout


def test_logs_that_are_not_there_are_said(tmp_path: Path) -> None:
    """``petaseg logs`` says that a run has no log yet, and that a local run has no logs of workers."""
    file = small_run(tmp_path)
    assert "has no log yet" in petaseg("logs", file).stderr
    assert "leave --workers out" in petaseg("logs", file, "--workers").stderr
