"""SLURM's commands against a real SLURM: jobs are submitted, observed, refused and cancelled."""

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline.clusters import make_cluster
from pipeline.clusters.base import DriverJob, Submission
from pipeline.clusters.slurm import cluster as under_test
from pipeline.clusters.slurm import commands, names, scripts
from pipeline.clusters.slurm.cluster import SlurmCluster
from pipeline.config.reading import parse_config
from pipeline.errors import ClusterError, ConfigError
from tests.contracts.cluster import ClusterContract
from tests.deploy.slurm import Slurm, command, wait_until

SMALL = {"driver": {"memory_gb": 0.2}, "workers": {"memory_gb": 0.2}}
RESTART = "restart = int(os.environ['PETASEG_JOB_START'])"


def submission(folder: Path, **cluster: object) -> Submission:
    data = {"run_directory": str(folder), "input": {"affinities": "a.zarr"}, "cluster": {**SMALL, **cluster}}
    return Submission(str(folder), parse_config(data))


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch):
    """Let a driver run some lines of Python in place of ``petaseg run``."""

    def use(*lines: str) -> None:
        text = "\n".join(["import os, signal, sys, time", *lines])
        monkeypatch.setattr(scripts, "driver_command", lambda *_: ["-u", "-c", text])

    return use


def wait_for(job: DriverJob, phase: str, restarts: int = 0) -> None:
    def reached() -> bool:
        state = SlurmCluster().state(job)
        return state.phase == phase and state.restarts >= restarts

    wait_until(reached, f"{job.id} {phase}")


def sleeper(given: Submission) -> str:
    """A job that looks like a worker of a run."""
    name = names.job_name(given.run_url, "general")
    return f"#!/bin/bash\n#SBATCH --job-name={name} --mem=100 --output=/dev/null\nsleep 600\n"


class TestSlurmCluster(ClusterContract):
    name = "slurm"

    @pytest.fixture
    def given(self, slurm: Slurm, tmp_path: Path, program) -> Submission:
        program("print('hello')", "time.sleep(600)")
        return submission(tmp_path / "run", queue="cpu")


def lines_of(job: DriverJob) -> Sequence[str]:
    return list(SlurmCluster().logs(job))


def test_a_dry_run_prints_exactly_what_is_submitted(slurm: Slurm, tmp_path: Path, program) -> None:
    """The script that a dry run prints is the one that SLURM receives, and a dry run writes nothing."""
    program("time.sleep(600)")
    given = submission(tmp_path / "run", queue="cpu")
    shown = make_cluster("slurm").render(given)
    assert set(shown) == {"driver.sbatch", "workers-general.sbatch"}
    assert not (tmp_path / "run").exists()
    job = make_cluster("slurm").submit(given)
    assert command("scontrol", "write", "batch_script", job.id, "-").rstrip() == shown["driver.sbatch"].rstrip()


