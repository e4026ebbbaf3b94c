"""Promise 2: a run may be killed at any time, and when it is run again only what is missing is computed."""

import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from pipeline.runs.run import Run
from pipeline.runs.status import read_status
from pipeline.volumes import open_volume
from tests.runs import petaseg, real_affinities, results, run, write_run, write_volume

CHUNK = [16, 20, 24]
TABLES = {"chunk_shape": CHUNK, "storage_chunk_shape": CHUNK, "agglomeration": {"stop_score": 0.2}}
IN_FLIGHT = 2


@pytest.fixture(scope="module")
def affinities(shared_data, tmp_path_factory):
    return write_volume(tmp_path_factory.mktemp("data") / "affinities.zarr", real_affinities(shared_data))


def done_by_stage(file, *overrides):
    return {stage.name: stage.done for stage in read_status(Run.open(file, overrides))}


def written_parts(file, stage):
    folder = Run.open(file).layout.run_url + f"/parts/{stage}"
    return len([name for name in os.listdir(folder) if not name.startswith(".")]) if os.path.isdir(folder) else 0


def start(file):
    command = [sys.executable, "-m", "workflows.cli", "run", str(file), "--quiet"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def recorded(folder):
    """The number of lines in the ledgers, counted faster than a chunk is computed."""
    return sum(log.read_bytes().count(b"\n") for log in folder.glob("run/ledger/*/log.jsonl"))


def kill_after(process, folder, more, limit=60.0):
    """Kill the driver once a number of lines was added, which no slow machine outlasts as it would a sleep.

    Returns False if the run was complete before.
    """
    first, end = recorded(folder), time.monotonic() + limit
    while process.poll() is None and recorded(folder) <= first + more and time.monotonic() < end:
        time.sleep(0.002)
    if process.poll() is not None:
        assert process.returncode == 0
        return False
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return True


@pytest.mark.slow
def test_ten_kills_of_the_driver_lose_only_what_was_in_flight(tmp_path, affinities):
    """Each of up to ten kills of the driver costs at most the chunks in flight, and the bytes are the same."""
    reference = results(run(write_run(tmp_path / "calm", input={"affinities": affinities}, **TABLES)))
    execution = {"executor": "threads", "workers": IN_FLIGHT, "max_in_flight": IN_FLIGHT}
    file = write_run(tmp_path / "killed", input={"affinities": affinities}, **{**TABLES, "execution": execution})
    dice = random.Random(7)
    kills = 0
    while kills < 10 and kill_after(start(file), tmp_path / "killed", dice.randrange(12)):
        kills += 1
        for stage in ("extract_supervoxels", "build_region_graph", "agglomerate", "cut_merge_tree"):
            assert written_parts(file, stage) - done_by_stage(file)[stage] <= IN_FLIGHT
    assert kills > 2
    assert results(run(file)) == reference


def test_another_threshold_computes_no_voxel_again(tmp_path, affinities):
    """Another threshold computes new labels only; supervoxels, region graph and merge tree are kept."""
    file = write_run(tmp_path, input={"affinities": affinities}, **TABLES)
    first = results(run(file))
    before = {name: open_volume(f"{tmp_path}/run/{name}.zarr") for name in ("fragments", "supervoxels")}
    marks = {name: newest(f"{tmp_path}/run/{name}.zarr") for name in before}
    again = run(file, "segmentation.threshold=0.9")
    untouched = ("extract_supervoxels", "build_region_graph", "agglomerate", "write_supervoxels")
    assert {name: newest(f"{tmp_path}/run/{name}.zarr") for name in before} == marks
    assert all(
        done_by_stage(file)[name] == done_by_stage(file, "segmentation.threshold=0.9")[name] for name in untouched
    )
    second = results(again)
    assert second["labels"] != first["labels"]
    assert second["supervoxels"] == first["supervoxels"]
    assert second["merge_tree"] == first["merge_tree"]
    assert results(run(file)) == first


def newest(folder):
    return max(os.stat(os.path.join(root, name)).st_mtime_ns for root, _, names in os.walk(folder) for name in names)


def test_other_weights_compute_everything_again(tmp_path):
    """With another model no stage counts as done, and status warns of the other configuration."""
    image = write_volume(tmp_path / "image.zarr", np.random.default_rng(0).integers(0, 255, (32, 32, 32), np.uint8))
    small = {"patch_shape": [32, 32, 32], "overlap": [8, 8, 8]}
    file = write_run(tmp_path, input={"image": image}, inference={"model": "fib25-tiny", **small})
    run(file)
    finished = done_by_stage(file)
    other = done_by_stage(file, "inference.model=synthetic-tiny")
    assert all(finished.values())
    assert not any(other.values())
    warned = petaseg("status", file, "--set", "inference.model=synthetic-tiny")
    assert "made under another configuration" in warned.stdout
    assert "predict_heads" in warned.stdout.split("configuration")[1]


def test_truncated_flipped_and_lost_chunks_are_found_and_repaired_and_nothing_else_runs(tmp_path, affinities):
    """``verify --repair`` finds truncated, changed and lost chunks, and only these are computed again."""
    file = write_run(tmp_path, input={"affinities": affinities}, **TABLES)
    reference = results(run(file))
    stored = sorted(
        (path for path in (tmp_path / "run" / "labels.zarr").rglob("*") if path.is_file() and path.suffix != ".json"),
        key=lambda path: path.stat().st_size,
    )
    truncated, flipped = stored[-1], stored[-2]
    truncated.write_bytes(truncated.read_bytes()[:-9])
    data = bytearray(flipped.read_bytes())
    data[len(data) // 2] ^= 4
    flipped.write_bytes(bytes(data))
    lost = max((tmp_path / "run" / "fragments.zarr").rglob("c/*/*/*"), key=lambda path: path.stat().st_size)
    lost.unlink()
    found = petaseg("verify", file, "--sample", 0, "--repair")
    assert found.returncode == 1
    assert "3 chunks will be computed again" in found.stdout.replace("\n", " ")
    total = done_by_stage(file)
    count = len(list(Run.open(file).layout.grid()))
    assert (total["relabel"], total["extract_supervoxels"], total["agglomerate"]) == (count - 2, count - 1, count + 9)
    assert results(run(file)) == reference
    proven = petaseg("verify", file, "--sample", 2)
    assert proven.returncode == 0, proven.stdout + proven.stderr


def test_a_chunk_that_always_fails_is_set_aside_and_named(tmp_path, affinities):
    """A chunk that always fails is named, all others of its stage are done, and it can be retried."""
    file = write_run(tmp_path, input={"affinities": affinities}, **TABLES)
    blocked = tmp_path / "run" / "parts" / "extract_supervoxels" / "1_1_1"
    for suffix in ("", ".npz", ".safetensors"):
        blocked.with_name(blocked.name + suffix).mkdir(parents=True)
    failed = petaseg("run", file, "--quiet", "--set", "execution.backoff_seconds=0")
    assert failed.returncode == 1
    assert "1_1_1" in failed.stderr
    assert f"petaseg run {file}" in failed.stderr
    counts = done_by_stage(file)
    assert counts["extract_supervoxels"] == len(list(Run.open(file).layout.grid())) - 1
    status = petaseg("status", file)
    assert status.returncode == 1
    assert "1_1_1" in status.stdout
    for suffix in ("", ".npz", ".safetensors"):
        blocked.with_name(blocked.name + suffix).rmdir()
    mended = petaseg("run", file, "--quiet")
    assert mended.returncode == 0, mended.stderr
    assert petaseg("status", file).returncode == 0
