"""The ``#SBATCH`` lines of a job: what it asks of SLURM, each value quoted as sbatch unquotes it."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.config.base import is_line
from pipeline.config.slurm import SlurmJob
from pipeline.errors import ConfigError

KEYS = {
    "queue": "partition",
    **{key: key for key in ("account", "qos", "constraint", "reservation", "nodelist", "licenses", "comment", "wckey")},
}
"""Key of ``SlurmJob`` -> option of sbatch; ``exclude``, ``tmp_gb`` and ``options`` are treated apart."""
EXCLUDE = "--exclude="


@dataclass(frozen=True)
class Resources:
    """The size of a job."""

    walltime: str
    cpus: int
    memory_gb: float
    gpus: str = ""
    """The option that requests GPUs, unless the job's own options request some: --gpus-per-node=4."""


def header(
    job: SlurmJob,
    size: Resources,
    *,
    name: str,
    folder: Path,
    log: str,
    options: Iterable[str] = (),
    avoid: Iterable[str] = (),
) -> str:
    """All lines; of two equal options SLURM takes the last. ``ConfigError`` if a line is not one line.

    folder, log: where the job writes; ``log`` may hold SLURM's patterns, such as %j. avoid: nodes to exclude, besides
    those that the job excludes.
    """
    lines = [
        f"--job-name={name}",
        f"--output={_quoted_folder(folder)}/{log}",
        f"--time={size.walltime}",
        f"--nodes=1 --ntasks=1 --cpus-per-task={size.cpus} --mem={mebibytes(size.memory_gb)}M",
        *options,
        *_gpus(job, size),
        *_keys(job),
        *_own(job, avoid),
    ]
    for line in lines:
        if not is_line(line):
            raise ConfigError(f"{line!r} has a line break or another control character; leave it out of the run file")
    return "\n".join(f"#SBATCH {line}" for line in lines)


def mebibytes(memory_gb: float) -> int:
    """GB as SLURM counts memory and disks."""
    return math.ceil(memory_gb * 1e9 / 2**20)


def quoted(text: str) -> str:
    """A text as one word of an ``#SBATCH`` line; sbatch takes a backslash as an escape in single quotes too."""
    return shlex.quote(text).replace("\\", "\\\\")


def _quoted_folder(folder: Path) -> str:
    """A folder for an ``#SBATCH`` line; ``ConfigError`` for a backslash, at which SLURM stops to put the job's number
    into names of logs."""
    if "\\" in str(folder):
        raise ConfigError(f"{folder} has a backslash, which SLURM does not understand; choose another run_directory")
    return quoted(str(folder).replace("%", "%%"))


def _keys(job: SlurmJob) -> Iterator[str]:
    for key, option in KEYS.items():
        if (value := getattr(job, key)) is not None:
            yield f"--{option}={quoted(value)}"
    if job.tmp_gb is not None:
        yield f"--tmp={mebibytes(job.tmp_gb)}M"


def _gpus(job: SlurmJob, size: Resources) -> tuple[str, ...]:
    own = any(o.startswith("--gpus") or (o.startswith("--gres=") and "gpu" in o) for o in job.options)
    return (size.gpus,) if size.gpus and not own else ()


def _own(job: SlurmJob, avoid: Iterable[str]) -> Iterator[str]:
    """The job's own options, with all excluded nodes in one option, since SLURM takes the last of two."""
    nodes = [job.exclude] if job.exclude else []
    nodes += [option.removeprefix(EXCLUDE) for option in job.options if option.startswith(EXCLUDE)] + [*avoid]
    for option in job.options:
        name, equals, value = option.partition("=")
        if not option.startswith(EXCLUDE):
            yield name + equals + (quoted(value) if equals else "")
    if nodes:
        yield f"{EXCLUDE}{quoted(','.join(nodes))}"
