"""The two job scripts of a run on SLURM, as text: the driver's and a worker's. Nothing is submitted here.

    driver.sbatch            petaseg run RUN --on slurm; it stops before its walltime and queues itself again
      submits, through the pool of ``pool.py``,
    workers-<pool>.sbatch    one Dask worker, which drains before its walltime; the driver replaces it

All jobs of a run share the prefix ``petaseg-<8 hex of the run's URL>`` in their names, so that they are found even when
their driver is dead.
"""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from pipeline.clusters.base import Submission, cluster_folder, driver_command
from pipeline.clusters.tls import Tls
from pipeline.config.base import is_line
from pipeline.config.cluster import WorkerShape, seconds_of
from pipeline.config.fingerprint import fingerprint
from pipeline.errors import ConfigError

DRIVER_FILE = "driver.sbatch"
SETUP_VARIABLE = "PETASEG_SETUP"
"""The variable that passes ``Submission.setup`` from the driver's script to its workers' scripts.
"""
ENDED = "== driver ended with status "
"""The last line that a driver writes, with the exit status of ``petaseg run``."""

DRIVER_MARGIN_SECONDS = 120
WORKER_MARGIN_SECONDS = 900
LAST_SECONDS = 30
"""This many seconds before its walltime a worker returns even unfinished chunks."""
MEMORY_SHARE = 0.95
"""The share of a worker's memory that its chunks may use; the rest is for the nanny."""


def job_prefix(run_url: str) -> str:
    """The prefix of the names of all jobs of a run, and of no other run."""
    return f"petaseg-{fingerprint(run_url)[:8]}-"


def job_name(run_url: str, part: str) -> str:
    """Name of a job of a run; ``part`` is "driver" or the name of a pool."""
    return job_prefix(run_url) + part


def driver_log(run_url: str, job: str) -> Path:
    """The log of a driver; a job that is queued again continues in the same file."""
    return cluster_folder(run_url) / f"driver-{job}.log"


def worker_log(run_url: str, pool: str, job: str) -> Path:
    """The log of a worker."""
    return cluster_folder(run_url) / f"worker-{pool}-{job}.log"


def worker_logs(run_url: str) -> list[Path]:
    """The logs of all workers so far."""
    return sorted(cluster_folder(run_url).glob("worker-*.log"))


