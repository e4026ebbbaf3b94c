"""``petaseg edit``: corrections of the neurons of a finished run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from workflows.commands.options import RunArgument
from workflows.terminal.starting import starting

if TYPE_CHECKING:
    from pipeline.runs.editing import Change
    from pipeline.runs.edits_named import Wanted
    from pipeline.runs.run import Run

MergeOption = Annotated[
    list[str] | None,
    typer.Option("--merge", metavar="A,B", help="Two segments, or two points: 'z,y,x;z,y,x'; repeatable."),
]
SplitOption = Annotated[
    str | None, typer.Option("--split", metavar="A", help="A segment, or a point z,y,x in it; with --from and --to.")
]
FromOption = Annotated[
    str | None, typer.Option("--from", metavar="PLACES", help="Points 'z,y,x;z,y,x' or supervoxels 12;40 on a side.")
]
ToOption = Annotated[str | None, typer.Option("--to", metavar="PLACES", help="Those on the other side.")]
TableOption = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Many edits: CSV, Parquet or JSON with the columns edit, segment, from, to."),
]
StateOption = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="The lines in the layers merge and split of a saved viewer state (view.json)."),
]
UndoOption = Annotated[int | None, typer.Option(min=1, metavar="N", help="Take back the last N edits.")]
ListOption = Annotated[bool, typer.Option("--list", help="Print all edits of the run, and whether each one fits.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would change; nothing is written.")]


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog=EPILOG)
    def edit(
        run: RunArgument,
        merge: MergeOption = None,
        split: SplitOption = None,
        from_: FromOption = None,
        to: ToOption = None,
        table: TableOption = None,
        state: StateOption = None,
        undo: UndoOption = None,
        list_: ListOption = False,
        dry_run: DryRunOption = False,
        quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress display.")] = False,
    ) -> None:
        """Correct the neurons of a finished run: edits are kept in its directory, and hold at any threshold.

        Only chunks whose labels change are written. Edits are about supervoxels: docs/editing.md says what they mean.
        """
        if not quiet:
            starting(f"opening {run}")
        from pipeline.runs.run import Run
        from workflows.terminal.edits import show_change

        given = {"merge": merge, "split": split, "table": table, "state": state, "undo": undo, "list": list_}
        check_actions(**{name: bool(value) for name, value in given.items()})
        wanted = wanted_of(merge or (), split, from_, to)
        found = Run.open(run)
        wanted += edits_in(table, state, found)
        if list_:
            show_log(found)
            return
        change = planned(found, wanted, undo or 0)
        if dry_run or not quiet:
            show_change(change.foretold, is_made=not dry_run)
        if not dry_run:
            apply(run, change, found, quiet=quiet)


EPILOG = """Examples:

petaseg edit runs/first --merge 1201,48833

petaseg edit runs/first --merge '40,112,96;41,130,96' --dry-run

petaseg edit runs/first --split 1201 --from 40,112,96 --to '41,130,96;44,140,90'

petaseg edit runs/first --table edits.csv

petaseg edit runs/first --state runs/first/view.json

petaseg edit runs/first --list

petaseg edit runs/first --undo 1
"""


def check_actions(**given: bool) -> None:
    """``ConfigError`` unless one thing is asked for."""
    from pipeline.errors import ConfigError

    named = [f"--{name}" for name, is_given in given.items() if is_given]
    if len(named) != 1:
        every = ", ".join(f"--{name}" for name in given)
        raise ConfigError(f"{' and '.join(named) or 'nothing'} is given; petaseg edit takes exactly one of {every}")


def wanted_of(merge: Sequence[str], split: str | None, first: str | None, second: str | None) -> list[Wanted]:
    """The edits that the options name; ``ConfigError`` for sides of no split."""
    from pipeline.errors import ConfigError
    from pipeline.runs.edits_named import merge_of, split_of

    if split is not None:
        return [split_of(split, first, second)]
    if first is not None or second is not None:
        raise ConfigError("--from and --to are the sides of a split: name its segment with --split")
    return [merge_of(text) for text in merge]


def edits_in(table: str | None, state: str | None, found: Run) -> list[Wanted]:
    """The edits in a table or in a saved state."""
    from pipeline.runs.edit_states import edits_of_state
    from pipeline.runs.edit_tables import read_edits

    if table is not None:
        return read_edits(table)
    return [] if state is None else edits_of_state(state, found.layout.resolution_nm)


def planned(found: Run, wanted: Sequence[Wanted], undo: int) -> Change:
    """The change that the options ask for; ``ConfigError`` if the run has no finished result, or it does not fit."""
    from pipeline.runs.editing import plan_edits, plan_undo
    from workflows.driver import check_complete

    found.check_directory()
    check_complete(found, "result")
    return plan_undo(found, undo) if undo else plan_edits(found, wanted)


def apply(run: str, change: Change, found: Run, *, quiet: bool) -> None:
    """Store the log, write the labels that change, and show the report."""
    from workflows.driver import run_with_progress
    from workflows.terminal.report import report_table
    from workflows.terminal.summary import show_summary

    change.store(found)
    session = run_with_progress(run, quiet=quiet, report=True)
    if not quiet and session.report is not None:
        show_summary(session.report.summary)
        report_table(session.run, session.report)


def show_log(found: Run) -> None:
    """Print the edits of a run, and how each one fits to its result if that is complete."""
    from pipeline.runs.edit_log import read_log
    from pipeline.runs.editing import refuse_others
    from pipeline.stages.apply_edits import ApplyEdits
    from pipeline.storage import ObjectStore
    from workflows.terminal.edits import log_table

    refuse_others(found)
    stage = found.stage(ApplyEdits.name) if found.edits else None
    fits = stage.fits() if isinstance(stage, ApplyEdits) and found.is_complete(stage) else None
    log_table(read_log(ObjectStore(found.home)), fits, found)
