"""What submissions of runs and trainings share: the shell lines of ``--setup``, and words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.clusters.base import DriverJob


def setup_lines(path: Path | None, cluster: str, run_url: str) -> str:
    """The lines of ``--setup``, or those of the run's last submission; ``ConfigError`` where jobs have no shell."""
    from pipeline.clusters.setup import remembered_setup
    from pipeline.errors import ConfigError

    if cluster != "slurm":
        if path is not None:
            raise ConfigError(f"--setup is for jobs on SLURM; on {cluster} put what it does into the image")
        return ""
    return remembered_setup(run_url) if path is None else read_setup(path)


def setup_note(lines: str, run_url: str) -> str:
    """A line about the lines that a later submission will repeat."""
    from pipeline.clusters.setup import setup_file

    where = f"\nset up by      {setup_file(run_url)}   (as given by --setup; --setup /dev/null forgets it)"
    return where if lines.strip() else ""


def read_setup(path: Path) -> str:
    """The shell lines in the user's file."""
    from pipeline.errors import ConfigError

    try:
        lines = path.read_text()
    except OSError as error:
        raise ConfigError(f"--setup {path} cannot be read: {error.strerror}; name a file of shell lines") from None
    except UnicodeDecodeError:
        lines = "\0"
    if "\0" in lines:
        raise ConfigError(f"--setup {path} holds no text; name a file of shell lines, like: module load cuda")
    return lines


def queued(job: DriverJob, end: str) -> str:
    """The words of a submission that Ctrl-C came too late for. end: the command that ends the job."""
    return f"submitted to {job.cluster} as {job.id} all the same; end it with: {end}"
