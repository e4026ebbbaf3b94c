"""SLURM, through its own commands: sbatch, squeue, scontrol, scancel. No shell, no accounting, no ``--json``."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pipeline.clusters.base import DriverJob, JobState, Phase, Submission, cluster_folder, worker_shapes
from pipeline.clusters.slurm import scripts as scripts
from pipeline.clusters.tls import Tls
from pipeline.config.cluster import WorkerShape
from pipeline.errors import ClusterError, ConfigError

if TYPE_CHECKING:
    from pipeline.clusters.slurm.pool import SlurmPool

COMMAND_SECONDS = 60
CANCEL_SECONDS = 90
PHASES: dict[str, Phase] = {
    **dict.fromkeys(("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT"), "pending"),
    **dict.fromkeys(("RUNNING", "SUSPENDED", "COMPLETING", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"), "running"),
    "COMPLETED": "finished",
}
"""State of a SLURM job -> phase; every other state is a failure."""
REMEDIES = {
    "partition": "correct cluster.queue (`sinfo` lists the partitions)",
    "account": "correct cluster.account (`sacctmgr show associations user=$USER` lists yours)",
    "time limit": "lower the walltime of cluster.driver, cluster.workers or cluster.inference_workers",
    "qos": "choose another --qos in the options of this shape, or wait until others of your jobs have ended",
    "node configuration": "no node of this partition has so many cores, GPUs or so much memory: ask for less",
    "configuration source": "SLURM is not set up here: use a submit node of the cluster, or set SLURM_CONF",
    "unable to contact": "SLURM's controller does not answer: try again later",
}
"""What SLURM's own words contain -> what helps."""


class SlurmCluster:
    """See ``Cluster``."""

    name = "slurm"

    def render(self, submission: Submission) -> dict[str, str]:
        """The batch script of the driver, and of a worker of each pool with ``<...>`` for what the driver will fill in.

        Raises ``ConfigError`` if dask-jobqueue, which the driver needs, is not installed.
        """
        _check_jobqueue()
        tls = Tls.at(Path("<private folder>"))
        workers = {
            f"workers-{pool}.sbatch": scripts.worker_script(
                pool, shape, submission, address="<address of the driver>", worker="<name>", tls=tls
            )
            for pool, shape in worker_shapes(submission.config.cluster).items()
        }
        return {scripts.DRIVER_FILE: scripts.driver_script(submission), **workers}

    def submit(self, submission: Submission) -> DriverJob:
        """Submit the driver; it submits its workers.

        A worker of each pool is submitted too, for later, and cancelled at once: SLURM refuses now what it would refuse
        then. (``--test-only`` would not do: it also refuses what has to wait for a drained node.)
        """
        texts = self.render(submission)
        driver = texts.pop(scripts.DRIVER_FILE)
        cluster_folder(submission.run_url).mkdir(parents=True, exist_ok=True)
        for text in texts.values():
            slurm("scancel", submit_script(text, "--begin=now+30days"), refusal_is_fine=True)
        job = submit_script(driver)
        details = {
            "run": submission.run_url,
            "log": str(scripts.driver_log(submission.run_url, job)),
        }
        return DriverJob(self.name, job, details)

    def state(self, job: DriverJob) -> JobState:
        """What SLURM says of the driver; what its log says, if SLURM has forgotten it."""
        jobs = jobs_with(scripts.job_prefix(job.details["run"]))
        jobs.pop(job.id, None)
        states = Counter(worker.state for worker in jobs.values())
        driver = _controller_state(job.id) or _state_in_log(Path(job.details["log"]))
        if driver.phase == "running" and not states["R"] and states["PD"]:
            reasons = sorted({worker.reason for worker in jobs.values() if worker.state == "PD"})
            driver = replace(driver, reason=f"all workers wait: {', '.join(reasons)}")
        return replace(driver, workers_running=states["R"], workers_pending=states["PD"])

    def logs(self, job: DriverJob, *, workers: bool = False) -> Iterator[str]:
        """Lines of the driver's log, or of every worker's under its name."""
        files = scripts.worker_logs(job.details["run"]) if workers else [Path(job.details["log"])]
        for file in files:
            if workers:
                yield f"==> {file.name} <=="
            yield from _lines(file)

    def cancel(self, job: DriverJob) -> None:
        """End driver and workers, also workers whose driver is dead. The driver goes first: it would replace them."""
        prefix, end = scripts.job_prefix(job.details["run"]), time.monotonic() + CANCEL_SECONDS
        slurm("scancel", job.id, refusal_is_fine=True)
        while jobs := jobs_with(prefix):
            if time.monotonic() > end:
                raise ClusterError(
                    f"jobs {', '.join(jobs)} have been cancelled but still end after {CANCEL_SECONDS} s, perhaps on a "
                    f"node that does not answer; look again with: squeue --jobs={','.join(jobs)}"
                )
            if job.id not in jobs:
                slurm("scancel", *jobs, refusal_is_fine=True)
            time.sleep(0.5)

    def pool(self, name: str, shape: WorkerShape, submission: Submission, tls: Tls | None) -> SlurmPool:
        """See ``Cluster``; ``ConfigError`` if dask-jobqueue is not installed."""
        _check_jobqueue()
        from pipeline.clusters.slurm.pool import SlurmPool

        return SlurmPool(name, shape, submission, tls)


