"""Edits of a run on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from pipeline.errors import counted
from pipeline.segmentation.edits import Fit
from workflows.terminal.tables import console, heading, say

if TYPE_CHECKING:
    from pipeline.runs.edit_log import EditLog
    from pipeline.runs.editing import Foretold
    from pipeline.runs.run import Run

NAMED = 10
"""The number of segments that are listed."""
FITS = {
    Fit.APPLIED: "applied",
    Fit.HELD: "holds without it",
    Fit.PARTLY: "applied, but some supervoxels are not there",
    Fit.MISSING: "left out: a supervoxel is not there",
}
"""How an edit fits, in words."""


def show_change(foretold: Foretold, *, is_made: bool) -> None:
    """Print the segments that change, before and after."""
    heading("this changes" if is_made else "this would change; nothing is written")
    for name, segments in (("before", foretold.before), ("after", foretold.after)):
        more = "" if len(segments) <= NAMED else f"; and {len(segments) - NAMED:,} more"
        listed = "; ".join(f"{label} ({voxels:,} voxels)" for label, voxels in segments[:NAMED])
        say(f"{name:<8}{listed or 'nothing'}{more}")


def log_table(log: EditLog, fits: Sequence[Fit] | None, run: Run) -> None:
    """Print all edits; fits: how each fits to the result, or ``None`` if that is not complete."""
    heading(f"{counted(len(log.entries), 'edit')} of {run.home}")
    if not log.entries:
        return
    table = Table("edit", "kind", "supervoxels", "and", "made", "at this threshold")
    states = ["not known yet"] * len(log.entries) if fits is None else [FITS[fit] for fit in fits]
    for number, (entry, state) in enumerate(zip(log.entries, states, strict=True), start=1):
        sides = (", ".join(map(str, side)) for side in (entry.edit.first, entry.edit.second))
        table.add_row(str(number), entry.edit.kind, *sides, entry.time, state)
    console.print(table)
    if fits is None:
        say(f"the result is not complete; compute it with: {run.command}")