def driver_script(submission: Submission) -> str:
    """The batch script of the driver.

    120 s before its walltime SLURM sends USR1: ``petaseg run`` is stopped in order and the job queued again. The same
    happens, up to ``cluster.driver.restarts`` times, if ``petaseg run`` is killed; if a node is lost, SLURM does it.
    """
    driver = submission.config.cluster.driver
    margin = min(DRIVER_MARGIN_SECONDS, seconds_of(driver.walltime) // 4)
    header = _header(
        submission,
        "driver",
        log="driver-%j.log",
        walltime=driver.walltime,
        cpus=driver.cpus,
        memory_gb=driver.memory_gb,
        options=("--requeue", "--open-mode=append", f"--signal=B:USR1@{margin}"),
    )
    command = shlex.join([sys.executable, "-P", *driver_command(submission, "slurm")])
    return DRIVER.format(
        header=header,
        setup=_setup(submission.setup),
        command=command,
        restarts=driver.restarts,
        ended=shlex.quote(ENDED),
    )


def worker_script(
    pool: str,
    shape: WorkerShape,
    submission: Submission,
    *,
    address: str,
    worker: str,
    tls: Tls | None,
    avoid: Iterable[str] = (),
) -> str:
    """The batch script of one worker of a pool.

    address: address of the driver's scheduler. worker: name of the worker. tls: certificates, as files that the node
        can read.
    avoid: nodes on which it must not run, besides those that the shape excludes.
    """
    queue = (f"--partition={shape.queue}",) if shape.queue else ()
    header = _header(
        submission,
        pool,
        log=f"worker-{pool}-%j.log",
        walltime=shape.walltime,
        cpus=shape.cpus,
        memory_gb=shape.memory_gb,
        options=("--no-requeue", *queue, *_gpus(shape), *_options(shape, avoid)),
    )
    return WORKER.format(
        header=header,
        setup=_setup(submission.setup),
        environment=_exports(tls.environment() if tls else {}),
        lifetime=seconds_of(shape.walltime),
        drain=drain_seconds(shape.walltime),
        command=shlex.join(_worker_command(shape, address, worker, submission.config.cluster.interface)),
    )


def _worker_command(shape: WorkerShape, address: str, worker: str, interface: str | None) -> list[str]:
    """One Dask worker process, and the nanny that watches it."""
    return [
        *(sys.executable, "-P"),
        *("-m", "distributed.cli.dask_worker", address),
        *("--name", worker),
        *("--nthreads", str(shape.threads)),
        *("--memory-limit", f"{_mebibytes(shape.memory_gb * MEMORY_SHARE)}MiB"),
        *("--worker-class", "pipeline.clusters.worker.DrainingWorker"),
        *("--no-dashboard", "--dashboard-address", "127.0.0.1:0"),  # a dashboard would answer everybody on the network
        *("--death-timeout", "60"),
        *(("--interface", interface) if interface else ()),
    ]


def drain_seconds(walltime: str) -> int:
    """Seconds before its walltime at which a worker takes no more chunks: a tenth of it, between 1 and 15 minutes.

    A chunk that takes longer is returned to the scheduler ``LAST_SECONDS`` before the walltime, and does not count as
    failed.
    """
    whole = seconds_of(walltime)
    return min(max(whole // 10, 60), WORKER_MARGIN_SECONDS, whole // 2)


def _header(
    submission: Submission,
    part: str,
    *,
    log: str,
    walltime: str,
    cpus: int,
    memory_gb: float,
    options: Iterable[str] = (),
) -> str:
    """The ``#SBATCH`` lines; of two equal options SLURM takes the last. ``ConfigError`` if a line is not one line."""
    cluster = submission.config.cluster
    lines = [
        f"--job-name={job_name(submission.run_url, part)}",
        f"--output={_quoted_folder(cluster_folder(submission.run_url))}/{log}",
        f"--time={walltime}",
        f"--ntasks=1 --cpus-per-task={cpus} --mem={_mebibytes(memory_gb)}M",
        *((f"--partition={cluster.queue}",) if cluster.queue else ()),
        *((f"--account={cluster.account}",) if cluster.account else ()),
        *options,
    ]
    for line in lines:
        if not is_line(line):
            raise ConfigError(f"{line!r} has a line break or another control character; leave it out of the run file")
    return "\n".join(f"#SBATCH {line}" for line in lines)


def _quoted_folder(folder: Path) -> str:
    """A folder for an ``#SBATCH`` line, which sbatch splits at blanks and unquotes like a shell.

    Raises ``ConfigError`` for a backslash, at which SLURM stops to put the job's number into names of logs.
    """
    if "\\" in str(folder):
        raise ConfigError(f"{folder} has a backslash, which SLURM does not understand; choose another run_directory")
    return shlex.quote(str(folder).replace("%", "%%"))


def _gpus(shape: WorkerShape) -> tuple[str, ...]:
    own = any(option.startswith(("--gres", "--gpus")) for option in shape.options)
    return ("--gres=gpu:1",) if shape.gpus and not own else ()


def _options(shape: WorkerShape, avoid: Iterable[str]) -> list[str]:
    """The shape's own options, with all excluded nodes in one option, since SLURM takes the last of two."""
    exclude = "--exclude="
    nodes = [option.removeprefix(exclude) for option in shape.options if option.startswith(exclude)] + [*avoid]
    others = [option for option in shape.options if not option.startswith(exclude)]
    return [*others, exclude + ",".join(nodes)] if nodes else others


def _mebibytes(memory_gb: float) -> int:
    return math.ceil(memory_gb * 1e9 / 2**20)


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
echo "== driver: job $SLURM_JOB_ID on $(hostname), restart ${{SLURM_RESTART_COUNT:-0}}, $(date '+%F %T')"
driver= leave= status=0
stop() {{ leave=$1; [ -z "$driver" ] || kill -TERM "$driver" 2>/dev/null || true; }}
trap 'stop walltime' USR1   # SLURM, before the walltime
trap 'stop asked' TERM INT  # scancel, preemption
queue_again() {{
    if [ "$(squeue -h -j "$SLURM_JOB_ID" -o %T)" = RUNNING ]; then  # and not cancelled meanwhile
        echo "== driver: $1; queued again, $(date '+%F %T')"
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
{environment}
export DASK_PETASEG__JOB_END=$(($(date +%s) + {lifetime})) DASK_PETASEG__DRAIN_SECONDS={drain}
exec {command} --local-directory "${{TMPDIR:-/tmp}}"
"""
