"""``petaseg status``: read a running or dead run from outside."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer

from workflows.commands.options import RunArgument, SetOption, finite
from workflows.terminal.starting import starting


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog="Example: petaseg status runs/first --watch")
    def status(
        run: RunArgument = "run.yaml",
        set_: SetOption = None,
        watch: Annotated[
            bool, typer.Option("--watch", "-w", help="Show the state repeatedly until the run is complete.")
        ] = False,
        interval: Annotated[
            float,
            typer.Option(min=0.1, metavar="SECONDS", callback=finite, help="Pause between two readings, with --watch."),
        ] = 5.0,
        as_json: Annotated[
            bool, typer.Option("--json", help="Print JSON for programs; with --watch, one line for each reading.")
        ] = False,
    ) -> None:
        """Show chunks done and failed in every stage, speed, time left and cost. Exit status 0 only if all is done.

        With a run directory, and with --watch, only the run directory is read, so any machine that can read it will do.
        """
        starting(f"opening {run}")
        from pipeline.runs.status import find_run_directory
        from workflows.terminal.watch import watch as watch_run

        if watch:
            complete = watch_run(find_run_directory(run, set_ or ()), interval, as_json=as_json)
        else:
            complete = show(run, set_ or (), as_json=as_json)
        if not complete:
            raise typer.Exit(1)


def show(run: str, overrides: Sequence[str], *, as_json: bool) -> bool:
    """Print the state of a run once, and of its driver's job if it was submitted; True if the run is complete."""
    from pipeline.runs.launch import driver_of, state_of
    from pipeline.runs.status import RunWatch, open_outline
    from workflows.terminal.status import show_job, show_status

    outline = open_outline(run, overrides)
    reading, job = RunWatch(outline).read(), driver_of(outline)
    state = None if job is None else state_of(job)
    if as_json:
        submitted = None if job is None or state is None else {**job.as_dict(), **asdict(state)}
        typer.echo(json.dumps({**reading.as_dict(), "submitted": submitted}, indent=2))
        return reading.complete
    show_status(reading)
    if job is not None and state is not None:
        show_job(job, state)
    return reading.complete
