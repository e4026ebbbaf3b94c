"""The first worker that writes records what its network computes; a worker that computes otherwise is refused."""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.config.run_file import Execution
from pipeline.errors import CorruptError, WorkerEnvironmentError
from pipeline.execution.runner import RunOptions, run_stage
from pipeline.execution.serial import SerialExecutor
from pipeline.runs.run import Run
from pipeline.runs.verify import verify_stage
from pipeline.stages import opened
from pipeline.stages.environment import Environment, compare, record, record_key, recorded
from pipeline.storage import ObjectStore
from tests.runs import petaseg, write_run, write_volume

HERE = Environment("0a" * 16, {"device": "cpu", "torch": "2.13.0", "instructions": "AVX512"}, "node1")
OTHER = replace(HERE, digest="0b" * 16, host="node2")


@pytest.fixture
def store(tmp_path):
    return ObjectStore(tmp_path)


def test_the_first_environment_is_recorded_and_its_like_agree(store):
    assert recorded(store, "stage") is None
    record(store, "stage", HERE)
    record(store, "stage", replace(HERE, names={"torch": "9.9"}, host="node3"))
    compare(store, "stage", HERE)
    assert recorded(store, "stage") == HERE


def test_another_digest_is_refused_and_the_record_stays(store):
    record(store, "stage", HERE)
    for refuse in (compare, record):
        with pytest.raises(WorkerEnvironmentError, match=r"node2 computes other bytes .* node1 began.*do not show"):
            refuse(store, "stage", OTHER)
    assert recorded(store, "stage") == HERE
    record(store, "another stage", OTHER)


def test_the_refusal_names_what_differs(store):
    record(store, "stage", HERE)
    newer = replace(OTHER, names={"device": "cpu", "torch": "2.14.0", "instructions": "AVX512"})
    with pytest.raises(WorkerEnvironmentError, match=r"; torch is 2\.14\.0, not 2\.13\.0\. .*another run directory"):
        compare(store, "stage", newer)


def test_comparing_writes_nothing(store):
    compare(store, "stage", HERE)
    assert store.list() == []


def test_of_many_workers_that_begin_at_once_those_of_one_environment_go_on(store):
    """The record is conditional: all workers that are admitted have the environment that is recorded."""

    def admitted(number):
        mine = (HERE, OTHER)[number % 2]
        try:
            record(store, "stage", mine)
        except WorkerEnvironmentError:
            return None
        return mine.digest

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(admitted, range(40)))
    kept = recorded(store, "stage").digest
    assert found.count(kept) == 20
    assert found.count(None) == 20


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "JSONDecodeError"),
        (HERE.encode()[:-20], "JSONDecodeError"),
        (b"[]", "TypeError"),
        (b'{"version": 1}', "digest"),
        (HERE.encode().replace(b'"version": 1', b'"version": "one"'), "whole number"),
        (HERE.encode().replace(b"0a0a", b"xyzw"), "ValueError"),
    ],
)
def test_a_damaged_record_admits_nobody(store, data, message):
    store.put(record_key("stage"), data)
    for refuse in (compare, record):
        with pytest.raises(CorruptError, match=rf"environments/stage\.json .*{message}.*restore it"):
            refuse(store, "stage", HERE)


def small_run(folder: Path, model="fib25-tiny", side=16) -> Path:
    """Two chunks, three patches of the bundled network."""
    image = np.random.default_rng(0).integers(0, 256, (side, side, 2 * side), dtype=np.uint8)
    return write_run(
        folder,
        input={"image": write_volume(folder / "image.zarr", image)},
        chunk_shape=[side, side, side],
        storage_chunk_shape=[side, side, side],
        inference={
            "model": model,
            "device": "cpu",
            "patch_shape": [side] * 3,
            "overlap": [side // 2] * 3,
        },
    )


def worker(file: Path, chunk: int, *overrides: str, **limits: str) -> dict:
    """A worker process with environment variables of its own; what it printed."""
    command = [sys.executable, "-m", "tests.stages.worker", str(file), str(chunk), *overrides]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **limits}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a run directory."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_worker_process_with_other_kernels_is_refused_before_it_writes_a_byte(tmp_path):
    """torch without vector instructions computes otherwise on every x86-64 processor: its chunk is left to others."""
    file = small_run(tmp_path)
    first = worker(file, 0, ATEN_CPU_CAPABILITY="avx2")
    before = contents(tmp_path)
    other = worker(file, 1, ATEN_CPU_CAPABILITY="default")
    assert other["digest"] != first["digest"]
    assert other["checksum"] is None
    assert other["error"].startswith("WorkerEnvironmentError")
    assert "ATEN_CPU_CAPABILITY is default, not avx2" in other["error"]
    assert other["retriable"]
    assert contents(tmp_path) == before
    again = worker(file, 1, ATEN_CPU_CAPABILITY="avx2")
    assert (again["digest"], again["error"]) == (first["digest"], None)


