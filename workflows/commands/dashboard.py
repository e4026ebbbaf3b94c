"""``petaseg dashboard``: a live page of a run."""

from __future__ import annotations

from typing import Annotated

import typer

from workflows.commands.options import RunArgument
from workflows.commands.view import BrowserOption, stay


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog="Example: petaseg dashboard runs/first")
    def dashboard(
        run: RunArgument = "run.yaml",
        port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 for any free one.")] = 0,
        browser: BrowserOption = True,
    ) -> None:
        """Show a live page of a run, until Ctrl-C: stages, chunks as a map, failures with their traceback, time left.

        Only the run directory is read, and nothing is written, so the run may be on another machine, or dead.
        """
        from pipeline.errors import ConfigError
        from pipeline.runs.outline import read_outline
        from pipeline.runs.status import RunWatch, find_run_directory
        from pipeline.viewing.dashboard import Dashboard
        from pipeline.viewing.loopback import answering

        store = find_run_directory(run)
        outline = read_outline(store)
        if outline is None:
            raise ConfigError(f"{store.url} is no run directory, or its run has not begun; name one that has")
        with answering(Dashboard(RunWatch(outline)).find, port) as server:
            stay(f"{server.url}/", browser)
