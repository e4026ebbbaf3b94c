"""The commands as a user types them."""

import json
import re
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest

from pipeline.evaluation.contingency import Contingency
from pipeline.evaluation.scores import score
from pipeline.volumes import open_volume
from tests.runs import petaseg, real_affinities, write_run, write_volume

COMMANDS = ["demo", "init", "ingest", "plan", "run", "status", "relabel", "verify", "evaluate", "train", "models"]
COMMANDS += [
    "submit",
    "suspects",
    "logs",
    "cancel",
    "synthesize",
    "experiment",
    "self-train",
    "suggest",
    "view",
    "dashboard",
    "report",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(command):
    shown = petaseg(command, "--help")
    assert shown.returncode == 0
    assert re.search(rf"Examples?:\s+petaseg\s+{command}", shown.stdout)


def test_the_page_of_all_commands_is_up_to_date(request):
    """docs/commands.md is exactly what typer prints for the present commands and options."""
    page = (request.config.rootpath / "docs" / "commands.md").read_text()
    title = page.splitlines()[0].removeprefix("# ")
    printer = ["-m", "typer", "workflows.app", "utils", "docs", "--name", "petaseg", "--title", title]
    printed = subprocess.run([sys.executable, *printer], capture_output=True, text=True, check=True)
    assert page.strip() == printed.stdout.strip()


@pytest.fixture
def image(tmp_path):
    rng = np.random.default_rng(3)
    return write_volume(tmp_path / "image.zarr", rng.integers(1, 255, (32, 40, 48), np.uint8))


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        ({"input": {"image": "missing.zarr"}}, ["missing.zarr"]),
        ({"input": {"image": "image.zarr", "start": [0, 0, 40], "stop": [32, 40, 60]}}, ["[32, 40, 60]", "correct"]),
        ({"input": {"image": "image.zarr", "mask": "wide.zarr"}}, ["wide.zarr", "same voxels"]),
        ({"input": {"image": "coarse.zarr"}}, ["nm", "any_resolution"]),
        ({"input": {"image": "float.zarr"}}, ["float32", "uint8"]),
        ({"input": {"affinities": "image.zarr"}}, ["channels"]),
        ({"input": {"image": "image.zarr"}, "inference": {"model": "nonesuch"}}, ["nonesuch", "fib25-tiny"]),
        ({"input": {"image": "image.zarr"}, "inference": {"overlap": [199, 0, 0]}}, ["overlap", "199"]),
        ({"input": {"image": "image.zarr"}, "chunk_shape": [65, 64, 64]}, ["chunk_shape", "64"]),
        ({"input": {"image": "image.zarr"}, "supervoxels": {"filter_width": 4}}, ["filter_width", "odd"]),
        ({"input": {"image": "image.zarr"}, "segmentation": {"min_size_threshold": 0.9}}, ["0.9", "model card"]),
        ({"input": {"image": "image.zarr"}, "evaluation": {"labels": "float.zarr"}}, ["float32", "integers"]),
        ({"input": {"image": "image.zarr"}, "evaluation": {"skeletons": "none.npz"}}, ["none.npz", "nodes_nm"]),
    ],
)
def test_bad_input_is_refused_before_anything_is_computed(tmp_path, image, tables, words):
    """Bad input is refused with its value before anything is computed or written, and without a traceback."""
    array = open_volume(image).read(open_volume(image).spec.bounds)
    write_volume(tmp_path / "wide.zarr", np.ones((32, 40, 50), np.uint8))
    write_volume(tmp_path / "coarse.zarr", array, resolution_nm=(50, 50, 50))
    write_volume(tmp_path / "float.zarr", array.astype(np.float32))
    refused = petaseg("run", write_run(tmp_path, **tables), "--quiet")
    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr
    assert all(word in refused.stderr for word in words), refused.stderr
    assert not (tmp_path / "run").exists()


def test_weights_that_do_not_fit_the_card_are_refused(tmp_path, image):
    import shutil

    from pipeline.models.spec import bundled_folder

    shutil.copytree(bundled_folder("fib25-tiny"), tmp_path / "model")
    weights = next((tmp_path / "model").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\1\2\3")
    file = write_run(tmp_path, input={"image": image}, inference={"model": "model/card.yaml"})
    refused = petaseg("run", file, "--quiet")
    assert refused.returncode == 1
    assert "sha256" in refused.stderr
    assert not (tmp_path / "run").exists()


def test_two_volumes_are_scored_block_by_block(tmp_path):
    """Two volumes of any offset, or a box of them, get block by block the scores of the whole."""
    rng = np.random.default_rng(1)
    truth = np.repeat(np.repeat(rng.integers(0, 9, (5, 6, 7)), 4, 1), 4, 2).astype(np.uint32)
    labels = truth + (truth > 4) * rng.integers(0, 2, truth.shape).astype(np.uint32) * 50
    first = write_volume(tmp_path / "truth.zarr", truth, start=(3, 0, -2))
    second = write_volume(tmp_path / "labels.zarr", labels, start=(3, 0, -2))
    shown = petaseg("evaluate", first, second, "--json")
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout) == score(Contingency.from_labels(truth, labels)).to_dict()
    boxed = json.loads(petaseg("evaluate", first, second, "--json", "--box", "3:6,0:9,0:9").stdout)
    assert boxed == score(Contingency.from_labels(truth[:3, :9, 2:11], labels[:3, :9, 2:11])).to_dict()
    refused = petaseg("evaluate", first, second, "--box", "0:6,0:9,0:9")
    assert refused.returncode == 1
    assert "--box" in refused.stderr


