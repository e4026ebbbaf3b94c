"""``petaseg experiment``: the experiments of docs/experiments, each with table and plot."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from workflows.commands.options import finite

EPILOG = """Examples:

petaseg experiment --list

petaseg experiment steps --output experiments

petaseg experiment stability --output experiments --seeds 0,1 --full

petaseg experiment rignet-gates --output tried --seeds 0 --full --one-update

A command that was stopped goes on where it was. Experiments with the same output share their trials."""


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog=EPILOG)
    def experiment(
        name: Annotated[str | None, typer.Argument(help="Name of the experiment; see --list.")] = None,
        output: Annotated[
            Path | None, typer.Option(metavar="DIR", help="Writes DIR/NAME; trials are kept in DIR/trials.")
        ] = None,
        full: Annotated[bool, typer.Option("--full", help="Use larger sizes, for a GPU.")] = False,
        seeds: Annotated[
            str | None,
            typer.Option(metavar="0,1,2", help="Seeds of the trainings; 0,1,2 by default, and 0 for comparison."),
        ] = None,
        minutes: Annotated[
            float | None,
            typer.Option(
                min=0.01,
                callback=finite,
                help="Minutes of each training; only for comparison, which trains for equal times.",
            ),
        ] = None,
        one_update: Annotated[
            bool,
            typer.Option("--one-update", help="One update of each training, on few data: tries if it can be computed."),
        ] = False,
        list_: Annotated[bool, typer.Option("--list", help="List the experiments and exit.")] = False,
    ) -> None:
        """Run an experiment with networks and learning rules: trials that are kept, a table, a plot."""
        from pipeline.experiments import EXPERIMENTS

        if list_ or name is None:
            for each, (_, title) in EXPERIMENTS.items():
                typer.echo(f"{each:<20} {title}")
            return
        _run(name, output, full, seeds, minutes, one_update)


def _run(
    name: str, output: Path | None, full: bool, seeds: str | None, minutes: float | None, one_update: bool
) -> None:
    """Run an experiment, print a line for each trial, and then the results."""
    from pipeline.errors import ConfigError
    from pipeline.experiments.base import Scale, find_experiment, run_experiment

    found = find_experiment(name)
    scale = Scale(full, found.seeds if seeds is None else _parsed(seeds), minutes, one_update=one_update)
    if output is None:
        raise ConfigError(f"experiment {name} needs a folder for its result: give --output DIR")
    folder = run_experiment(found, output, scale, typer.echo)
    typer.echo(f"\n{(folder / 'table.md').read_text()}\n{folder}")


def _parsed(seeds: str) -> tuple[int, ...]:
    """Whole numbers out of ``0,1,2``."""
    from pipeline.errors import ConfigError

    parts = seeds.replace(",", " ").split()
    if not parts or not all(part.isascii() and part.isdecimal() and len(part) < 10 for part in parts):
        raise ConfigError(f"--seeds is {seeds[:80]!r}; it must be whole numbers from 0, for example --seeds 0,1,2")
    return tuple(map(int, parts))
