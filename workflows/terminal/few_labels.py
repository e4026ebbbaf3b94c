"""What self-training and suggestions have found, on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

from pipeline.runs.hints import command
from workflows.terminal.tables import console, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.few_labels.rounds import SelfTraining
    from pipeline.few_labels.suggestion import Suggestion
    from pipeline.few_labels.suggestions import Wanted


def show_rounds(plan: SelfTraining, lines: list[dict[str, Any]]) -> None:
    """Print the scores of every round on the validation part, and which model was stored."""
    from pipeline.few_labels.self_training import best_of

    names = [name for name in dict.fromkeys(key for line in lines for key in line) if name != "model"]
    table = Table(box=None)
    for name in names:
        table.add_column(name, justify="right")
    for line in lines:
        table.add_row(*(shown(line.get(name)) for name in names))
    console.print(table)
    best = best_of(plan, lines)["round"]
    held = f"the model of round {best}" if best else "the first model, since no later one has a better score"
    say(f"{plan.output} holds {held}")
    say(f"next: {command('init', 'run.yaml', (), '--image', 'IMAGE', '--model', str(plan.output))}")


def show_suggestions(wanted: Wanted, found: Sequence[Suggestion]) -> None:
    """Print the boxes in order, and what to do with their crops."""
    table = Table(box=None)
    for name in ("box", "from z, y, x", "unsure", "entropy", "cluster", "group"):
        table.add_column(name, justify="right")
    for each in found:
        place = ", ".join(map(str, each.box.start))
        table.add_row(
            *(each.name, place, f"{each.unsure:.3f}", f"{each.entropy:.3f}"), str(each.cluster), str(each.group)
        )
    console.print(table)
    folder = wanted.output
    say(f"look at {folder}/sheet.png; paint labels.zarr of each box there over its image.zarr; then add the lines")
    say(f"of {folder}/volumes.yaml to `volumes` in the training file, and train under another output")


def shown(value: Any) -> str:
    """A number of the table; empty if there is none."""
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
