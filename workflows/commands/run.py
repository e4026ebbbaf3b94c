"""``petaseg run``: compute a run, or continue it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.clusters import CLUSTERS, make_cluster
from workflows.commands.options import OverwriteOption, RunArgument, SetOption
from workflows.terminal.starting import starting

if TYPE_CHECKING:
    from pipeline.runs.run import Run

ON = " or ".join(CLUSTERS)


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
        on: Annotated[
            str | None,
            typer.Option("--on", metavar="CLUSTER", help=f"Start the workers on {ON}; this process is their driver."),
        ] = None,
        overwrite: OverwriteOption = False,
        quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress display.")] = False,
    ) -> None:
        """Segment: compute what is missing, chunk by chunk. Run it again after any interruption."""
        if on is not None:
            make_cluster(on)  # it refuses other names, also where nothing is left to compute
        if not quiet:
            starting(f"opening {run}")
        from pipeline.runs.run import Run
        from pipeline.runs.status import read_status
        from pipeline.runs.unused import unused_keys
        from workflows.central import check_scheduler
        from workflows.driver import run_with_progress
        from workflows.terminal.summary import show_summary
        from workflows.terminal.tables import outdated_note, report_table, run_table, say

        overrides = tuple(set_ or ())
        if dry_run:
            opened = Run.open(run, overrides)
            unused = unused_keys(opened, on)
            if luigid is not None:
                check_scheduler(luigid)
            refused = _other_input(opened, overwrite)
            opened.check_model()
            stages = ", ".join(stage.name for stage in opened.stages)
            outdated_note(read_status(opened))
            say(f"{run} is sound. It would run: {stages}\n{_uses(opened)}what it will cost: {opened.hint('plan')}")
            for each in unused:
                say(str(each))
            if refused:
                say(f"but not now: {refused}")
            return
        session = run_with_progress(
            run, overrides, quiet=quiet, scheduler_url=luigid, cluster=on, overwrite=overwrite, report=True
        )
        if not quiet and session.report is not None:
            run_table(session)
            show_summary(session.report.summary)
            report_table(session.run, session.report)


def _uses(run: Run) -> str:
    """A line about the heads of the model: what is stored, and what else a run could make of them."""
    from pipeline.models.heads import heads_of, uses

    network = run.inputs.network
    if network is None:
        return ""
    stored = ", ".join(run.inputs.heads)
    return f"it would store {stored}; a run can make of this model: {uses(heads_of(network.card))}\n"


def _other_input(run: Run, overwrite: bool) -> str | None:
    """Why the run directory would be refused now, if it holds another input's results: no fault of the run file."""
    from pipeline.runs.directory import OtherInputError

    try:
        run.check_directory(overwrite=overwrite)
    except OtherInputError as error:
        return str(error)
    return None
