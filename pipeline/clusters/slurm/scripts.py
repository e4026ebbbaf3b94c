"""The job scripts of a run on SLURM, as text: the driver's, a worker's and a training's. Nothing is submitted here.

driver.sbatch            petaseg run RUN --on slurm; it stops before its walltime and queues itself again
  submits, through the pool of ``pool.py``,
workers-<pool>.sbatch    an array of jobs with one Dask worker each, or one for each GPU of a node, which drain
                         before their walltime; the driver replaces them

training.sbatch          petaseg train FILE; it stops before its walltime and queues itself again
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence

from pipeline.clusters.base import LoneJob, Submission, cluster_folder, driver_command
from pipeline.clusters.slurm.header import Resources, header, mebibytes
from pipeline.clusters.slurm.names import DRIVER as DRIVER_PART
from pipeline.clusters.slurm.names import TRAINING, job_name
from pipeline.clusters.tls import Tls
from pipeline.config.cluster import ClusterTable, Driver, WorkerShape, seconds_of

DRIVER_FILE, TRAINING_FILE = "driver.sbatch", "training.sbatch"
SETUP_VARIABLE = "PETASEG_SETUP"
"""The variable that passes ``Submission.setup`` from the driver's script to its workers' scripts.
"""
ENDED = "== job ended with status "
"""The last line that a driver or training writes, with the exit status of its command."""

DRIVER_MARGIN_SECONDS = 120
WORKER_MARGIN_SECONDS = 900
LAST_SECONDS = 30
"""This many seconds before its walltime a worker returns even unfinished chunks."""
MEMORY_SHARE = 0.95
"""The share of a worker's memory that its chunks may use; the rest is for the nanny."""


def driver_script(submission: Submission) -> str:
    """The batch script of the driver.

    120 s before its walltime SLURM sends USR1: ``petaseg run`` is stopped in order and the job queued again. The same
    happens, up to ``cluster.driver.restarts`` times, if ``petaseg run`` is killed; if a node is lost, SLURM does it.
    """
    table = submission.config.cluster
    size = Resources(table.driver.walltime, table.driver.cpus, table.driver.memory_gb)
    command = driver_command(submission, "slurm")
    return _again_script(submission.run_url, DRIVER_PART, table, size, command, submission.setup)


def training_script(job: LoneJob) -> str:
    """The batch script of a training, which is stopped, and queued again, like a driver."""
    driver = job.cluster.driver
    size = Resources(driver.walltime, job.cpus, driver.memory_gb, f"--gpus-per-node={job.gpus}" if job.gpus else "")
    return _again_script(job.url, TRAINING, job.cluster, size, job.command, job.setup, before="unset SLURM_NTASKS\n")


