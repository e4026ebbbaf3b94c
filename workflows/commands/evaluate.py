"""``petaseg evaluate``: scores of any two volumes, or of a run with its threshold sweep."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from pipeline.errors import ConfigError
from workflows.commands.options import BoxOption, SetOption, parse_box

EPILOG = """Examples:

petaseg evaluate truth.zarr labels.zarr --box 185:250,0:250,0:250

petaseg evaluate run.yaml --set evaluation.labels=truth.zarr"""


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog=EPILOG)
    def evaluate(
        truth: Annotated[str, typer.Argument(metavar="TRUTH|RUN", help="Volume of true labels, or a run.")],
        labels: Annotated[
            str | None, typer.Argument(metavar="LABELS", help="Volume of labels to score; none for a run.")
        ] = None,
        box: BoxOption = None,
        skeletons: Annotated[str | None, typer.Option(help="Skeletons (npz) for the expected run length.")] = None,
        as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
        set_: SetOption = None,
    ) -> None:
        """Score labels against ground truth: VOI, adapted Rand error, neurons found, expected run length.

        With one argument, a finished run is scored against its ground truth, and all thresholds are tried.
        """
        if labels is None:
            _evaluate_run(truth, [*(set_ or ()), *_as_overrides(box, skeletons)], as_json)
            return
        if set_:
            raise ConfigError(
                f"--set {set_[0]!r} is for a run; two volumes have no run file: choose a part with --box, and lines "
                "with --skeletons"
            )
        _evaluate_volumes(truth, labels, box, skeletons, as_json)


def _as_overrides(box: str | None, skeletons: str | None) -> list[str]:
    """The options as keys of a run file; a path of skeletons counts from here, not from the run file's folder."""
    from pipeline.config.strict_yaml import quoted
    from pipeline.storage import absolute

    part = parse_box(box)
    ends = [] if part is None else [("start", list(part.start)), ("stop", list(part.stop))]
    lines = [] if skeletons is None else [f"evaluation.skeletons={quoted(absolute(skeletons, '.'))}"]
    return [*(f"evaluation.{name}={list(map(int, place))}" for name, place in ends), *lines]


def _evaluate_volumes(truth: str, labels: str, box: str | None, skeletons: str | None, as_json: bool) -> None:
    from pipeline.evaluation.compare import compare_volumes
    from pipeline.runs.origin import require_finished
    from workflows.terminal.tables import bar, scores_table

    require_finished(truth)
    require_finished(labels)
    with bar("evaluate") as advance:
        found = compare_volumes(truth, labels, parse_box(box), skeletons=skeletons, on_progress=advance)
    if as_json:
        typer.echo(json.dumps(found.scores.to_dict(), indent=2))
    else:
        scores_table(found.scores, found.run_length, f"{labels} against {truth}, {found.box}")


def _evaluate_run(run: str, overrides: list[str], as_json: bool) -> None:
    from workflows.driver import segment
    from workflows.terminal.tables import report_table

    session = segment(run, overrides, only_after="relabel", report=True)
    report = session.report
    if session.run.inputs.truth is None or report is None:
        raise ConfigError(f"{run} names no ground truth; add evaluation.labels, or --set evaluation.labels=truth.zarr")
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=2))
    else:
        report_table(session.run, report)
