"""The keys of a run file that only SLURM reads. Each value is one word of an ``#SBATCH`` line, and never a command."""

from __future__ import annotations

import json
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from pipeline.config.base import Form, Line, Name, Names, Table, check_line

Expression = Annotated[
    str,
    Form(
        r"[A-Za-z0-9_.,:@+&|*()\[\]-]+",
        "is no list of features or licences; write names with SLURM's signs , : & | * ( ) [ ] and no blanks, "
        "like a100&nvlink or matlab:2",
        4096,
    ),
]
"""Features or licences, joined by SLURM's operators: a100&nvlink, matlab:2."""
Nodes = Annotated[
    str,
    Form(
        r"[A-Za-z0-9][A-Za-z0-9_.,\[\]-]*",
        "is no list of nodes; write names and ranges with commas and no blanks in between, like n1,n[7-9]",
        4096,
    ),
]
"""Names of nodes: n1,n[7-9]. A path would be a file of names, so there is no slash."""
# fmt: off
MailType = Literal[
    "BEGIN", "END", "FAIL", "REQUEUE", "ALL", "INVALID_DEPEND", "STAGE_OUT",
    "TIME_LIMIT", "TIME_LIMIT_90", "TIME_LIMIT_80", "TIME_LIMIT_50",
]
# fmt: on
OPTIONS = frozenset(
    (
        *("acctg-freq", "batch", "begin", "comment", "constraint", "contiguous", "core-spec", "cores-per-socket"),
        *("cpu-freq", "cpus-per-gpu", "deadline", "delay-boot", "dependency", "distribution", "exclude", "exclusive"),
        *("gpu-bind", "gpu-freq", "gpus", "gpus-per-node", "gpus-per-socket", "gpus-per-task", "gres", "gres-flags"),
        *("hint", "licenses", "mcs-label", "mem-bind", "mincpus", "network", "nice", "nodelist", "oversubscribe"),
        *("power", "prefer", "priority", "profile", "propagate", "qos", "reservation", "sockets-per-node"),
        *("spread-job", "switches", "thread-spec", "threads-per-core", "time-min", "tmp", "use-min-nodes", "wckey"),
    )
)
"""The options of sbatch that ``options`` may hold: those that choose nodes and describe the job to SLURM. Others run
code (--export, --wrap, --container), write files (--output), or contradict what petaseg sets itself."""
OPTION = re.compile(r"--(?P<name>[a-z][a-z-]*)(?:=(?P<value>.+))?", re.DOTALL)
MOST_POOLS = 4
"""A driver listens on at most this many ports: one for each pool of workers."""


def check_option(text: str) -> str:
    """The same option; ``ValueError`` unless it is ``--name`` or ``--name=value`` of ``OPTIONS``, in one line."""
    check_line(text)
    found = OPTION.fullmatch(text)
    if found is None or len(text) > 4096:
        raise ValueError(f"{json.dumps(text)} is no option of sbatch in its long form; write --name=value or --name")
    if found["name"] not in OPTIONS:
        raise ValueError(
            f"--{found['name']} is not an option that a run file may set; there may be a key for it, and variables of "
            f"your shell like SBATCH_EXPORT reach sbatch too; options may hold {', '.join(sorted(OPTIONS))}"
        )
    return text


def ports_of(text: str) -> range:
    """The ports of a text like 40000-40100; ``ValueError`` unless they are at least ``MOST_POOLS`` from 1024."""
    found = re.fullmatch(r"([0-9]{1,5})-([0-9]{1,5})", text)
    ports = range(0) if found is None else range(int(found[1]), int(found[2]) + 1)
    if len(ports) < MOST_POOLS or ports[0] < 1024 or ports[-1] > 65535:
        raise ValueError(
            f"{json.dumps(text)} is no range of at least {MOST_POOLS} ports between 1024 and 65535; write the first "
            "and the last, like 40000-40100"
        )
    return ports


def _check_ports(text: str) -> str:
    ports_of(text)
    return text


SbatchOption = Annotated[str, AfterValidator(check_option)]
Ports = Annotated[str, AfterValidator(_check_ports)]
Comment = Annotated[Line, Field(min_length=1, max_length=1024)]


class SlurmJob(Table):
    """What a job asks of SLURM. A key of ``cluster`` holds for all jobs; driver and workers may replace it."""

    queue: Names | None = None
    """Partition, or several with commas in between, of which SLURM takes the one that starts first (SLURM)."""
    account: Name | None = None
    """Account that is charged (SLURM)."""
    qos: Names | None = None
    """Quality of service, or several with commas in between (SLURM)."""
    constraint: Expression | None = None
    """Features that a node must have, like a100&nvlink (SLURM)."""
    reservation: Names | None = None
    """Reservation whose nodes are used, or several with commas in between (SLURM)."""
    nodelist: Nodes | None = None
    """The node on which the job must run, like n7 (SLURM)."""
    exclude: Nodes | None = None
    """Nodes that are not used, like n1,n[7-9] (SLURM)."""
    licenses: Expression | None = None
    """Licences that a job takes, like matlab:1 (SLURM)."""
    tmp_gb: Annotated[float, Field(ge=0.001, le=1e6)] | None = None
    """Temporary disk that a node must have, in GB (SLURM)."""
    comment: Comment | None = None
    """A text that the accounting keeps with the job (SLURM)."""
    wckey: Name | None = None
    """Key under which the accounting counts the job (SLURM)."""
    options: tuple[SbatchOption, ...] = ()
    """More options of sbatch, like "--nice=100"; they follow those of `cluster` and win over keys (SLURM)."""

    def over(self, general: SlurmJob) -> SlurmJob:
        """The keys of this job, and those of ``general`` that it leaves out; the options of both."""
        own = {name: getattr(self, name) for name in SlurmJob.model_fields}
        given = {name: value for name, value in own.items() if value is not None}
        both = {name: getattr(general, name) for name in SlurmJob.model_fields} | given
        return SlurmJob(**{**both, "options": (*general.options, *self.options)})