def _again_script(
    url: str, part: str, table: ClusterTable, size: Resources, command: Sequence[str], setup: str, before: str = ""
) -> str:
    """A job that is queued again. before: shell lines in front of the command."""
    margin = min(DRIVER_MARGIN_SECONDS, seconds_of(size.walltime) // 4)
    again = ("--requeue", "--open-mode=append", f"--signal=B:USR1@{margin}", *_mail(table.driver))
    place = {"name": job_name(url, part), "folder": cluster_folder(url), "log": f"{part}-%j.log"}
    return DRIVER.format(
        header=header(table.driver.over(table), size, **place, options=again),  # type: ignore[arg-type]
        part=part,
        setup=_setup(setup),
        command=before + shlex.join([sys.executable, "-P", *command]),
        restarts=table.driver.restarts,
        ended=shlex.quote(ENDED),
    )


def _mail(driver: Driver) -> tuple[str, ...]:
    if driver.mail_user is None:
        return ()
    return (f"--mail-user={driver.mail_user}", f"--mail-type={','.join(driver.mail_type) or 'NONE'}")


def worker_script(
    pool: str,
    shape: WorkerShape,
    submission: Submission,
    *,
    address: str,
    first: int,
    tasks: int,
    tls: Tls | None,
    avoid: Iterable[str] = (),
) -> str:
    """The batch script of an array of a pool's jobs, or of one job.

    address: address of the driver's scheduler. first: number of the first job, by which its workers are named.
    tasks: jobs of the array; 1 for a plain job. tls: certificates, as files that the node can read.
    avoid: nodes on which it must not run, besides those that the shape excludes.
    """
    cluster, name, each = submission.config.cluster, job_name(submission.run_url, pool), shape.workers_per_job
    gpus = f"--gpus-per-node={each}" if shape.gpus_per_node else "--gres=gpu:1" if shape.gpus else ""
    return WORKER.format(
        header=header(
            shape.over(cluster),
            Resources(shape.walltime, shape.cpus * each, shape.memory_gb * each, gpus),
            name=name,
            folder=cluster_folder(submission.run_url),
            log=f"worker-{pool}-{'%A_%a' if tasks > 1 else '%j'}.log",
            options=("--no-requeue", *_array(tasks, shape.array_limit)),
            avoid=avoid,
        ),
        setup=_setup(submission.setup),
        environment=_exports(tls.environment() if tls else {}),
        lifetime=seconds_of(shape.walltime),
        drain=drain_seconds(shape.walltime),
        command=shlex.join(_worker_command(shape, address, cluster)),
        worker=f'"{name}-$(({first} + ${{SLURM_ARRAY_TASK_ID:-0}}))"',
        start=ONE_WORKER if each == 1 else WORKER_OF_EACH_GPU.format(workers=each, last=each - 1),
    )


def _array(tasks: int, limit: int | None) -> Iterable[str]:
    if tasks > 1:
        yield f"--array=0-{tasks - 1}" + (f"%{limit}" if limit is not None else "")


def _worker_command(shape: WorkerShape, address: str, cluster: ClusterTable) -> list[str]:
    """One Dask worker process, and the nanny that watches it."""
    ports = (cluster.ports or "").replace("-", ":")
    return [
        *(sys.executable, "-P"),
        *("-m", "distributed.cli.dask_worker", address),
        *("--nthreads", str(shape.threads)),
        *("--memory-limit", f"{mebibytes(shape.memory_gb * MEMORY_SHARE)}MiB"),
        *("--worker-class", "pipeline.clusters.worker.DrainingWorker"),
        *("--no-dashboard", "--dashboard-address", "127.0.0.1:0"),  # a dashboard would answer everybody on the network
        *("--death-timeout", "60"),
        *(("--interface", cluster.interface) if cluster.interface else ()),
        *(("--worker-port", ports, "--nanny-port", ports) if ports else ()),
    ]


def drain_seconds(walltime: str) -> int:
    """Seconds before its walltime at which a worker takes no more chunks: a tenth of it, between 1 and 15 minutes.

    A chunk that takes longer is returned to the scheduler ``LAST_SECONDS`` before the walltime, and does not count as
    failed.
    """
    whole = seconds_of(walltime)
    return min(max(whole // 10, 60), WORKER_MARGIN_SECONDS, whole // 2)


def _exports(variables: Mapping[str, str]) -> str:
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in variables.items())


def _setup(lines: str) -> str:
    """The user's own shell lines, and their text for the scripts that this job will submit.

    They come before ``set -u``, with which the ``module`` and ``conda`` of many sites fail.
    """
    return f"export {SETUP_VARIABLE}={shlex.quote(lines)}\n{lines}\n" if lines.strip() else ""


DRIVER = """#!/bin/bash
{header}
set -eo pipefail
export PYTHONSAFEPATH=1
{setup}
set -u
export PETASEG_JOB="slurm $SLURM_JOB_ID" PETASEG_JOB_START="${{SLURM_RESTART_COUNT:-0}}"
export PETASEG_NODE="${{SLURMD_NODENAME:-}}"
echo "== {part}: job $SLURM_JOB_ID on $(hostname), restart ${{SLURM_RESTART_COUNT:-0}}, $(date '+%F %T')"
driver= leave= status=0
stop() {{ leave=$1; [ -z "$driver" ] || kill -TERM "$driver" 2>/dev/null || true; }}
trap 'stop walltime' USR1   # SLURM, before the walltime
trap 'stop asked' TERM INT  # scancel, preemption
queue_again() {{
    if [ "$(squeue -h -j "$SLURM_JOB_ID" -o %T)" = RUNNING ]; then  # and not cancelled meanwhile
        echo "== {part}: $1; queued again, $(date '+%F %T')"
        if scontrol requeue "$SLURM_JOB_ID"; then sleep 60 & wait; fi  # SLURM ends this job now
    fi
    exit 75
}}
{command} &
driver=$!
while true; do  # a signal ends wait before the driver ends
    wait "$driver" && status=0 || status=$?
    kill -0 "$driver" 2>/dev/null || break
done
if [ "$leave" = walltime ]; then queue_again "the walltime is near"; fi
if [ "$status" = 143 ]; then leave=asked; fi  # the trap may come later than the end
if [ "$leave" = asked ] && [ "$status" != 0 ]; then status=75; fi  # preemption: start this job again
if [ -z "$leave" ] && [ "$status" -gt 128 ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {restarts} ]; then
    queue_again "killed by signal $((status - 128))"
fi
echo {ended}"$status"
exit "$status"
"""

WORKER = """#!/bin/bash
{header}
set -eo pipefail
export PYTHONSAFEPATH=1
{setup}
set -u
export PETASEG_NODE="${{SLURMD_NODENAME:-}}"
{environment}
export DASK_PETASEG__JOB_END=$(($(date +%s) + {lifetime})) DASK_PETASEG__DRAIN_SECONDS={drain}
worker={worker}
command=({command} --local-directory "${{TMPDIR:-/tmp}}")
{start}"""

ONE_WORKER = """exec "${command[@]}" --name "$worker"
"""

WORKER_OF_EACH_GPU = """IFS=, read -ra gpus <<< "${{CUDA_VISIBLE_DEVICES:-}}"
if [ "${{#gpus[@]}}" -lt {workers} ]; then
    echo "CUDA_VISIBLE_DEVICES of this job is '${{CUDA_VISIBLE_DEVICES:-}}', and {workers} GPUs are needed" >&2
    exit 1
fi
trap : TERM INT  # SLURM sends these to the workers too: wait for them
started=() status=0
for number in {{0..{last}}}; do
    CUDA_VISIBLE_DEVICES=${{gpus[$number]}} "${{command[@]}}" --name "$worker-$number" &
    started+=($!)
done
for process in "${{started[@]}}"; do
    while kill -0 "$process" 2>/dev/null; do wait "$process" || status=$?; done
done
exit "$status"
"""
