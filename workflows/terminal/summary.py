"""The summary of a segmentation, and previews of others, on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from pipeline.runs.results import KINDS
from workflows.terminal.tables import console, heading, say

if TYPE_CHECKING:
    from pipeline.runs.class_summary import ClassSummary
    from pipeline.runs.preview import Preview
    from pipeline.runs.report import AnySummary
    from pipeline.runs.summary import Summary

NAMED = 3
"""The number of largest segments that are listed."""

UNITS = {"mm3": 1e9, "um3": 1.0, "nm3": 1e-9}
"""Units of volumes, in cubic micrometres, the largest first."""


def show_summary(summary: AnySummary) -> None:
    """Print a result in numbers, and what is implausible about it."""
    from pipeline.runs.summary import Summary

    if isinstance(summary, Summary):
        _show_segments(summary)
    else:
        _show_classes(summary)
    for warning in summary.warnings:
        say(f"implausible: {warning}", "yellow")


def _show_classes(summary: ClassSummary) -> None:
    """The voxels of each class."""
    heading(f"class map: {summary.found} of {len(summary.classes)} {KINDS[summary.kind].count}")
    table = Table("class", "voxels", "share", "volume")
    for number, voxels in enumerate(summary.classes):
        table.add_row(f"{number}", f"{voxels:,}", f"{summary.share(number):.1%}", volume(voxels, summary.voxel_um3))
    console.print(table)
    if summary.masked:
        say(f"{'masked':<18}{summary.masked:,} voxels, stored as 0 and counted in no class")


def _show_segments(summary: Summary) -> None:
    """Numbers and sizes; pieces of a mask have no labels."""
    um3, unlabelled = summary.voxel_um3, summary.voxels - summary.labelled
    heading("given labels" if summary.threshold is None else f"threshold {summary.threshold}")
    kind = KINDS[summary.kind]
    lines = {kind.count: f"{summary.segments:,}, together {summary.labelled:,} voxels, {volume(summary.labelled, um3)}"}
    if summary.largest:
        labels = {label: "" if summary.kind == "mask" else f" (label {label})" for label, _ in summary.largest[:NAMED]}
        lines["largest"] = "; ".join(size(voxels, um3) + labels[label] for label, voxels in summary.largest[:NAMED])
        lines["median"] = f"about {size(summary.median, um3)}; half of the volume: {size(summary.half, um3)} or more"
    share = unlabelled / summary.voxels if summary.voxels else 0.0
    masked = "; a mask excludes some" if summary.masked is None else f"; {summary.masked:,} of them masked"
    lines["outside" if summary.kind == "mask" else "without label"] = (
        f"{unlabelled:,} voxels, {share:.1%}{masked if summary.masked != 0 else ''}"
    )
    for name, text in lines.items():
        say(f"{name:<18}{text}")


def size(voxels: int, um3: float) -> str:
    """A size for people: voxels, and the volume."""
    return f"{voxels:,} voxels, {volume(voxels, um3)}"


def volume(voxels: int, um3: float) -> str:
    """A volume for people, in nm3, um3 or mm3: the largest unit of which there is at least a thousandth."""
    unit, number = next(
        (unit, voxels * um3 / size) for unit, size in UNITS.items() if voxels * um3 >= size / 1000 or unit == "nm3"
    )
    return f"{number:,.3g} {unit}" if number < 1000 else f"{number:,.0f} {unit}"


def preview_table(previews: Sequence[Preview]) -> None:
    """Print what each threshold would give; a row is marked if that is what the voxels are."""
    words = KINDS[previews[0].summary.kind].words
    table = Table("threshold", words, "largest (voxels)", "share", "median", "specks", "chunks to write")
    for each in previews:
        found = each.summary
        largest = found.largest[0][1] if found.largest else 0
        written = "none: as it is" if each.is_present else f"{each.rewritten:,} of {each.chunks:,}"
        cells = (f"{largest:,}", f"{largest / max(1, found.labelled):.1%}", f"{found.median:,}", f"{found.specks:,}")
        table.add_row(f"{each.threshold:g}", f"{found.segments:,}", *cells, written)
    console.print(table)
