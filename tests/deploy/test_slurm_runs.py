"""Whole runs on a real SLURM, as a user submits them, give the same bytes as here, whatever breaks."""

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import h5py
import pytest
import yaml

from pipeline.config.reading import parse_config
from pipeline.runs.run import Run
from pipeline.runs.status import read_status
from pipeline.training.callbacks import CHECKPOINT
from pipeline.training.config import TrainConfig
from pipeline.training.trainer import train
from tests.deploy.slurm import CPU_NODES, GPU_NODES, ROOT, Slurm, command, sbatch_lines, wait_until
from tests.runs import petaseg, real_affinities, results, run, write_run, write_volume
from tests.training.trainings import MINI, stored_cubes
from tests.workflows.terminals import terminal

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
SMALL = {"memory_gb": 0.8}
CLUSTER = {"kind": "slurm", "interface": "lo", "queue": "cpu", "driver": SMALL, "workers": {**SMALL, "count": 2}}
CHUNK = [10, 12, 14]
TABLES = {"chunk_shape": CHUNK, "storage_chunk_shape": CHUNK, "agglomeration": {"stop_score": 0.2}}
IN_FLIGHT = 2
DEPLOY = ROOT / "deploy" / "slurm"


@pytest.fixture(autouse=True)
def _project_is_importable(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))  # setup lines are remembered there


