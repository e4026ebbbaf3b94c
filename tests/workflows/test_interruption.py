"""Ctrl-C in a real terminal: running chunks are finished and recorded, or abandoned at the second one."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.runs.outline import read_outline
from pipeline.runs.status import read_status
from pipeline.storage import ObjectStore
from tests.runs import petaseg
from tests.stages.test_every_stage import small_run
from tests.workflows.terminals import Terminal, family, terminal, wait_until

EXECUTORS = {
    "serial": (1, ("execution.executor=serial",)),
    "threads": (2, ("execution.executor=threads", "execution.workers=2")),
    "dask": (2, ("execution.executor=dask", "execution.workers=2")),
}
"""Executor -> how many chunks run at a time, and its settings."""
SMALL = ("chunk_shape=[10,12,14]", "storage_chunk_shape=[10,12,14]")
"""Eight chunks a stage."""
FIRST = 3
"""Chunks that are done before Ctrl-C."""


@dataclass
class Gated:
    """A small run whose chunks wait for a test, in the folder ``place``."""

    place: Path
    executor: str

    def __post_init__(self) -> None:
        self.file = small_run(self.place)
        self.gate = self.place / "gate"
        for name in ("begun", "passes"):
            (self.gate / name).mkdir(parents=True)
        self.slots, settings = EXECUTORS[self.executor]
        self.settings = [word for setting in (*settings, *SMALL) for word in ("--set", setting)]

    def allow(self, chunks: int) -> None:
        """Let so many more chunks go on."""
        for number in range(chunks):
            (self.gate / "passes" / f"{time.monotonic_ns()}-{number}").touch()

    @property
    def begun(self) -> int:
        """How many chunks have begun."""
        return len(list((self.gate / "begun").iterdir()))

    @property
    def done(self) -> int:
        """How many chunks of the first stage are recorded."""
        outline = read_outline(ObjectStore(self.place / "run"))
        return 0 if outline is None else read_status(outline)[0].done

    def start(self):
        """``petaseg run`` in a terminal."""
        return terminal("run", self.file, *self.settings, gate=self.gate)

    def wait_until_chunks_run(self) -> None:
        """Let the first chunks end, and wait until every worker is at another one."""
        self.allow(FIRST)
        wait_until(lambda: self.done == FIRST and self.begun == FIRST + self.slots)

    def complete(self) -> None:
        """The same command completes the run, and it is proven."""
        (self.gate / "open").touch()
        again = petaseg("run", self.file, *self.settings, "--quiet")
        assert again.returncode == 0, again.stderr
        proof = petaseg("verify", self.place / "run")
        assert proof.returncode == 0, proof.stdout


@pytest.fixture(params=list(EXECUTORS))
def gated(request: pytest.FixtureRequest, tmp_path: Path) -> Gated:
    return Gated(tmp_path, request.param)


def assert_ended(screen: Terminal, status: int = 130) -> None:
    """The command has ended with this status and without a traceback, and none of its processes lives."""
    assert screen.end() == status, screen.text
    assert "Traceback" not in screen.text, screen.text
    assert "Error" not in screen.text, screen.text
    wait_until(lambda: not family(screen.process.pid), lambda: str(family(screen.process.pid)))


def finishing(chunks: int) -> str:
    """The answer to the first Ctrl-C."""
    return "finishing 1 chunk; press Ctrl-C again to abandon it" if chunks == 1 else (
        f"finishing {chunks} chunks; press Ctrl-C again to abandon them"
    )


@pytest.mark.slow
def test_ctrl_c_finishes_what_runs_and_says_how_to_go_on(gated: Gated) -> None:
    """After Ctrl-C running chunks are finished and recorded, and the last line has the command that goes on."""
    with gated.start() as screen:
        gated.wait_until_chunks_run()
        screen.press_ctrl_c()
        screen.wait_for(finishing(gated.slots))
        assert screen.process.poll() is None
        gated.allow(100)
        assert_ended(screen)
    done = FIRST + gated.slots
    assert gated.done == done
    assert f"petaseg: interrupted; {done} of 8 chunks of predict_affinities" in screen.text
    assert f"go on with: petaseg run {gated.file}" in screen.text
    gated.complete()


@pytest.mark.slow
def test_a_second_ctrl_c_abandons_what_runs(gated: Gated) -> None:
    """After a second Ctrl-C nothing is waited for: running chunks are not recorded, and computed by the next run."""
    with gated.start() as screen:
        gated.wait_until_chunks_run()
        screen.press_ctrl_c()
        screen.wait_for("press Ctrl-C again")
        screen.press_ctrl_c()
        assert_ended(screen)
    assert gated.done == FIRST
    assert f"go on with: petaseg run {gated.file}" in screen.text
    gated.complete()


@pytest.mark.slow
def test_term_finishes_what_runs(gated: Gated) -> None:
    """TERM to the driver does what Ctrl-C does."""
    with gated.start() as screen:
        gated.wait_until_chunks_run()
        os.kill(screen.process.pid, signal.SIGTERM)
        screen.wait_for("asked to end; finishing")
        gated.allow(100)
        assert_ended(screen, 143)
    assert gated.done == FIRST + gated.slots
    gated.complete()
