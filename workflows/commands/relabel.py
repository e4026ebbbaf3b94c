"""``petaseg relabel``: another threshold for a finished run, in seconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from workflows.commands.options import RunArgument, SetOption, finite


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog="Example: petaseg relabel runs/first --threshold 0.4")
    def relabel(
        run: RunArgument = "run.yaml",
        threshold: Annotated[
            float | None,
            typer.Option(min=0, max=1, callback=finite, help="Regions that score at least this are merged."),
        ] = None,
        min_size: Annotated[int | None, typer.Option(min=0, help="Smaller pieces follow their next merge.")] = None,
        set_: SetOption = None,
        quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress display.")] = False,
    ) -> None:
        """Cut the stored merge tree elsewhere and write the labels again; no network, no supervoxels."""
        from pipeline.runs.report import write_report
        from workflows.driver import run_with_progress
        from workflows.terminal.tables import report_table

        overrides = list(set_ or ())
        overrides += [] if threshold is None else [f"segmentation.threshold={threshold}"]
        overrides += [] if min_size is None else [f"segmentation.min_size={min_size}"]
        remember(run, overrides)
        session = run_with_progress(run, overrides, quiet=quiet, only_after="agglomerate")
        report = write_report(session.run)
        if not quiet:
            report_table(session.run, report)


def remember(run: str, overrides: Sequence[str]) -> None:
    """Record in the run directory what of the table ``segmentation`` holds from now on.

    Raises ``ConfigError`` if there is nothing to relabel, and ``LeaseError`` if another driver works on the run.
    """
    from pipeline.runs.lease import Lease
    from pipeline.runs.run import Run
    from workflows.driver import check_complete

    opened = Run.open(run, overrides)
    opened.check_directory()
    check_complete(opened, "agglomerate")
    with Lease(opened.store, seconds=opened.config.execution.lease_seconds):
        opened.remember()
