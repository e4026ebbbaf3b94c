"""The log of a run for people, written to its directory and not to the terminal.

<run>/petaseg.log                                on a file system, each line at once
<run>/logs/20260131T235959Z-4711-000007.log      in a bucket: the messages of some seconds, by start and process

The driver of a cluster also writes it to its standard error, where ``petaseg logs`` looks.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import ConfigError
from pipeline.runs.launch import RunPlace
from pipeline.runs.run import Run
from pipeline.storage import ObjectStore
from workflows.events.line_writer import SegmentWriter

LEVELS = {"petaseg": logging.INFO, "luigi": logging.WARNING, "luigi-interface": logging.WARNING}
FILE, FOLDER = "petaseg.log", "logs"


class RunLog(logging.FileHandler):
    """Writes log messages to a file; a full disk ends in a line on standard error, and not the run."""

    told = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (as in logging)
        """Print one line for all errors, and not a traceback for each message."""
        self._tell(sys.exc_info()[1])

    def close(self) -> None:
        """Close the file; an error is printed as one line."""
        try:
            super().close()
        except OSError as error:
            self._tell(error)

    def _tell(self, error: BaseException | None) -> None:
        if not self.told:
            sys.stderr.write(f"petaseg: messages are missing in {self.baseFilename}: {error}\n")
        self.told = True


class BucketHandler(logging.Handler):
    """Writes log messages as objects; a store that fails ends in a line on standard error, and not the run."""

    def __init__(self, store: ObjectStore) -> None:
        super().__init__()
        self.writer = SegmentWriter(store, FOLDER, ".log")

    def emit(self, record: logging.LogRecord) -> None:
        """Write one message."""
        try:
            self.writer.write(self.format(record).encode() + b"\n")
        except Exception:  # as in every handler: a failure to log must not end the program
            self.handleError(record)

    def close(self) -> None:
        """Store the remaining lines."""
        self.writer.close()
        if self.writer.problem is not None:
            sys.stderr.write(f"petaseg: the end of the log is lost: {self.writer.problem}\n")
        super().close()


def log_place(run: Run) -> str:
    """The place of a run's log: a file in its directory, or a folder of segments in a bucket."""
    return f"{run.url}/{FILE if run.store.local_path else FOLDER}"


def stored_lines(run: RunPlace, workers: bool = False) -> Iterator[str]:
    """The log of a run in its directory, line by line; ``ConfigError`` if there is none, or none of the workers."""
    if workers:
        raise ConfigError(
            f"the workers of {run.source} write no logs: it was not submitted to a cluster; leave --workers out"
        )
    keys = [FILE] if run.store.local_path else run.store.list(f"{FOLDER}/")
    logs = [log for log in map(run.store.get_or_none, keys) if log is not None]
    if not logs:
        raise ConfigError(f"{run.store.url} has no log yet; `{run.hint('run')}` begins one")
    return (line for log in logs for line in log.decode(errors="replace").splitlines())


@contextmanager
def logging_to_file(run: Run, *, aloud: bool = False) -> Iterator[str]:
    """Append the messages of petaseg and Luigi to the log of a run while the context is open.

    aloud: write them to standard error too.
    """
    folder = run.store.local_path
    kept = RunLog(folder / FILE, encoding="utf-8") if folder else BucketHandler(run.store)
    handlers: list[logging.Handler] = [kept, *([logging.StreamHandler()] if aloud else [])]
    loggers = [logging.getLogger(name) for name in LEVELS]
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    for logger in loggers:
        logger.setLevel(LEVELS[logger.name])
        logger.propagate = False
        for handler in handlers:
            logger.addHandler(handler)
    try:
        yield log_place(run)
    finally:
        for handler in handlers:
            for logger in loggers:
                logger.removeHandler(handler)
            handler.close()