def test_a_driver_is_seen_from_outside_until_long_after_its_end(
    slurm: Slurm, tmp_path: Path, program, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When SLURM has forgotten a job, its state is still read from the driver's log; without the log it is unknown."""
    program("print('hello')", "time.sleep(1)", "sys.exit(3 * (len(sys.argv) > 1))")
    job = SlurmCluster().submit(submission(tmp_path / "run"))
    wait_for(job, "finished")
    assert "hello" in lines_of(job)
    monkeypatch.setattr(under_test, "_controller_state", lambda job: None)  # SLURM has forgotten it
    assert SlurmCluster().state(job).phase == "finished"
    log = Path(job.details["log"])
    log.write_text(log.read_text().replace("status 0", "status 1"))
    failed = SlurmCluster().state(job)
    assert (failed.phase, str(log) in failed.reason) == ("failed", True)
    log.unlink()
    assert SlurmCluster().state(job).phase == "unknown"
    assert lines_of(job) == []


@pytest.mark.parametrize(
    ("cluster", "words"),
    [
        ({"queue": "nope"}, r"invalid partition specified: nope.*sinfo"),
        ({"driver": {"memory_gb": 900.0}}, r"[Mm]emory specification can not be satisfied.*ask for less"),
        ({"inference_workers": {"gpus": 1, "queue": "nope"}}, r"invalid partition specified: nope"),
        ({"inference_workers": {"gpus": 1, "queue": "cpu"}}, r"node configuration is not available.*ask for less"),
    ],
)
def test_what_slurm_refuses_is_said_in_its_words_before_anything_is_queued(
    slurm: Slurm, tmp_path: Path, cluster: dict[str, object], words: str
) -> None:
    """A wrong partition or too large a request, also of workers, is refused in SLURM's words, and no job is queued."""
    with pytest.raises(ClusterError, match=words):
        SlurmCluster().submit(submission(tmp_path, **cluster))
    assert not slurm.jobs("-t", "PD,R")


def test_a_driver_that_is_killed_is_queued_again(slurm: Slurm, tmp_path: Path, program) -> None:
    """A driver that is killed by SIGKILL, as by the out-of-memory killer, is queued again and finishes."""
    program(RESTART, "print('life', restart, os.getpid())", "time.sleep(0 if restart else 600)")
    job = SlurmCluster().submit(submission(tmp_path / "run"))
    wait_until(lambda: any(line.startswith("life 0") for line in lines_of(job)), "the driver runs")
    process = next(int(line.split()[2]) for line in lines_of(job) if line.startswith("life 0"))
    os.kill(process, signal.SIGKILL)
    wait_for(job, "finished", restarts=1)
    assert any("killed by signal 9; queued again" in line for line in lines_of(job))


def test_a_driver_that_was_asked_to_end_is_not_queued_again(slurm: Slurm, tmp_path: Path, program) -> None:
    """A driver whose process ends by SIGTERM is not queued again, so a cancelled run stays cancelled."""
    program("print('life', os.getpid())", "time.sleep(600)")
    job = SlurmCluster().submit(submission(tmp_path / "run"))
    wait_until(lambda: any(line.startswith("life") for line in lines_of(job)), "the driver runs")
    process = next(int(line.split()[1]) for line in lines_of(job) if line.startswith("life"))
    os.kill(process, signal.SIGTERM)
    wait_for(job, "failed")
    assert SlurmCluster().state(job).restarts == 0
    assert f"{scripts.ENDED}75" in lines_of(job)


def test_a_driver_that_fails_by_itself_is_not_queued_again(slurm: Slurm, tmp_path: Path, program) -> None:
    """A driver that exits with an error, as after a quarantined chunk, is not queued again."""
    program("sys.exit(1)")
    job = SlurmCluster().submit(submission(tmp_path / "run"))
    wait_for(job, "failed")
    state = SlurmCluster().state(job)
    assert (state.restarts, "NonZeroExitCode" in state.reason) == (0, True)
    assert f"{scripts.ENDED}1" in lines_of(job)


def test_a_driver_leaves_before_its_walltime_and_goes_on_in_a_new_one(slurm: Slurm, tmp_path: Path, program) -> None:
    """Before its walltime a driver gets SIGTERM, ends in order, is queued again and goes on."""
    program(
        RESTART,
        "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(1), print('in order'), sys.exit(143)))",
        "time.sleep(0 if restart else 600)",
    )
    job = SlurmCluster().submit(submission(tmp_path / "run", driver={"walltime": "00:01:00", "memory_gb": 0.2}))
    wait_for(job, "finished", restarts=1)
    text = "\n".join(lines_of(job))
    assert text.index("in order") < text.index("the walltime is near; queued again") < text.index("restart 1")


def test_cancelling_ends_workers_also_when_their_driver_is_dead(slurm: Slurm, tmp_path: Path, program) -> None:
    """Cancelling ends the workers of a run also when its driver is dead, and touches no other run."""
    program("time.sleep(600)")
    given, other = submission(tmp_path / "run"), submission(tmp_path / "other")
    job, neighbour = SlurmCluster().submit(given), SlurmCluster().submit(other)
    workers = [under_test.submit_script(sleeper(given)) for _ in range(2)]
    wait_until(lambda: SlurmCluster().state(job).workers_running == 2, "the workers run")
    command("scancel", job.id)
    wait_for(job, "failed")
    SlurmCluster().cancel(job)
    assert not {job.id, *workers} & set(slurm.jobs())
    assert SlurmCluster().state(neighbour).phase in ("pending", "running")
    SlurmCluster().cancel(job)  # nothing is left to do
    SlurmCluster().cancel(neighbour)
    assert not slurm.jobs()


def test_workers_that_wait_are_told_with_the_reason(slurm: Slurm, tmp_path: Path, program) -> None:
    """The state of a running driver says how many workers wait in the queue, and why."""
    program("time.sleep(600)")
    given = submission(tmp_path / "run")
    job = SlurmCluster().submit(given)
    wait_for(job, "running")
    under_test.submit_script(sleeper(given), "--hold")
    state = SlurmCluster().state(job)
    assert (state.phase, state.workers_pending) == ("running", 1)
    assert "all workers wait: JobHeldUser" in state.reason


def test_a_machine_without_slurm_is_told_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A missing sbatch command is an error that names the command and the remedy."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ClusterError, match=r"no command 'sbatch' on this machine.*submit node"):
        SlurmCluster().submit(submission(tmp_path))


def test_a_controller_that_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A SLURM command that hangs is ended after a time limit, with an error that names it."""
    (tmp_path / "squeue").write_text("#!/bin/bash\nsleep 60\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(commands, "COMMAND_SECONDS", 0.5)
    with pytest.raises(ClusterError, match="squeue gave no answer"):
        under_test.jobs_with("petaseg")


def test_jobs_do_not_inherit_the_settings_of_the_driver_s_own_job(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """sbatch sees none of the variables that name or set the driver's own job, but ``SLURM_CONF``."""
    (tmp_path / "sbatch").write_text("#!/bin/bash\nenv | grep -E '^(SLURM|PETASEG_JOB)' >&2; exit 1\n")
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for name in ("SLURM_CONF", "SLURM_MEM_PER_NODE", "SLURM_WORKING_CLUSTER", "SLURMD_NODENAME", "PETASEG_JOB"):
        monkeypatch.setenv(name, "x")
    with pytest.raises(ClusterError, match=r"^SLURM refused: SLURM_CONF=x$"):
        under_test.submit_script("#!/bin/bash\n")


def test_a_missing_dask_jobqueue_is_named_before_anything_is_queued(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A submission without dask-jobqueue is refused with the command that installs it, before anything is queued."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'petaseg\[slurm\]'"):
        SlurmCluster().submit(submission(tmp_path))
