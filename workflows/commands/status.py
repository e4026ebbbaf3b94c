"""``petaseg status``: read a running or dead run from outside."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from workflows.commands.options import RunArgument, SetOption


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog="Example: petaseg status runs/first --watch")
    def status(
        run: RunArgument = "run.yaml",
        set_: SetOption = None,
        watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on until the run is complete.")] = False,
        interval: Annotated[
            float, typer.Option(min=0.1, metavar="SECONDS", help="Pause between two readings, with --watch.")
        ] = 5.0,
        as_json: Annotated[bool, typer.Option("--json", help="For programs; with --watch a line a reading.")] = False,
    ) -> None:
        """Show chunks done and failed in every stage, speed, time left and cost. Exit status 0 only if all is done.

        With a run directory, and with --watch, nothing else is read: any machine that sees it will do.
        """
        from pipeline.status import RunWatch, find_run_directory, open_outline
        from workflows.status_view import show_status
        from workflows.watching import watch as watch_run

        if watch:
            complete = watch_run(find_run_directory(run, set_ or ()), interval, as_json=as_json)
        else:
            reading = RunWatch(open_outline(run, set_ or ())).read()
            complete = reading.complete
            if as_json:
                typer.echo(json.dumps(reading.as_dict(), indent=2))
            else:
                show_status(reading)
        if not complete:
            raise typer.Exit(1)
