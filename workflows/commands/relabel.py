"""``petaseg relabel``: another threshold for a finished run, from its merge tree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from workflows.commands.options import RunArgument, SetOption, beside_sets, finite
from workflows.terminal.starting import starting

ThresholdOption = Annotated[
    float | None,
    typer.Option(
        min=-1,
        max=1,
        callback=finite,
        help="Regions that score at least this are merged; of a mask and objects: voxels above it are inside.",
    ),
]
MinSizeOption = Annotated[
    int | None,
    typer.Option(min=0, help="Smaller pieces follow their next merge; of a mask and objects, they are left out."),
]
PreviewOption = Annotated[
    str | None,
    typer.Option(metavar="T,T,...", help="Say what these thresholds would give; nothing is written."),
]
OutputOption = Annotated[
    str | None,
    typer.Option(metavar="NAME.zarr", help="Write a second segmentation beside the first, in the run directory."),
]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress display.")]


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog=EPILOG)
    def relabel(
        run: RunArgument = "run.yaml",
        threshold: ThresholdOption = None,
        min_size: MinSizeOption = None,
        preview: PreviewOption = None,
        output: OutputOption = None,
        set_: SetOption = None,
        quiet: QuietOption = False,
    ) -> None:
        """Cut the stored merge tree, or the tables of a mask or of objects, elsewhere and write the voxels that change.

        No network, no supervoxels and no basins are computed.

        What is applied holds in every later command, until the run file itself says another value than it does now.
        """
        if not quiet:
            starting(f"opening {run}")
        values = [
            ("--threshold", "segmentation.threshold", threshold),
            ("--min-size", "segmentation.min_size", min_size),
        ]
        overrides = beside_sets(set_, values)
        if preview is None:
            apply(run, overrides, output=output, quiet=quiet)
            return
        _refuse_beside_preview(threshold=threshold, output=output)
        show_preview(run, overrides, preview)


EPILOG = """Examples:

petaseg relabel runs/first --preview 0.3,0.4,0.5

petaseg relabel runs/first --threshold 0.4

petaseg relabel runs/first --threshold 0.3 --output labels_03.zarr

petaseg relabel runs/mitochondria --set segmentation.seed_threshold=0.9

petaseg relabel runs/mitochondria --preview 0.5,0.6 --set segmentation.seed_threshold=0.9
"""


def _refuse_beside_preview(**given: object) -> None:
    """``ConfigError`` for an option that a preview would not use."""
    from pipeline.errors import ConfigError

    for name, value in given.items():
        if value is not None:
            raise ConfigError(
                f"--{name} is {value}, which --preview does not use, since it writes nothing: leave one out"
            )


def apply(run: str, overrides: Sequence[str], *, output: str | None, quiet: bool) -> None:
    """Write the voxels that change, into the run's result or into a volume ``output`` beside it, and show the report.

    Raises what ``remember`` does.
    """
    from pipeline.runs.beside import name_of
    from workflows.driver import run_with_progress
    from workflows.terminal.report import report_table
    from workflows.terminal.summary import show_summary

    beside = "" if output is None else name_of(output)
    if not beside:
        remember(run, overrides)
    session = run_with_progress(run, overrides, quiet=quiet, only_after="tables", report=True, beside=beside)
    if not quiet and session.report is not None:
        show_summary(session.report.summary)
        report_table(session.run, session.report)


def remember(run: str, overrides: Sequence[str]) -> None:
    """Record in the run directory what of the table ``segmentation`` holds from now on.

    Raises ``ConfigError`` if there is nothing to relabel, and ``LeaseError`` if another driver works on the run.
    """
    from pipeline.runs.lease import Lease
    from pipeline.runs.run import Run
    from workflows.driver import check_complete

    opened = Run.open(run, overrides)
    opened.check_directory()
    check_complete(opened, "tables")
    with Lease(opened.store, seconds=opened.config.execution.lease_seconds):
        opened.remember()


def show_preview(run: str, overrides: Sequence[str], text: str) -> None:
    """Print what thresholds would give; ``ConfigError`` if the run has no finished tables."""
    from pipeline.runs import preview
    from pipeline.runs.run import Run
    from workflows.driver import check_complete
    from workflows.terminal.summary import preview_table
    from workflows.terminal.tables import heading, say

    opened = Run.open(run, overrides)
    is_signed = opened.landscape is not None and opened.landscape.head.is_signed
    thresholds = parse_thresholds(text, lowest=-1 if is_signed else 0)
    check_complete(opened, "tables")
    heading(f"preview of {opened.url}; nothing is written; the threshold now: {opened.chosen}")
    found = preview.preview(opened, thresholds)
    preview_table(found)
    others = [each.threshold for each in found if not each.is_present]
    if others:
        say(f"apply one with: {opened.relabel_hint('--threshold', f'{others[0]:g}')}")


def parse_thresholds(text: str, lowest: int = 0) -> list[float]:
    """Thresholds out of ``0.3,0.4``, ascending and each once; ``ConfigError`` unless they are from ``lowest`` to 1."""
    from pipeline.config.base import finite_number
    from pipeline.errors import ConfigError

    found = sorted({finite_number(part.strip()) for part in text.split(",")})
    if not all(lowest <= value <= 1 for value in found):
        raise ConfigError(f"--preview is {text[:80]!r}; give thresholds from {lowest} to 1, like --preview 0.3,0.4,0.5")
    return found
