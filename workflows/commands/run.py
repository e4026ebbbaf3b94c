"""``petaseg run``: run a whole run, or go on with it."""

from __future__ import annotations

from typing import Annotated

import typer

from workflows.commands.options import RunArgument, SetOption


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog="Example: petaseg run run.yaml --set execution.workers=4")
    def run(
        run: RunArgument = "run.yaml",
        set_: SetOption = None,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, compute nothing.")] = False,
        luigid: Annotated[
            str | None, typer.Option(metavar="URL", help="Central Luigi scheduler that shows the stages.")
        ] = None,
        quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress display.")] = False,
    ) -> None:
        """Segment: compute what is missing, chunk by chunk. Run it again after any interruption."""
        from workflows.session import segment

        segment(run, tuple(set_ or ()), dry_run=dry_run, scheduler_url=luigid, quiet=quiet)
