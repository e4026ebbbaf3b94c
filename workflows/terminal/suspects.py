"""The list of suspects on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from workflows.terminal.tables import console, heading, say

if TYPE_CHECKING:
    from pipeline.runs.run import Run
    from pipeline.suspects.listing import Suspect
    from pipeline.suspects.model import Model

SHOWN = 20


def show_suspects(run: Run, suspects: Sequence[Suspect], model: Model) -> None:
    """Print the first places, and how to look at them."""
    from pipeline.suspects.candidates import SOURCES, is_used
    from pipeline.suspects.listing import TABLE, look_hint

    heading(f"where {run.url} is probably wrong")
    table = Table("rank", "kind", "place (z,y,x)", "segments", "smaller side", "probability", "minutes")
    for each in suspects[:SHOWN]:
        place, labels = ",".join(map(str, each.place)), " + ".join(map(str, each.labels))
        facts = (f"{each.smaller_voxels:,} voxels", f"{each.probability:.0%}", f"{each.minutes:.2f}")
        table.add_row(str(each.rank), each.kind, place, labels, *facts)
    console.print(table)
    say(f"{len(suspects):,} places   {run.home}/{TABLE}")
    say(f"looked at        {', '.join(name for name, source in SOURCES.items() if is_used(source, run))}")
    for branch, names in missing(run).items():
        say(f"for {' and '.join(names)}: {run.hint('add', branch)}")
    say(f"probabilities: {model.trained_on}")
    if suspects:
        say(f"look at one       {look_hint(run, 1)}")
    else:
        say("no place is worth a look at these costs; a lower --look lists more")


def missing(run: Run) -> dict[str, list[str]]:
    """Each branch that the run does not have, with the sources that read it."""
    from pipeline.suspects.candidates import SOURCES, is_used

    found: dict[str, list[str]] = {}
    for name, source in SOURCES.items():
        if source.branch is not None and not is_used(source, run):
            found.setdefault(source.branch, []).append(name)
    return found
