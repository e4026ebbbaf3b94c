"""``petaseg status``: read a running or dead run from outside."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from workflows.commands.options import RunArgument, SetOption


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog="Example: petaseg status runs/first")
    def status(
        run: RunArgument = "run.yaml",
        set_: SetOption = None,
        as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    ) -> None:
        """Show chunks done and failed in every stage. Exit status 0 only if all is done."""
        from pipeline.run import Run
        from pipeline.status import read_status
        from workflows.display import status_table

        opened = Run.open(run, set_ or ())
        stages = read_status(opened)
        if as_json:
            typer.echo(json.dumps([stage.as_dict() for stage in stages], indent=2))
        else:
            status_table(opened, stages)
        if not all(stage.complete for stage in stages):
            raise typer.Exit(1)
