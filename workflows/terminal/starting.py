"""The first line of a command that opens volumes or loads libraries, which may take seconds on a cold disk."""

from __future__ import annotations

import sys

import typer


def starting(what: str) -> None:
    """Show what a command does first, where somebody looks at a terminal; a pipe or a log gets no such line."""
    if sys.stderr.isatty():
        typer.secho(f"{what} ...", dim=True, err=True)