@pytest.fixture(scope="module")
def affinities(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_volume(tmp_path_factory.mktemp("data") / "affinities.zarr", real_affinities(shared_data))


@pytest.fixture(scope="module")
def reference(affinities: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return results(run(write_run(tmp_path_factory.mktemp("calm"), input={"affinities": affinities}, **TABLES)))


def do(*arguments: object) -> str:
    """Run a petaseg command that must succeed."""
    done = petaseg(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def driver(file: Path) -> str:
    """The job number of the driver."""
    return str(json.loads((file.parent / "run" / "cluster" / "driver.json").read_text())["id"])


def driver_state(file: Path) -> str:
    found = command("scontrol", "--oneliner", "show", "job", driver(file))
    return re.findall(r"JobState=(\w+)", found)[0]


def driver_process(file: Path) -> int | None:
    """The process of ``petaseg run``, if it has begun."""
    lease = file.parent / "run" / "lease.json"
    if not lease.exists() or driver_state(file) != "RUNNING":
        return None
    holder = json.loads(lease.read_text())["holder"]
    return int(holder["pid"]) if Path(f"/proc/{holder['pid']}").exists() else None


def chunks(file: Path) -> list[dict[str, str]]:
    """The lines of the run's event log about done chunks."""
    log = file.parent / "run" / "petaseg.jsonl"
    lines = log.read_text().splitlines(keepends=True) if log.exists() else []
    found = [json.loads(line) for line in lines if line.endswith("\n")]
    return [line for line in found if line["event"] == "chunk_done"]


def wait_for_more_chunks(file: Path, more: int = 5) -> None:
    before = len(chunks(file))
    wait_until(lambda: len(chunks(file)) >= before + more, f"{more} chunks more than {before}")


def wait_for_the_end(file: Path, slurm: Slurm) -> None:
    wait_until(lambda: driver_state(file) == "COMPLETED", "the driver is done")
    wait_until(lambda: not slurm.jobs("-t", "PD,R"), "no worker is left")
    assert all(stage.complete for stage in read_status(Run.open(file)))


def test_gpu_workers_run_the_network_and_nothing_else(slurm: Slurm, tmp_path: Path, shared_data: Path) -> None:
    """Only GPU workers run the network and only CPU workers the other stages; the bytes are those of a local run."""
    with h5py.File(shared_data / "gala_example.h5") as source:
        image = write_volume(tmp_path / "image.zarr", source["raw"][:32, :48, :48], (10, 10, 10))
    inference = {"model": "identity", "patch_shape": [16, 16, 16], "overlap": [4, 4, 4], "device": "cpu"}
    shape = {"chunk_shape": [16, 24, 24], "storage_chunk_shape": [16, 24, 24], "agglomeration": {"stop_score": 0.6}}
    tables = {"input": {"image": image}, "inference": inference, **shape, "segmentation": {"threshold": 0.7}}
    cluster = {**CLUSTER, "inference_workers": {**SMALL, "count": 2, "gpus": 1, "queue": "gpu"}}
    file = write_run(tmp_path / "there", cluster=cluster, **tables)
    shown = do("submit", file, "--dry-run")
    assert {"driver.sbatch", "workers-general.sbatch", "workers-inference.sbatch"} <= set(
        re.findall(r"[\w-]+\.sbatch", shown)
    )
    assert not (file.parent / "run").exists()
    do("submit", file)
    again = petaseg("submit", file)
    assert again.returncode == 1
    assert "that driver is alive" in again.stderr
    wait_for_the_end(file, slurm)
    assert results(Run.open(file)) == results(run(write_run(tmp_path / "here", **tables)))
    nodes: dict[bool, set[str]] = {True: set(), False: set()}
    for chunk in chunks(file):
        nodes[chunk["stage"] == "predict_heads"].add(chunk["worker"].partition(":")[0])
    assert nodes[True] <= GPU_NODES
    assert nodes[False] <= CPU_NODES
    assert do("status", file)
    assert "job ended with status 0" in do("logs", file)
    assert "Registered to" in do("logs", file, "--workers")


def test_a_driver_that_is_killed_meets_its_walltime_or_is_cancelled_goes_on(
    slurm: Slurm, tmp_path: Path, affinities: str, reference: dict[str, bytes]
) -> None:
    """A driver that is killed, meets its walltime and is cancelled goes on each time, and the bytes are the same."""
    tables = {**TABLES, "execution": {"max_in_flight": IN_FLIGHT}}
    file = write_run(tmp_path, input={"affinities": affinities}, cluster=CLUSTER, **tables)
    do("submit", file)

    wait_for_more_chunks(file)
    process = driver_process(file)
    assert process is not None
    os.kill(process, signal.SIGKILL)  # SLURM queues the driver again

    wait_until(lambda: driver_state(file) == "PENDING", "the driver is queued again")
    wait_for_more_chunks(file)
    command("scancel", "--signal=USR1", "--batch", driver(file))  # as SLURM does when the walltime is near

    wait_until(lambda: driver_state(file) == "PENDING", "the driver is queued again")
    wait_for_more_chunks(file)
    command("scancel", driver(file))  # SLURM does not queue it again
    wait_until(lambda: driver_state(file) == "CANCELLED", "the driver is cancelled")
    do("cancel", file)
    assert not slurm.jobs("-t", "PD,R")

    do("submit", file)
    wait_for_the_end(file, slurm)
    assert results(Run.open(file)) == reference
    done = [(chunk["stage"], str(chunk["chunk"])) for chunk in chunks(file)]
    assert len(done) - len(set(done)) <= 3 * IN_FLIGHT


def test_the_loss_of_the_node_of_driver_and_workers_costs_no_byte(
    slurm: Slurm, tmp_path: Path, affinities: str, reference: dict[str, bytes]
) -> None:
    """When the node of the driver and a worker is lost, the run goes on on another node, and the bytes are the same."""
    file = write_run(tmp_path, input={"affinities": affinities}, cluster=CLUSTER, **TABLES)
    do("submit", file)
    wait_for_more_chunks(file)
    home = slurm.jobs("-j", driver(file))[driver(file)][2]
    slurm.kill_node(home)
    try:
        wait_for_the_end(file, slurm)
        assert CPU_NODES - {home} == {slurm.jobs("-j", driver(file), "-t", "all")[driver(file)][2]}
    finally:
        slurm.start_node(home)
    assert results(Run.open(file)) == reference


def test_scripts_for_sites_that_submit_by_hand_do_the_same(
    slurm: Slurm, tmp_path: Path, affinities: str, reference: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scripts of deploy/slurm, submitted by hand, give the same bytes, also after the driver is requeued."""
    monkeypatch.setenv("PETASEG_PYTHON", os.sys.executable)
    monkeypatch.setenv("PETASEG_INTERFACE", "lo")
    monkeypatch.chdir(tmp_path)
    file = write_run(tmp_path, input={"affinities": affinities}, **TABLES)
    job = command(
        "sbatch", "--parsable", "--mem=800", "--cpus-per-task=1", str(DEPLOY / "driver.sbatch"), str(file)
    ).strip()
    command("sbatch", "--parsable", "--mem=800", "--array=1-2", str(DEPLOY / "workers.sbatch"))
    wait_for_more_chunks(file)
    command("scontrol", "requeue", job)  # the workers find it again
    wait_until(lambda: slurm.jobs("-j", job)[job][1] == "PD", "the driver is queued again")
    wait_until(lambda: not slurm.jobs("-t", "PD,R"), "driver and workers have ended")
    assert results(Run.open(file)) == reference
    assert "petaseg run ended with status 0" in (tmp_path / f"petaseg-driver-{job}.log").read_text()
    assert {chunk["worker"].partition(":")[0] for chunk in chunks(file)} <= CPU_NODES
    assert (tmp_path / "petaseg-cluster").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("script", ["driver.sbatch", "workers.sbatch"])
def test_scripts_for_hand_are_accepted_by_bash_and_slurm(slurm: Slurm, script: str) -> None:
    """bash and sbatch accept the scripts of deploy/slurm."""
    assert subprocess.run(["bash", "-n", DEPLOY / script], capture_output=True, text=True).stderr == ""
    assert sbatch_lines((DEPLOY / script).read_text())["time"]
    command("sbatch", "--test-only", "--cpus-per-task=1", "--mem=100", str(DEPLOY / script), "run.yaml")


def test_a_training_goes_on_in_a_new_job_from_its_last_checkpoint(slurm: Slurm, tmp_path: Path) -> None:
    """A training that meets its walltime and is cancelled goes on; its weights are those of one that never stopped."""
    cluster = {"kind": "slurm", "driver": {**SMALL, "queue": "cpu", "walltime": "00:10:00"}}
    volumes = [stored_cubes(tmp_path, [0, 0, 0], [16, 32, 32])]
    data = {
        **{"name": "mini", "volumes": volumes, "validation": stored_cubes(tmp_path, [16, 0, 0], [24, 32, 32])},
        **{"arguments": MINI, "patch_shape": [8, 16, 16], "overlap": [2, 4, 4], "steps": 300, "warmup_steps": 2},
        **{"validate_every": 10, "device": "cpu", "pictures": False, "precision": "float32", "cluster": cluster},
    }
    folder, file = tmp_path / "there", tmp_path / "train.yaml"
    file.write_text(yaml.safe_dump({**data, "output": str(folder)}))
    (tmp_path / "setup").write_text("export SEEN_BY=the_setup\n")
    said = do("submit", file, "--setup", tmp_path / "setup")
    job = re.findall(r"submitted to slurm as (\d+)", said)[0]
    assert "is alive; look at it with `petaseg logs" in petaseg("submit", file).stderr
    state = lambda: slurm.jobs("-j", job, "-t", "all")[job][1]  # noqa: E731
    log = folder / "log.jsonl"
    wait_until((folder / CHECKPOINT).exists, "the checkpoint of the first validation")
    command("scancel", "--signal=USR1", "--batch", job)  # as SLURM does when the walltime is near
    wait_until(lambda: "queued again" in do("logs", file), "the training is queued again")
    held = int(re.findall(r"holds (\d+) of 300 steps", " ".join(do("logs", file).split()))[0])
    assert held < 300
    wait_until(lambda: json.loads(log.read_text().splitlines()[-1])["step"] > held, "it goes on")
    assert "slurm" in do("cancel", file)
    assert not slurm.jobs("-t", "PD,R")
    assert "SEEN_BY=the_setup" in do("submit", file, "--dry-run")
    job = re.findall(r"submitted to slurm as (\d+)", do("submit", file))[0]
    wait_until(lambda: state() in ("CD", "F"), "the training has ended")
    assert "job ended with status 0" in do("logs", file)
    config = parse_config({**data, "output": str(tmp_path / "here")}, TrainConfig)
    train(config)
    weights = [(place / "weights.safetensors").read_bytes() for place in (folder, tmp_path / "here")]
    assert weights[0] == weights[1]


def test_ctrl_c_of_a_submission_leaves_no_job_that_nobody_knows_of(
    slurm: Slurm, affinities: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A submission that SLURM has begun to answer is finished after Ctrl-C, and the last line has the job's number."""
    file = write_run(tmp_path, input={"affinities": affinities}, **TABLES, cluster=CLUSTER)
    sbatch, real = tmp_path / "bin" / "sbatch", command("which", "sbatch").strip()
    sbatch.parent.mkdir()
    sbatch.write_text(
        f"#!/bin/bash\ntouch {tmp_path}/begun\nuntil [ -e {tmp_path}/go ]; do sleep 0.1; done\n{real} $*\n"
    )
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", f"{sbatch.parent}:{os.environ['PATH']}")
    with terminal("submit", file) as screen:
        wait_until((tmp_path / "begun").exists, "the first job is submitted")
        screen.press_ctrl_c()
        screen.wait_for("finishing 1 submission; press Ctrl-C again to abandon it")
        (tmp_path / "go").touch()
        assert screen.end() == 130, screen.text
    job = driver(file)
    assert screen.text.endswith(f"submitted to slurm as {job} all the same; end it with: petaseg cancel {file}")
    assert "Traceback" not in screen.text
    assert set(slurm.jobs("-t", "PD,R")) <= {job}
    do("cancel", file)
    assert not slurm.jobs("-t", "PD,R")
