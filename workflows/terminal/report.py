"""The report of a finished run on the terminal: its scores, and the places of its result and pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workflows.terminal.scores import result_table
from workflows.terminal.tables import say, scores_table

if TYPE_CHECKING:
    from pipeline.evaluation.object_sweep_plot import Line
    from pipeline.runs.report import Report
    from pipeline.runs.run import Run


def report_table(run: Run, report: Report) -> None:
    """Print scores of a run, if there is ground truth, and the paths of its pictures."""
    from pipeline.evaluation.scores import Scores

    title = "against ground truth" + (f", threshold {run.threshold:g}" if run.kind.can_be_cut else "")
    if isinstance(report.scores, Scores):
        scores_table(report.scores, report.run_length, title)
    elif report.scores is not None:
        result_table(report.scores, title, distances=False)
    if report.best is not None:
        point, chosen = report.best, f"{report.best.threshold:.3g}"
        apply = "in use" if f"{run.threshold:.3g}" == chosen else run.relabel_hint("--threshold", chosen)
        say(f"best threshold    {chosen}: VOI {point.scores.voi:.3f} ({apply})")
    for line in report.lines:
        _show_line(run, line)
    places = {run.kind.name: run.result_url, "picture": report.picture, "sweep": report.sweep_picture}
    places["over IoU"] = report.iou_picture
    for name, place in places.items():
        if place:
            say(f"{name:<18}{place}")


def _show_line(run: Run, line: Line) -> None:
    """Name the best threshold of a mask or of objects, and the command that applies it."""
    from pipeline.evaluation.object_sweep_plot import MEASURES, WORDS

    best, options = line.best, {"threshold": ("--threshold", "{:g}")}
    option, form = options.get(line.key, ("--set", f"segmentation.{line.key}={{:g}}"))
    apply = "in use" if line.is_best else run.relabel_hint(option, form.format(best.value))
    say(f"best {WORDS[line.key]}: {best.value:g}, {MEASURES[line.measure]} {line.score(best):.3f} ({apply})")
