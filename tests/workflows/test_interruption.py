"""Ctrl-C in a real terminal: running chunks are finished and recorded, or abandoned at the second one."""

from __future__ import annotations

import os
import signal
import time
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
import yaml

from pipeline.runs.branches import BRANCHES
from pipeline.runs.outline import read_outline
from pipeline.runs.status import read_status
from pipeline.storage import ObjectStore
from pipeline.training.callbacks import CHECKPOINT, weights_of
from pipeline.volumes import open_volume
from tests.runs import petaseg
from tests.stages.test_every_stage import small_run
from tests.training.trainings import MINI, stored_cubes
from tests.workflows.terminals import Terminal, family, terminal, wait_until

EXECUTORS = {
    "serial": (1, ("execution.executor=serial",)),
    "threads": (2, ("execution.executor=threads", "execution.workers=2")),
    "dask": (2, ("execution.executor=dask", "execution.workers=2")),
}
"""Executor -> how many chunks run at a time, and its settings."""
SMALL = (
    *("chunk_shape=[10,12,14]", "storage_chunk_shape=[10,12,14]"),
    *(f"{branch}=null" for branch in BRANCHES),
)
"""Eight chunks a stage, and no branches."""
FIRST = 3
"""Chunks that are done before Ctrl-C."""


def overrides(*settings: str) -> list[str]:
    """``--set`` before each setting."""
    return [word for setting in settings for word in ("--set", setting)]


class Gate:
    """What waits for a test, as ``gated/sitecustomize.py`` says."""

    def __init__(self, place: Path) -> None:
        self.gate = place / "gate"
        for name in ("begun", "passes"):
            (self.gate / name).mkdir(parents=True)

    def allow(self, chunks: int) -> None:
        """Let so many more chunks or blocks go on."""
        for number in range(chunks):
            (self.gate / "passes" / f"{time.monotonic_ns()}-{number}").touch()

    @property
    def begun(self) -> int:
        """How many chunks or blocks have begun."""
        return len(list((self.gate / "begun").iterdir()))


class GatedRun(Gate):
    """A small run whose chunks wait for a test, in the folder ``place``."""

    def __init__(self, place: Path, executor: str) -> None:
        super().__init__(place)
        self.place, self.file = place, small_run(place)
        self.slots, settings = EXECUTORS[executor]
        self.settings = overrides(*settings, *SMALL)

    @property
    def done(self) -> int:
        """How many chunks of the first stage are recorded."""
        outline = read_outline(ObjectStore(self.place / "run"))
        return 0 if outline is None else read_status(outline)[0].done

    def start(self) -> AbstractContextManager[Terminal]:
        """``petaseg run`` in a terminal."""
        return terminal("run", self.file, *self.settings, gate=self.gate)

    def wait_until_chunks_run(self) -> None:
        """Let the first chunks end, and wait until every worker is at another one."""
        self.allow(FIRST)
        wait_until(lambda: self.done == FIRST and self.begun == FIRST + self.slots)

    def complete(self) -> None:
        """A next command completes the run, and it is proven; a loop is the fastest with so few chunks."""
        (self.gate / "open").touch()
        again = petaseg("run", self.file, *overrides(*SMALL), "--quiet")
        assert again.returncode == 0, again.stderr
        proof = petaseg("verify", self.place / "run")
        assert proof.returncode == 0, proof.stdout


@pytest.fixture(params=list(EXECUTORS))
def gated(request: pytest.FixtureRequest, tmp_path: Path) -> GatedRun:
    return GatedRun(tmp_path, request.param)


def assert_ended(screen: Terminal, status: int = 130) -> None:
    """The command has ended with this status and without a traceback, and none of its processes lives."""
    assert screen.end() == status, screen.text
    assert "Traceback" not in screen.text, screen.text
    assert "Error" not in screen.text, screen.text
    wait_until(lambda: not family(screen.process.pid), lambda: str(family(screen.process.pid)))


FINISHING = {
    1: "finishing 1 chunk; press Ctrl-C again to abandon it",
    2: "finishing 2 chunks; press Ctrl-C again to abandon them",
}
"""The answer to the first Ctrl-C."""


@pytest.mark.slow
def test_ctrl_c_finishes_what_runs_and_says_how_to_go_on(gated: GatedRun) -> None:
    """After Ctrl-C running chunks are finished and recorded, and the last line has the command that goes on."""
    with gated.start() as screen:
        gated.wait_until_chunks_run()
        screen.press_ctrl_c()
        screen.wait_for(FINISHING[gated.slots])
        assert screen.process.poll() is None
        gated.allow(100)
        assert_ended(screen)
    done = FIRST + gated.slots
    assert gated.done == done
    assert f"petaseg: interrupted; {done} of 8 chunks of predict_heads" in screen.text
    assert f"go on with: petaseg run {gated.file}" in screen.text
    gated.complete()


