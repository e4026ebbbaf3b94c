"""Names of a run's jobs on SLURM, and the places of their logs.

All jobs of a run begin with ``<run>.petaseg-<8 hex of the run's URL>-``: people recognise the first part in ``squeue``,
and by the whole the jobs are found even when their driver is dead.
"""

from __future__ import annotations

import re
from pathlib import Path

from pipeline.clusters.base import cluster_folder
from pipeline.config.fingerprint import fingerprint

LONGEST = 30
"""Letters of a run's directory that its jobs have in their names."""
DRIVER, TRAINING = "driver", "training"
"""The parts of a run that are no pools."""


def run_name(run_url: str) -> str:
    """The last part of a run's URL, as letters that every command of SLURM takes as they are."""
    last = run_url.rstrip("/").rpartition("/")[2]
    return re.sub(r"[^A-Za-z0-9_]+", "-", last).strip("-")[:LONGEST] or "run"


def job_prefix(run_url: str) -> str:
    """The prefix of the names of all jobs of a run, and of no other run."""
    return f"{run_name(run_url)}.petaseg-{fingerprint(run_url)[:8]}-"


def job_name(run_url: str, part: str) -> str:
    """Name of a job of a run; ``part`` is ``DRIVER``, ``TRAINING`` or the name of a pool."""
    return job_prefix(run_url) + part


def job_log(run_url: str, part: str, job: str) -> Path:
    """The log of a driver or a training; a job that is queued again continues in the same file."""
    return cluster_folder(run_url) / f"{part}-{job}.log"


def worker_log(run_url: str, pool: str, job: str) -> Path:
    """The log of a worker's job; ``job`` is its number, or ``array_task``."""
    return cluster_folder(run_url) / f"worker-{pool}-{job}.log"


def worker_logs(run_url: str) -> list[Path]:
    """The logs of all workers so far."""
    return sorted(cluster_folder(run_url).glob("worker-*.log"))
