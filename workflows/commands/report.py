"""``petaseg report``: one page about a finished run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pipeline.runs.run import Run
    from pipeline.viewing.report_page import Page

from workflows.commands.options import RunArgument, SetOption
from workflows.terminal.starting import starting


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog="Example: petaseg report runs/first --strict")
    def report(
        run: RunArgument = "run.yaml",
        strict: Annotated[bool, typer.Option("--strict", help="Exit status 1 if a face between chunks shows.")] = False,
        set_: SetOption = None,
    ) -> None:
        """Write one HTML page about a finished run, with all pictures inside, and test whether faces of chunks show.

        It holds the result in numbers, three directions at three places, scores if there is ground truth, the seam
        test, sizes, the largest in 3D if the run has meshes, stages, times of chunks, and what was run.
        """
        starting(f"opening {run}")
        from pipeline.errors import ConfigError
        from pipeline.runs.run import Run
        from workflows.terminal.tables import say

        opened = Run.open(run, set_ or ())
        missing = [stage.name for stage in opened.stages if not opened.is_complete(stage)]
        if missing:
            raise ConfigError(f"{run} has no finished {', '.join(missing)}; finish it first: {opened.command}")
        starting("drawing")
        page = page_of(opened)
        for test in page.seams:
            for face, deviations in test.seams:
                say(f"seam: {test.volume} at {face}, {test.number} off by {deviations:g} deviations", "yellow")
        say(f"report            {page.place}")
        if strict and not page.passed:
            raise typer.Exit(1)


def page_of(run: Run) -> Page:
    """Write the page of a finished run, while no driver works on it."""
    from pipeline.runs.lease import Lease
    from pipeline.viewing.report_page import write_page

    with Lease(run.store, seconds=run.config.execution.lease_seconds):
        return write_page(run)
