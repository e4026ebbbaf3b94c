"""A run whose input, run directory, ledger, model and report are in a bucket gives the same bytes as on a disk."""

import os
import pickle
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

from pipeline.errors import VolumeError
from pipeline.geometry import BoundingBox
from pipeline.models.spec import bundled_folder
from pipeline.runs.plan import make_plan
from pipeline.runs.report import write_report
from pipeline.runs.run import Run
from pipeline.runs.status import read_status
from pipeline.storage import ObjectStore, bucket_client
from pipeline.storage.bucket_client import Patience
from pipeline.volumes import VolumeSpec, create_volume, open_volume
from tests.objectstore.faults import FaultyServer, behind_faults
from tests.objectstore.server import KEY, SECRET, S3Server
from tests.runs import petaseg, real_affinities, results, run, write_run, write_volume

CHUNK = [24, 30, 35]
TABLES = {"chunk_shape": CHUNK, "storage_chunk_shape": CHUNK, "agglomeration": {"stop_score": 0.2}}
TOKEN = "SessionTokenThatMustNeverBeWrittenAnywhere0000"


@pytest.fixture(scope="module")
def affinities(shared_data: Path) -> np.ndarray:
    return real_affinities(shared_data)


@pytest.fixture(scope="module")
def reference(affinities: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The results of the same run on local files."""
    folder = tmp_path_factory.mktemp("local")
    given = {"affinities": write_volume(folder / "affinities.zarr", affinities)}
    return results(run(write_run(folder, input=given, **TABLES)))


def store_volume(url: str, array: np.ndarray) -> None:
    """Store (z, y, x) or (c, z, y, x) voxels of 8 nm in small objects."""
    box = BoundingBox.from_shape(array.shape[-3:])
    channels = len(array) if array.ndim == 4 else None
    create_volume(url, VolumeSpec(box, (8.0, 8.0, 8.0), array.dtype, channels, (24, 30, 35))).write(box, array)


def store_run_file(bucket: str, **tables: object) -> str:
    """A run file in the bucket, with paths relative to it; its run directory is ``<bucket>/lab/runs/first``."""
    data = {"run_directory": "runs/first", "execution": {"executor": "serial"}, **TABLES, **tables}
    ObjectStore(f"{bucket}/lab").put("run.yaml", yaml.safe_dump(data).encode())
    return f"{bucket}/lab/run.yaml"


@pytest.fixture
def run_file(bucket: str, affinities: np.ndarray) -> str:
    """A run from affinities, all of it in a bucket."""
    store_volume(f"{bucket}/lab/affinities.zarr", affinities)
    return store_run_file(bucket, input={"affinities": "affinities.zarr"})


@pytest.mark.slow
def test_from_the_image_to_neurons_in_a_bucket(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, affinities: np.ndarray
) -> None:
    """A run from image to scores, all in a bucket, gives the same bytes, and stores no credential."""
    monkeypatch.setenv("AWS_SESSION_TOKEN", TOKEN)
    bucket_client.connect.cache_clear()
    image = affinities.mean(axis=0).astype(np.uint8)[:32, :56, :32]
    network = {"model": "fib25-tiny", "patch_shape": [32, 32, 32], "overlap": [8, 8, 8]}
    shapes = {**TABLES, "chunk_shape": [32, 28, 32], "storage_chunk_shape": [16, 14, 32]}
    truth = {"labels": write_volume(tmp_path / "truth.zarr", (image // 64).astype(np.uint64))}
    given = {"image": write_volume(tmp_path / "image.zarr", image)}
    local = run(write_run(tmp_path, input=given, inference=network, evaluation=truth, **shapes))
    expected = results(local)

    store_volume(f"precomputed://{bucket}/lab/image", image)
    store_volume(f"{bucket}/lab/truth.zarr", (image // 64).astype(np.uint64))
    for path in bundled_folder("fib25-tiny").iterdir():
        ObjectStore(f"{bucket}/lab/model").put(path.name, path.read_bytes())
    file = store_run_file(
        bucket,
        input={"image": f"precomputed://{bucket}/lab/image"},
        inference={**network, "model": "./model"},
        evaluation={"labels": "truth.zarr"},
        execution={"executor": "dask", "workers": 2},
        **shapes,
    )
    done = petaseg("run", file, "--quiet", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not [word for word in (KEY, SECRET, TOKEN) if word in done.stdout + done.stderr]
    finished = Run.open(f"{bucket}/lab/runs/first")
    assert results(finished) == expected
    assert {"overview.png", "sweep.png", "scores.json", "summary.json"} == {
        key[7:] for key in finished.store.list("report/")
    }
    write_report(local)
    assert finished.store.get("report/scores.json") == local.store.get("report/scores.json")
    assert any(b"relabel: " in finished.store.get(key) for key in finished.store.list("logs/"))
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith("petaseg")]
    refuse_secrets(finished)


def test_volumes_in_a_bucket_are_used_when_they_are_complete(bucket: str, run_file: str) -> None:
    """Labels of a run in a bucket that lacks a chunk, and an unfinished ingest there, are refused until complete."""
    first = run(run_file)  # type: ignore[arg-type]
    truth = {"labels": f"{first.url}/labels.zarr"}
    second = store_run_file(
        bucket, input={"affinities": "affinities.zarr"}, evaluation=truth, run_directory="runs/second"
    )
    assert Run.open(second).has_stage("evaluate_segmentation")
    ledger = first.ledger(first.stage("relabel"))
    ledger.forget(next(iter(first.layout.grid())))
    ledger.close()
    with pytest.raises(VolumeError, match=r"finished 7 of 8 chunks of relabel.*petaseg run s3://.*runs/first"):
        Run.open(second)
    target = f"{bucket}/lab/mask.zarr"
    ObjectStore(f"{bucket}/lab").put("mask.zarr.ingest.json", b"{}")
    store_volume(target, np.ones((8, 8, 8), np.uint8))
    with pytest.raises(VolumeError, match="give the same petaseg ingest command again"):
        open_volume(target)


def refuse_secrets(finished: Run) -> None:
    """Assert that no secret is in what is stored or sent to workers."""
    everything = {key: finished.store.get(key) for key in finished.store.list()}
    everything |= {stage.name: pickle.dumps(stage) for stage in finished.stages}
    everything["run"] = pickle.dumps((finished.config, finished.inputs, finished.store))
    assert not [
        (name, word) for name, data in everything.items() for word in (KEY, SECRET, TOKEN) if word.encode() in data
    ]


@pytest.mark.slow
def test_every_command_takes_the_address_of_a_run(run_file: str, bucket: str, reference: dict[str, bytes]) -> None:
    folder = run_file.removesuffix("run.yaml") + "runs/first"
    assert petaseg("run", run_file, "--quiet").returncode == 0
    assert results(Run.open(folder)) == reference
    assert f"run {folder}" in petaseg("status", folder).stdout
    assert make_plan(Run.open(folder)).stages[-1].done == 8
    before = Run.open(folder).threshold
    assert petaseg("relabel", folder, "--threshold", "0.9", "--quiet").returncode == 0
    run(run_file)  # type: ignore[arg-type]
    assert results(Run.open(folder))["labels"] != reference["labels"], "what relabel applied holds"
    assert petaseg("relabel", folder, "--threshold", str(before), "--quiet").returncode == 0
    assert results(Run.open(folder)) == reference
    victim = next(key for key in ObjectStore(folder).list("labels.zarr/0/c/"))
    ObjectStore(folder).delete(victim)
    assert "1 chunk will be computed again" in petaseg("verify", folder, "--sample", "1", "--repair").stdout
    assert results(run(folder)) == reference  # type: ignore[arg-type]
    missing = petaseg("status", f"{bucket}/lab/runs/second")
    assert missing.returncode == 1
    assert f"{bucket}/lab/runs/second/run.yaml does not exist" in missing.stderr
    example = petaseg("init", f"{bucket}/new/run.yaml", "--image", "s3://bucket/image.zarr")
    assert example.returncode == 0
    assert b"s3://bucket/image.zarr" in ObjectStore(f"{bucket}/new").get("run.yaml")


@pytest.fixture
def faulty(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    patience = Patience(connect_seconds=2, stall_seconds=5, outage_seconds=60, first_seconds=60, longest_pause=0.1)
    with behind_faults(server, patience, monkeypatch) as running:
        yield running


@pytest.fixture
def faulty_run(server: S3Server, affinities: np.ndarray, faulty: FaultyServer) -> str:
    """A run file in a bucket behind the faulty server."""
    name = f"s3://{server.new_bucket()}"
    store_volume(f"{name}/lab/affinities.zarr", affinities)
    return store_run_file(name, input={"affinities": "affinities.zarr"}, execution={"executor": "threads"})


IMPATIENT = """
from pipeline.storage import bucket_client
bucket_client.PATIENCE = bucket_client.Patience(tries=1, outage_seconds=0, first_seconds=0, lease_seconds=0)
from workflows.cli import main
main()
"""
"""The petaseg command, set to wait for no outage."""


def done_by_stage(file: str) -> dict[str, int]:
    return {stage.name: stage.done for stage in read_status(Run.open(file))}


@pytest.mark.slow
def test_kill_9_of_the_driver_and_on(faulty_run: str, faulty: FaultyServer, reference: dict[str, bytes]) -> None:
    """After kill -9 of the driver, recorded chunks are not written again, and the bytes are the same."""
    dice = random.Random(11)
    command = [sys.executable, "-m", "workflows.cli", "run", faulty_run, "--quiet"]
    for _ in range(2):
        before = sum(done_by_stage(faulty_run).values())
        with subprocess.Popen(command, start_new_session=True) as process:
            more = before + 1 + dice.randrange(12)
            while process.poll() is None and sum(done_by_stage(faulty_run).values()) < more:
                time.sleep(0.05)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                assert process.returncode == 0
    kept = Run.open(faulty_run)
    recorded = {
        f"/lab/runs/first/parts/{stage.name}/{chunk.name}"
        for stage in kept.stages
        for grid in stage.grids()
        for chunk in grid
        if kept.ledger(stage, read_only=True).is_done(chunk)
    }
    written = {path: faulty.asked["PUT", path] for path in recorded}
    assert recorded
    assert results(run(faulty_run)) == reference  # type: ignore[arg-type]
    assert {path: faulty.asked["PUT", path] for path in recorded} == written


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_a_run_behind_a_bad_network_gives_the_same_bytes(
    seed: int, faulty_run: str, faulty: FaultyServer, reference: dict[str, bytes]
) -> None:
    """A run in which one request in ten meets a fault of any kind gives the same bytes."""
    faulty.seed, faulty.rate = seed, 0.1
    finished = run(faulty_run)  # type: ignore[arg-type]
    assert len(faulty.faults) >= 7, faulty.faults
    assert all(stage.complete for stage in read_status(finished))
    faulty.rate = 0
    assert results(finished) == reference


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["ledger/agglomerate", "labels.zarr/0/c/1/1/1"])
def test_an_outage_fails_clearly_and_the_run_goes_on_afterwards(
    moment: str, faulty_run: str, faulty: FaultyServer, reference: dict[str, bytes]
) -> None:
    """An outage ends the run with a clear error; run again, it gives the same bytes."""
    faulty.down_at = moment
    command = [sys.executable, "-c", IMPATIENT, "run", faulty_run, "--quiet", "--set", "execution.backoff_seconds=0"]
    failed = subprocess.run(command, capture_output=True, text=True)
    assert failed.returncode == 1
    assert "Traceback" not in failed.stderr
    assert re.search(r"petaseg: .*: the server answered 503.*, then run again", failed.stderr), failed.stderr
    faulty.down_at, faulty.down = None, False
    state = {stage.name: stage.complete for stage in read_status(Run.open(faulty_run))}
    assert state["extract_supervoxels"]
    assert not state["relabel"]
    assert results(run(faulty_run)) == reference  # type: ignore[arg-type]


def test_a_model_in_a_bucket_is_checked_like_one_on_disk(bucket: str, tmp_path: Path) -> None:
    from pipeline.errors import ModelError
    from pipeline.models.spec import load_card, load_model

    shutil.copytree(bundled_folder("fib25-tiny"), tmp_path / "model")
    store = ObjectStore(f"{bucket}/model")
    for path in (tmp_path / "model").iterdir():
        store.put(path.name, path.read_bytes())
    for name in (f"{bucket}/model", f"{bucket}/model/", f"{bucket}/model/card.yaml"):
        assert load_card(name).model_dump() == load_card(tmp_path / "model").model_dump()
    load_model(load_card(f"{bucket}/model"))
    store.put("weights.safetensors", b"other")
    with pytest.raises(ModelError, match=r"model/weights.safetensors has sha256"):
        load_card(f"{bucket}/model")
    store.delete("weights.safetensors")
    with pytest.raises(ModelError, match=r"weights.safetensors does not exist; .* put it beside the card"):
        load_card(f"{bucket}/model")
    with pytest.raises(ModelError, match=r"s3://.*/nothing/card.yaml does not exist; name a card"):
        load_card(f"{bucket}/nothing")