def test_short_floats_are_told_apart_where_processors_compute_them_otherwise(tmp_path):
    """bfloat16 on processors with and without AVX512-BF16, both AVX512 by name: a worker is admitted exactly if it
    measures what the first one measured, and all that are admitted write the same bytes.

    Where the processor has neither, both limits mean the same, and both are admitted.
    """
    file, bfloat16 = small_run(tmp_path), "inference.precision=bfloat16"
    limits = ["AVX512_CORE", "AVX512_CORE_BF16", "AVX512_CORE"]
    found = [worker(file, 1, bfloat16, ONEDNN_MAX_CPU_ISA=limit) for limit in limits]
    for outcome in found:
        assert (outcome["error"] is None) == (outcome["digest"] == found[0]["digest"])
        assert outcome["checksum"] == (found[0]["checksum"] if outcome["error"] is None else None)
    assert found[2]["error"] is None


def test_a_refused_chunk_is_done_by_another_worker(tmp_path, monkeypatch):
    """The chunk that a worker of another environment gave back is computed in the next round."""
    opened.forget()
    run = Run.open(small_run(tmp_path, "identity", 8))
    stage = run.stages[0]
    right = opened.environment(stage.model_card, stage.options, stage.patch_shape)
    record(run.store, stage.fingerprint, right)
    answers = [OTHER, right]
    monkeypatch.setattr(opened, "environment", lambda *_: answers.pop(0) if len(answers) > 1 else answers[0])
    ledger = run.ledger(stage)
    summary = run_stage(
        stage, ledger, SerialExecutor(), RunOptions.of(Execution(attempts=2), "again", sleep=lambda _: None)
    )
    assert summary.done == 2
    assert answers == [right]


def test_a_process_measures_once(tmp_path, monkeypatch):
    """After its first chunk a worker neither measures nor reads the record again."""
    from pipeline.inference.predictor import Predictor

    opened.forget()
    measured, asked = [], []
    digest, get = Predictor.digest, ObjectStore.get_or_none
    monkeypatch.setattr(Predictor, "digest", lambda self, shape: measured.append(shape) or digest(self, shape))

    def watched(self, key, *span):
        asked.append(key)
        return get(self, key, *span)

    monkeypatch.setattr(ObjectStore, "get_or_none", watched)
    stage = Run.open(small_run(tmp_path, "identity", 8)).stages[0]
    stage.prepare()
    first, second = stage.grids()[0]
    stage.run_chunk(first)
    asked.clear()
    stage.run_chunk(second)
    assert measured == [(8, 8, 8)]
    assert record_key(stage.fingerprint) not in asked


def test_threads_that_begin_together_load_and_measure_once(tmp_path, monkeypatch):
    """Of the threads of a process one measures, and the others wait for its result."""
    from pipeline.inference.predictor import Predictor

    opened.forget()
    measured, digest = [], Predictor.digest

    def slow(self, shape):
        measured.append(self)
        time.sleep(0.2)
        return digest(self, shape)

    monkeypatch.setattr(Predictor, "digest", slow)
    stage = Run.open(small_run(tmp_path, "identity", 8)).stages[0]
    with ThreadPoolExecutor(4) as pool:
        found = list(
            pool.map(lambda _: opened.environment(stage.model_card, stage.options, stage.patch_shape), range(4))
        )
    assert len(measured) == 1
    assert all(environment is found[0] for environment in found)


def test_verifying_where_the_network_computes_otherwise_finds_nothing_wrong_and_proves_nothing(tmp_path, monkeypatch):
    """The stored bytes are checked, no chunk counts as wrong, and ``--repair`` has nothing to forget."""
    opened.forget()
    run = Run.open(small_run(tmp_path, "identity", 8))
    stage = run.stages[0]
    ledger = run.ledger(stage)
    run_stage(stage, ledger, SerialExecutor(), RunOptions.of(Execution(), "again"))
    ledger.close()
    opened.forget()
    monkeypatch.setattr(opened, "environment", lambda *_: OTHER)
    before = contents(tmp_path)
    proof = verify_stage(stage, run.ledger(stage, read_only=True), None, seed=0)
    assert (proof.stored, proof.recomputed, proof.findings) == (2, 0, ())
    assert "node2 computes other bytes" in proof.obstacle
    assert not proof.proven
    assert verify_stage(stage, run.ledger(stage, read_only=True), 0, seed=0).proven
    assert contents(tmp_path) == before


def test_the_command_says_that_this_machine_cannot_compute_a_run_again(tmp_path, monkeypatch):
    """``petaseg verify`` on a machine of another environment ends with status 1 and says what it could not check."""
    file = small_run(tmp_path)
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    assert petaseg("run", file).returncode == 0
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    told = petaseg("verify", file, "--stage", "predict_heads", "--repair")
    said = " ".join(told.stdout.split())
    assert told.returncode == 1
    assert "not computed again predict_heads" in said
    assert "ATEN_CPU_CAPABILITY is default, not avx2" in said
    assert "will be computed again by" not in said
    assert petaseg("verify", file, "--stage", "predict_heads", "--sample", 0).returncode == 0
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    assert petaseg("verify", file, "--stage", "predict_heads").returncode == 0
