"""The list of suspects on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from workflows.terminal.tables import console, heading, say

if TYPE_CHECKING:
    from pipeline.runs.run import Run
    from pipeline.suspects.disagreement import Block
    from pipeline.suspects.listing import Suspect
    from pipeline.suspects.model import Model
    from pipeline.suspects.sections import Section
    from pipeline.suspects.tables import Tables

SHOWN = 20
OPTIONS = {"organelles": ("--set", "organelles.volumes.nuclei=VOLUME")}
"""What the command that adds a branch needs besides."""


def show_suspects(tables: Tables, suspects: Sequence[Suspect], model: Model) -> None:
    """Print the first places, and how to look at them."""
    from pipeline.suspects.listing import TABLE, look_hint

    run = tables.run
    heading(f"where {run.url} is probably wrong")
    shown = Table("rank", "kind", "place (z,y,x)", "segments", "smaller side", "probability", "minutes")
    for each in suspects[:SHOWN]:
        place, labels = ",".join(map(str, each.place)), " + ".join(map(str, each.labels))
        facts = (f"{each.smaller_voxels:,} voxels", f"{each.probability:.0%}", f"{each.minutes:.2f}")
        shown.add_row(str(each.rank), each.kind, place, labels, *facts)
    console.print(shown)
    say(f"{len(suspects):,} places   {run.home}/{TABLE}")
    _show_sources(tables)
    say(f"probabilities: {model.trained_on}")
    if suspects:
        say(f"look at one       {look_hint(run, 1)}")
    else:
        say("no place is worth a look at these costs; a lower --look lists more")


def _show_sources(tables: Tables) -> None:
    """Say which sources the places are from, and what adds the others."""
    from pipeline.suspects.candidates import SOURCES, is_used

    used = [name for name, source in SOURCES.items() if is_used(source, tables)]
    say(f"looked at: {', '.join(used)}")
    missing: dict[str, list[str]] = {}
    for name, source in SOURCES.items():
        if name not in used and source.branch is not None:
            missing.setdefault(source.branch, []).append(name)
    for branch, names in missing.items():
        say(f"for {' and '.join(names)}: {tables.run.hint('add', branch, *OPTIONS.get(branch, ()))}")


def show_sections(run: Run, sections: Sequence[Section]) -> None:
    """Print the first sections where affinities collapse, and how to look at one."""
    from pipeline.suspects.sections import TABLE

    heading("sections where affinities collapse")
    shown = Table("z", "neighbours along", "mean affinity", "around it", "spreads below")
    for each in sections[:SHOWN]:
        shown.add_row(str(each.z), each.axis, f"{each.mean:.3f}", f"{each.expected:.3f}", f"{each.spreads:.1f}")
    if sections:
        console.print(shown)
    say(f"{len(sections):,} found   {run.home}/{TABLE}")
    _show_first(run, sections)


def show_blocks(run: Run, blocks: Sequence[Block]) -> None:
    """Print the first blocks where copies disagree, and how to look at one."""
    from pipeline.suspects.disagreement import TABLE

    heading("blocks where augmented copies disagree")
    shown = Table("middle (z,y,x)", "head", "mean spread")
    for each in blocks[:SHOWN]:
        shown.add_row(f"{each.z},{each.y},{each.x}", each.head, f"{each.spread:.3f}")
    console.print(shown)
    say(f"{len(blocks):,} blocks   {run.home}/{TABLE}")
    _show_first(run, blocks)


def _show_first(run: Run, places: Sequence[Section | Block]) -> None:
    """The command that opens the viewer at the first of some places."""
    for first in places[:1]:
        say(f"look at one       {run.hint('view', '--at', f'{first.z},{first.y},{first.x}')}")