def test_a_run_is_scored_along_its_merge_tree_and_along_skeletons(tmp_path, shared_data):
    """``petaseg evaluate`` scores a run at each threshold of its merge tree and along skeletons, and plots them."""
    affinities = real_affinities(shared_data)
    file = write_run(
        tmp_path,
        input={"affinities": write_volume(tmp_path / "affinities.zarr", affinities)},
        chunk_shape=[24, 32, 32],
        storage_chunk_shape=[24, 32, 32],
    )
    assert petaseg("run", file, "--quiet").returncode == 0
    with h5py.File(shared_data / "fib25_train2.h5") as data:
        truth = data["labels"][190:238, 60:120, 80:150]
    write_volume(tmp_path / "truth.zarr", truth)
    nodes = np.array([[20.0, 20, 20], [20, 300, 20], [20, 300, 400]])
    np.savez(tmp_path / "lines.npz", nodes_nm=nodes, edges=[[0, 1], [1, 2]], skeleton=[1, 1, 1])
    sets = ["--set", f"evaluation.labels={tmp_path}/truth.zarr", "--set", f"evaluation.skeletons={tmp_path}/lines.npz"]
    shown = petaseg("evaluate", file, "--json", *sets)
    assert shown.returncode == 0, shown.stderr
    report = json.loads(shown.stdout)
    labels = open_volume(str(tmp_path / "run" / "labels.zarr"))
    assert report["scores"] == score(Contingency.from_labels(truth, labels.read(labels.spec.bounds))).to_dict()
    at_half = min(report["sweep"], key=lambda point: abs(point["threshold"] - 0.5))
    assert abs(at_half["voi"] - report["scores"]["voi"]) < 0.1
    assert report["run_length"]["total_nm"] == 660
    assert (tmp_path / "run" / "report" / "sweep.png").stat().st_size > 10_000


@pytest.mark.slow
def test_a_run_from_plan_to_another_threshold(tmp_path, shared_data):
    """Every command of docs/running.md works on a small volume."""
    affinities = write_volume(tmp_path / "affinities.zarr", real_affinities(shared_data))
    file = write_run(tmp_path, input={"affinities": affinities}, chunk_shape=[64, 64, 64])
    planned = petaseg("plan", file)
    assert planned.returncode == 0, planned.stderr
    assert "extract_supervoxels" in planned.stdout
    assert not (tmp_path / "run").exists()
    assert petaseg("status", file).returncode == 1
    ran = petaseg("run", file)
    assert ran.returncode == 0, ran.stderr
    states = json.loads(petaseg("status", tmp_path / "run", "--json").stdout)["stages"]
    assert all(state["complete"] for state in states)
    labels = open_volume(str(tmp_path / "run" / "labels.zarr"))
    first = len(np.unique(labels.read(labels.spec.bounds)))
    assert petaseg("relabel", tmp_path / "run", "--threshold", "0.95", "--quiet").returncode == 0
    assert len(np.unique(labels.read(labels.spec.bounds))) > first
    assert petaseg("verify", tmp_path / "run").returncode == 0


def test_a_full_dry_run_writes_nothing(tmp_path, image):
    checked = petaseg("run", write_run(tmp_path, input={"image": image}), "--dry-run")
    assert checked.returncode == 0, checked.stderr
    assert not (tmp_path / "run").exists()


def test_ingest_brings_in_a_stack(tmp_path):
    array = np.arange(5 * 6 * 7, dtype=np.uint8).reshape(5, 6, 7)
    np.save(tmp_path / "stack.npy", array)
    done = petaseg(
        "ingest", tmp_path / "stack.npy", tmp_path / "out.zarr", "--resolution", "40,4,4", "--offset", "1,2,3"
    )
    assert done.returncode == 0, done.stderr
    volume = open_volume(str(tmp_path / "out.zarr"))
    assert volume.spec.bounds.start == (1, 2, 3)
    assert volume.spec.resolution_nm == (40, 4, 4)
    assert (volume.read(volume.spec.bounds) == array).all()


@pytest.mark.parametrize(("number", "words"), [(signal.SIGTERM, "asked to end"), (signal.SIGINT, "interrupted")])
def test_a_signal_ends_a_command_in_order_and_says_how_to_go_on(tmp_path, number, words):
    """TERM or Ctrl-C ends a command with status 128 + signal, says how to go on, and leaves no partial data set."""
    command = [
        sys.executable,
        "-m",
        "workflows.cli",
        "synthesize",
        "challenge",
        str(tmp_path / "out"),
        "--count",
        "500",
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        end = time.monotonic() + 60
        while not any(tmp_path.iterdir()) and time.monotonic() < end:
            time.sleep(0.05)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert f"petaseg: {words}; the same command begins anew" in said
    assert not (tmp_path / "out").exists()
