"""Quiet logs: what a run did goes to ``petaseg.log`` in its directory, not to the terminal.

The driver of a cluster also writes it to its standard error, where `petaseg logs` looks.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.run import Run

LEVELS = {"petaseg": logging.INFO, "luigi": logging.WARNING, "luigi-interface": logging.WARNING}


def log_file(run: Run) -> Path:
    """Where the log of a run goes: its directory, or the current folder if that is remote."""
    return Path(run.url) / "petaseg.log" if run.store.local_path else Path("petaseg.log")


@contextmanager
def logging_to_file(run: Run, *, aloud: bool = False) -> Iterator[Path]:
    """Append the messages of petaseg and Luigi to the log of a run while the context is open.

    aloud: write them to standard error too.
    """
    path = log_file(run)
    handlers = [logging.FileHandler(path, encoding="utf-8"), *([logging.StreamHandler()] if aloud else [])]
    loggers = [logging.getLogger(name) for name in LEVELS]
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    for logger in loggers:
        logger.setLevel(LEVELS[logger.name])
        logger.propagate = False
        for handler in handlers:
            logger.addHandler(handler)
    try:
        yield path
    finally:
        for handler in handlers:
            for logger in loggers:
                logger.removeHandler(handler)
            handler.close()