@pytest.mark.slow
def test_a_second_ctrl_c_abandons_what_runs(gated: GatedRun) -> None:
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
def test_term_finishes_what_runs(gated: GatedRun) -> None:
    """TERM to the driver does what Ctrl-C does."""
    with gated.start() as screen:
        gated.wait_until_chunks_run()
        os.kill(screen.process.pid, signal.SIGTERM)
        screen.wait_for("asked to end; finishing")
        gated.allow(100)
        assert_ended(screen, 143)
    assert gated.done == FIRST + gated.slots


@pytest.mark.slow
def test_an_ingest_finishes_its_block_and_goes_on_with_the_named_command(tmp_path: Path) -> None:
    """Ctrl-C lets an ingest finish its block; the command of its last line copies the rest, and only that."""
    gate, array = Gate(tmp_path), np.arange(8 * 8 * 40, dtype=np.uint16).reshape(8, 8, 40)
    (gate.gate / "blocks").touch()
    np.save(tmp_path / "stack.npy", array)
    target = tmp_path / "out.zarr"
    command = ("ingest", tmp_path / "stack.npy", target, "--resolution", "8,8,8", "--chunk", "4,4,4")
    with terminal(*command, "--overwrite", gate=gate.gate) as screen:
        gate.allow(2)
        wait_until(lambda: gate.begun == 3)
        screen.press_ctrl_c()
        screen.wait_for("finishing 1 block; press Ctrl-C again to abandon it")
        gate.allow(1)
        assert_ended(screen)
    again = " ".join(["petaseg", *map(str, command)])
    assert f"petaseg: interrupted; 3 of 8 blocks of {target} are written; go on with: {again}" in screen.text
    (gate.gate / "open").touch()
    with terminal(*command, gate=gate.gate) as screen:
        assert_ended(screen, 0)
    assert "3 of 8 blocks by an earlier call" in screen.text
    volume = open_volume(str(target))
    assert (volume.read(volume.spec.bounds) == array).all()


@pytest.mark.slow
def test_a_second_ctrl_c_abandons_a_block(tmp_path: Path) -> None:
    """After a second Ctrl-C an ingest ends within its block, which the next call copies."""
    gate = Gate(tmp_path)
    (gate.gate / "blocks").touch()
    np.save(tmp_path / "stack.npy", np.zeros((8, 8, 40), np.uint16))
    command = ("ingest", tmp_path / "stack.npy", tmp_path / "out.zarr", "--resolution", "8,8,8", "--chunk", "4,4,4")
    with terminal(*command, gate=gate.gate) as screen:
        gate.allow(1)
        wait_until(lambda: gate.begun == 2)
        screen.press_ctrl_c()
        screen.wait_for("press Ctrl-C again")
        screen.press_ctrl_c()
        assert_ended(screen)
    assert "1 of 8 blocks" in screen.text


@pytest.mark.slow
def test_a_training_names_its_checkpoint_and_the_command_that_goes_on(tmp_path: Path) -> None:
    """Ctrl-C ends a training with the steps of its checkpoint; the command of the last line goes on from there."""
    part = stored_cubes(tmp_path, [0, 0, 0], [16, 32, 32])
    settings = {
        **{"output": str(tmp_path / "model"), "name": "mini", "arguments": MINI, "threads": 1, "steps": 1_000_000},
        **{"volumes": [part], "validation": {**part, "start": [16, 0, 0], "stop": [24, 32, 32]}},
        **{"patch_shape": [8, 16, 16], "overlap": [2, 4, 4], "warmup_steps": 2, "validate_every": 2},
        **{"training_data": "cubes", "licence": "CC0-1.0", "precision": "float32", "pictures": False},
    }
    file, checkpoint = tmp_path / "train.yaml", tmp_path / "model" / CHECKPOINT
    file.write_text(yaml.safe_dump(settings))

    def kept() -> int:
        return weights_of(checkpoint)["global_step"] if checkpoint.exists() else 0

    for before in (0, 2):
        with terminal("train", file) as screen:
            wait_until(lambda least=before: kept() > least)
            screen.press_ctrl_c()
            assert_ended(screen)
        words = f"petaseg: interrupted; the checkpoint in {tmp_path / 'model'} holds {kept():,} of 1,000,000 steps; "
        assert f"{words}go on with: petaseg train {file}" in screen.text
