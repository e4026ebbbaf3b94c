"""The commands of SLURM (sbatch, squeue, scancel), run without a shell; errors have SLURM's own words and a remedy."""

from __future__ import annotations

import os
import re
import subprocess
from typing import NamedTuple

from pipeline.errors import ClusterError

COMMAND_SECONDS = 60
REMEDIES = {
    "partition": "correct cluster.queue (`sinfo` lists the partitions)",
    "account": "correct cluster.account (`sacctmgr show associations user=$USER` lists yours)",
    "time limit": "lower the walltime of cluster.driver, cluster.workers or cluster.inference_workers",
    "qos": "choose another qos in the run file, or wait until others of your jobs have ended",
    "node configuration": "no node of this partition has so many cores, GPUs or so much memory: ask for less",
    "configuration source": "SLURM is not set up here: use a submit node of the cluster, or set SLURM_CONF",
    "unable to contact": "SLURM's controller does not answer: try again later",
}
"""A part of SLURM's message -> the remedy."""


def slurm(command: str, *arguments: str, text: str = "", refusal_is_fine: bool = False) -> str:
    """Run a command of SLURM and return what it prints; ``text`` is its input.

    Raises ``ClusterError`` with SLURM's own words if it refuses, if SLURM is not installed, and after
    ``COMMAND_SECONDS``.
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
            start_new_session=True,  # Ctrl-C in a terminal ends petaseg, and not a submission that SLURM may have taken
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
    """The reason why it waits."""


def jobs_with(prefix: str) -> dict[str, QueuedJob]:
    """This user's jobs that wait, run or end and whose names begin with ``prefix``, by number; a task of an array has a
    number like 17_3."""
    lines = slurm("squeue", "--noheader", f"--user={os.getuid()}", "--array", "--format=%i|%t|%r|%j").splitlines()
    jobs = (line.split("|", 3) for line in lines if line.strip())
    return {number: QueuedJob(state, reason) for number, state, reason, name in jobs if name.startswith(prefix)}


def _refusal(command: str, words: str) -> str:
    remedy = next((remedy for part, remedy in REMEDIES.items() if part in words.lower()), "")
    return f"SLURM refused: {' '.join(words.split()) or command}" + (f"; {remedy}" if remedy else "")


def _environment() -> dict[str, str]:
    """The environment without variables of an enclosing job, which would become settings of new jobs."""
    kept, of_this_job = {"SLURM_CONF", "SLURM_CLUSTERS"}, ("SLURM", "PETASEG_JOB")
    return {name: value for name, value in os.environ.items() if name in kept or not name.startswith(of_this_job)}
