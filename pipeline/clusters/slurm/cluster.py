"""SLURM, through its own commands: sbatch, squeue, scontrol, scancel. No shell, no accounting, no ``--json``."""

from __future__ import annotations

import importlib.util
import math
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pipeline.clusters.base import (
    DriverJob,
    JobState,
    LoneJob,
    Phase,
    Submission,
    WorkerPool,
    cluster_folder,
    worker_shapes,
)
from pipeline.clusters.slurm import names, scripts
from pipeline.clusters.slurm.commands import jobs_with, slurm, submit_script
from pipeline.clusters.tls import Tls
from pipeline.config.cluster import WorkerShape
from pipeline.errors import ClusterError, ConfigError

CANCEL_SECONDS = 90
PHASES: dict[str, Phase] = {
    **dict.fromkeys(("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT"), "pending"),
    **dict.fromkeys(("RUNNING", "SUSPENDED", "COMPLETING", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"), "running"),
    "COMPLETED": "finished",
}
"""State of a SLURM job -> phase; every other state is a failure."""


class SlurmCluster:
    """See ``Cluster``."""

    name = "slurm"

    def render(self, submission: Submission) -> dict[str, str]:
        """The batch script of the driver, and of a worker of each pool, with ``<...>`` for values that the driver fills
        in.

        Raises ``ConfigError`` if dask-jobqueue, which the driver needs, is not installed.
        """
        _check_jobqueue()
        tls = Tls.at(Path("<private folder>"))
        workers = {
            f"workers-{pool}.sbatch": scripts.worker_script(
                *(pool, shape, submission),
                address="<address of the driver>",
                first=0,
                tasks=math.ceil(shape.count / shape.workers_per_job),
                tls=tls,
            )
            for pool, shape in worker_shapes(submission.config.cluster).items()
        }
        return {scripts.DRIVER_FILE: scripts.driver_script(submission), **workers}

    def submit(self, submission: Submission) -> DriverJob:
        """Submit the driver; it submits its workers.

        One job of each pool is submitted too, with a later begin, and cancelled at once, so that SLURM refuses now
        what it would refuse later. (``--test-only`` does not serve: it also refuses jobs that must wait for a drained
        node.)
        """
        texts = self.render(submission)
        driver = texts.pop(scripts.DRIVER_FILE)
        cluster_folder(submission.run_url).mkdir(parents=True, exist_ok=True)
        for text in texts.values():
            one = ("--array=0",) if "\n#SBATCH --array=" in text else ()
            slurm("scancel", submit_script(text, "--begin=now+30days", *one), refusal_is_fine=True)
        return self._submitted(submission.run_url, names.DRIVER, driver)

    def render_lone(self, job: LoneJob) -> dict[str, str]:
        """See ``LoneJobs``: the batch script of a training."""
        return {scripts.TRAINING_FILE: scripts.training_script(job)}

    def submit_lone(self, job: LoneJob) -> DriverJob:
        """See ``LoneJobs``."""
        (script,) = self.render_lone(job).values()
        cluster_folder(job.url).mkdir(parents=True, exist_ok=True)
        return self._submitted(job.url, names.TRAINING, script)

    def _submitted(self, url: str, part: str, script: str) -> DriverJob:
        job = submit_script(script)
        return DriverJob(self.name, job, {"run": url, "log": str(names.job_log(url, part, job))})

    def state(self, job: DriverJob) -> JobState:
        """The state of the driver from SLURM, or from its log, if SLURM has forgotten it."""
        jobs = jobs_with(names.job_prefix(job.details["run"]))
        jobs.pop(job.id, None)
        states = Counter(worker.state for worker in jobs.values())
        driver = _controller_state(job.id) or _state_in_log(Path(job.details["log"]))
        if driver.phase == "running" and not states["R"] and states["PD"]:
            reasons = sorted({worker.reason for worker in jobs.values() if worker.state == "PD"})
            driver = replace(driver, reason=f"all workers wait: {', '.join(reasons)}")
        return replace(driver, workers_running=states["R"], workers_pending=states["PD"])

    def logs(self, job: DriverJob, *, workers: bool = False) -> Iterator[str]:
        """Lines of the driver's log, or of every worker's under its name."""
        files = names.worker_logs(job.details["run"]) if workers else [Path(job.details["log"])]
        for file in files:
            if workers:
                yield f"==> {file.name} <=="
            yield from _lines(file)

    def cancel(self, job: DriverJob) -> None:
        """End driver and workers, also workers whose driver is dead. The driver goes first: it would replace them."""
        prefix, end = names.job_prefix(job.details["run"]), time.monotonic() + CANCEL_SECONDS
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

    def pool(self, name: str, shape: WorkerShape, submission: Submission, tls: Tls | None) -> WorkerPool:
        """See ``Cluster``; ``ConfigError`` if dask-jobqueue is not installed."""
        _check_jobqueue()
        from pipeline.clusters.slurm.pool import SlurmPool

        return SlurmPool(name, shape, submission, tls)


def _controller_state(job: str) -> JobState | None:
    """A job's state from the controller; ``None`` if it has forgotten it, by default five minutes after its end."""
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
    """The state of an ended driver, from the last line of its log."""
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


def _check_jobqueue() -> None:
    if importlib.util.find_spec("dask_jobqueue") is None:
        raise ConfigError(
            "dask-jobqueue, through which the driver gets its workers on SLURM, is not installed in this environment; "
            "it is an extra: pip install 'petaseg[slurm]'"
        )