def slurm(command: str, *arguments: str, text: str = "", refusal_is_fine: bool = False) -> str:
    """Run a command of SLURM and return what it prints; ``text`` is its input.

    Raises ``ClusterError`` with SLURM's own words, if SLURM is not installed, and after ``COMMAND_SECONDS``.
    """
    try:
        done = subprocess.run(
            [command, *arguments],
            input=text,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=COMMAND_SECONDS,
            env=_environment(),
        )
    except FileNotFoundError:
        raise ClusterError(
            f"there is no command {command!r} on this machine: SLURM is used through its own commands; log in to a "
            "submit node of the cluster, or run here without --on slurm"
        ) from None
    except subprocess.TimeoutExpired:
        raise ClusterError(
            f"{command} gave no answer in {COMMAND_SECONDS} s: SLURM's controller is busy or down; try again later"
        ) from None
    if done.returncode and not refusal_is_fine:
        raise ClusterError(_refusal(command, done.stderr.strip() or done.stdout.strip()))
    return done.stdout


def submit_script(script: str, *options: str) -> str:
    """Submit a batch script; returns the number of the job."""
    answer = slurm("sbatch", "--parsable", *options, text=script)
    found = re.search(r"^(\d+)(;\S+)?$", answer, re.MULTILINE)
    if found is None:
        raise ClusterError(f"sbatch --parsable printed {answer!r}, where the number of the job was expected")
    return found[1]


class QueuedJob(NamedTuple):
    """A job in SLURM's queue."""

    state: str
    """SLURM's short word: PD, R, CG."""
    reason: str
    """Why it waits."""


def jobs_with(prefix: str) -> dict[str, QueuedJob]:
    """This user's jobs whose names begin so and that wait, run or end, by number."""
    lines = slurm("squeue", "--noheader", f"--user={os.getuid()}", "--format=%A|%t|%r|%j").splitlines()
    jobs = (line.split("|", 3) for line in lines if line.strip())
    return {number: QueuedJob(state, reason) for number, state, reason, name in jobs if name.startswith(prefix)}


def _controller_state(job: str) -> JobState | None:
    """What the controller says of a job, ``None`` if it has forgotten it (five minutes after the end, by default)."""
    try:
        text = slurm("scontrol", "--oneliner", "show", "job", job)
    except ClusterError as error:
        if "invalid job id" in str(error).lower():
            return None
        raise
    fields = dict(part.partition("=")[::2] for part in text.split())
    phase = PHASES.get(fields["JobState"], "failed")
    reason = fields.get("Reason", "None").replace("None", "")
    if phase == "failed":
        reason = f"{fields['JobState']} {reason}".strip()
    return JobState(phase, reason, restarts=int(fields.get("Restarts", 0)))


def _state_in_log(log: Path) -> JobState:
    """How a driver ended, by the last line of its log."""
    last = next((line for line in reversed(list(_lines(log))) if line.startswith(scripts.ENDED)), "")
    status = last.removeprefix(scripts.ENDED)
    if not status:
        return JobState("unknown", f"SLURM has forgotten this job, and {log} does not say how it ended")
    return JobState("finished") if status == "0" else JobState("failed", f"exit status {status}; see {log}")


def _lines(file: Path) -> Iterator[str]:
    try:
        with file.open(errors="replace") as lines:
            yield from (line.rstrip("\n") for line in lines)
    except FileNotFoundError:
        return  # the job has not started yet


def _refusal(command: str, words: str) -> str:
    remedy = next((remedy for part, remedy in REMEDIES.items() if part in words.lower()), "")
    return f"SLURM refused: {' '.join(words.split()) or command}" + (f"; {remedy}" if remedy else "")


def _environment() -> dict[str, str]:
    """This process's variables without those of the job that it may be: they would become settings of new jobs."""
    kept = {"SLURM_CONF", "SLURM_CLUSTERS"}
    return {name: value for name, value in os.environ.items() if name in kept or not name.startswith("SLURM")}


def _check_jobqueue() -> None:
    if importlib.util.find_spec("dask_jobqueue") is None:
        raise ConfigError(
            "dask-jobqueue, through which the driver gets its workers on SLURM, is not installed in this environment; "
            "it is an extra: pip install 'petaseg[slurm]'"
        )
