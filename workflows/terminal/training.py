"""The line that shows a training while it runs: loss, validation, updates a second, time left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

from workflows.terminal.tables import human_seconds, progress_console

if TYPE_CHECKING:  # lightning takes seconds to import
    from pipeline.training.callbacks import Update


class Pace:
    """Updates a second since this call began, without those of earlier calls."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._first: tuple[float, int] | None = None

    def of(self, done: int) -> float | None:
        """Updates a second; ``None`` at the first report."""
        now = self.clock()
        if self._first is None:
            self._first = now, done
        began, first = self._first
        return (done - first) / (now - began) if done > first and now > began else None


def described(update: Update, pace: float | None) -> str:
    """``loss 0.412, validation loss 0.388, score 0.871 (best 0.880), 3.1 updates/s, 12 min 4 s left``."""
    parts = [f"loss {update.loss:.4g}"]
    if update.validation is not None and update.best is not None:
        best = "" if update.best is update.validation else f" (best {update.best.score:.4f})"
        parts += [f"validation loss {update.validation.validation_loss:.4g}"]
        parts += [f"score {update.validation.score:.4f}{best}"]
    if pace is not None:
        left = (update.total - update.done) / pace
        parts += [f"{pace:.3g} updates/s", f"{human_seconds(left)} left" if left else "done"]
    return ", ".join(parts)


@contextmanager
def training_line() -> Iterator[Callable[[Update], None]]:
    """Show each update on one line of the terminal; where there is none, print a line for each validation."""
    pace = Pace()
    if not progress_console.is_terminal:
        shown: list[int] = []

        def tell(update: Update) -> None:
            rate = pace.of(update.done)
            if update.validation is not None and update.validation.step not in shown:
                shown.append(update.validation.step)
                text = f"update {update.validation.step} of {update.total}: {described(update, rate)}"
                progress_console.print(text, highlight=False, soft_wrap=True)

        yield tell
        return
    columns = (SpinnerColumn(), TextColumn("train"), BarColumn(bar_width=20), MofNCompleteColumn())
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=progress_console) as progress:
        task = progress.add_task("train", total=None, note="")

        def show(update: Update) -> None:
            note = described(update, pace.of(update.done))
            progress.update(task, completed=update.done, total=update.total, note=note)

        yield show
