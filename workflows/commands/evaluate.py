"""``petaseg evaluate``: scores of any two volumes, or of a run with its threshold sweep."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.errors import ConfigError
from workflows.commands.options import BoxOption, SetOption, beside_sets, parse_box, parse_two

if TYPE_CHECKING:
    from pipeline.evaluation.kinds import Settings

EPILOG = """Examples:

petaseg evaluate truth.zarr labels.zarr --box 185:250,0:250,0:250

petaseg evaluate truth.zarr mitochondria.zarr --as objects --report report

petaseg evaluate clefts.zarr probabilities.zarr --as mask --threshold 0.4 --cap-nm 500

petaseg evaluate truth.zarr classes.zarr --as classes

petaseg evaluate run.yaml --set evaluation.labels=truth.zarr"""


class Kind(StrEnum):
    """What two volumes are scored as."""

    neurons = "neurons"
    mask = "mask"
    objects = "objects"
    classes = "classes"


KindOption = Annotated[
    Kind,
    typer.Option(
        "--as",
        help="What the volumes hold: every voxel a neuron, one mask, objects on a background, or a class a voxel.",
    ),
]
ThresholdOption = Annotated[
    float | None, typer.Option(help="mask: the foreground are probabilities of at least this; 0.5 if left out.")
]
CapOption = Annotated[
    float | None, typer.Option(help="mask: longer distances count as this; block by block, for volumes of any size.")
]
ConfidenceOption = Annotated[
    str | None, typer.Option(help="objects: table of an id and a confidence a line; sizes if left out.")
]
LimitsOption = Annotated[
    str | None,
    typer.Option(metavar="SMALL,MEDIUM", help="objects: voxels of the largest small and medium one; 5000,15000."),
]
SectionsOption = Annotated[bool, typer.Option("--sections", help="mask, objects: also score each section in 2D.")]
BackgroundOption = Annotated[
    bool,
    typer.Option(
        "--minus-one-is-background",
        help="mask, objects, classes: -1 and the largest uint32 and uint64 are background, as in cleft files of CREMI.",
    ),
]
ReportOption = Annotated[str | None, typer.Option(metavar="FOLDER", help="mask, objects: write numbers and pictures.")]


@dataclass(frozen=True)
class _Asked:
    """What the options of the command say about two volumes."""

    truth: str
    labels: str
    box: str | None
    kind: str
    report: str | None
    as_json: bool


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog=EPILOG)
    def evaluate(
        truth: Annotated[str, typer.Argument(metavar="TRUTH|RUN", help="Volume of true labels, or a run.")],
        labels: Annotated[
            str | None, typer.Argument(metavar="LABELS", help="Volume of labels to score; none for a run.")
        ] = None,
        as_: KindOption = Kind.neurons,
        box: BoxOption = None,
        skeletons: Annotated[str | None, typer.Option(help="Skeletons (npz) for the expected run length.")] = None,
        threshold: ThresholdOption = None,
        cap_nm: CapOption = None,
        confidence: ConfidenceOption = None,
        size_limits: LimitsOption = None,
        sections: SectionsOption = False,
        minus_one_is_background: BackgroundOption = False,
        report: ReportOption = None,
        as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
        set_: SetOption = None,
    ) -> None:
        """Score labels against ground truth: neurons, a mask or probabilities, objects (mitochondria), or classes.

        neurons: VOI, adapted Rand error, neurons found, expected run length. mask: IoU, Dice, precision, recall,
        average precision, distances of CREMI. objects: average precision, precision, recall, F1, by size.
        classes: IoU of each class, mean IoU, accuracy.
        With one argument, a finished run is scored against its ground truth, and all thresholds are tried.
        """
        from pipeline.evaluation.kinds import Settings

        limits = _limits(size_limits)
        settings = Settings(threshold, cap_nm, confidence, limits, sections, minus_one_is_background)
        if labels is None:
            _refuse_for_a_run(as_, settings, report)
            _evaluate_run(truth, beside_sets(set_, _as_keys(box, skeletons)), as_json)
            return
        if set_:
            raise ConfigError(
                f"--set {set_[0]!r} is for a run; two volumes have no run file: choose a part with --box, and lines "
                "with --skeletons"
            )
        settings.require_fit(as_)
        if as_ is Kind.neurons:
            _refuse_report(report, "pictures of neurons are in the report of a run: leave it out, or score the run")
            _evaluate_neurons(truth, labels, box, skeletons, as_json)
            return
        if skeletons is not None:
            raise ConfigError(f"--skeletons {skeletons} is for neurons, and these are scored as {as_}: leave it out")
        if as_ is Kind.classes:
            _refuse_report(report, "classes have no pictures: leave it out")
        _evaluate_as(_Asked(truth, labels, box, as_, report, as_json), settings)


def _limits(text: str | None) -> tuple[int, int] | None:
    """Two whole numbers of voxels out of ``5000,15000``."""
    if text is None:
        return None
    small, medium = parse_two(text, "--size-limits")
    if (small, medium) != (int(small), int(medium)):
        raise ConfigError(f"--size-limits is {text!r}; give two whole numbers of voxels, like 5000,15000")
    return int(small), int(medium)


def _refuse_for_a_run(kind: Kind, settings: Settings, report: str | None) -> None:
    """Refuse what is for two volumes; a run is scored as neurons, and has a report of its own."""
    if kind is not Kind.neurons:
        raise ConfigError(
            f"--as {kind} is for two volumes, and only one was given: name the truth and the volume of the run, like "
            f"petaseg evaluate truth.zarr RUN/labels.zarr --as {kind}"
        )
    settings.require_fit(kind)
    if report is not None:
        raise ConfigError(f"--report {report} is for two volumes; a run has its pictures in RUN/report: leave it out")


def _refuse_report(report: str | None, remedy: str) -> None:
    if report is not None:
        raise ConfigError(f"--report {report} is for --as mask and --as objects; {remedy}")


def _refuse_address(report: str | None) -> None:
    """Refuse a report in a bucket: pictures are written to a folder."""
    from pipeline.storage import local_path

    if report is not None and local_path(report) is None:
        raise ConfigError(f"--report {report} is no folder of this machine; name one, and copy it from there")


def _as_keys(box: str | None, skeletons: str | None) -> list[tuple[str, str, object]]:
    """The options as keys of a run file; a path of skeletons counts from here, not from the run file's folder."""
    from pipeline.config.strict_yaml import quoted
    from pipeline.storage import absolute

    part = parse_box(box)
    places = (None, None) if part is None else (list(map(int, part.start)), list(map(int, part.stop)))
    lines = None if skeletons is None else quoted(absolute(skeletons, "."))
    return [
        ("--box", "evaluation.start", places[0]),
        ("--box", "evaluation.stop", places[1]),
        ("--skeletons", "evaluation.skeletons", lines),
    ]


def _evaluate_neurons(truth: str, labels: str, box: str | None, skeletons: str | None, as_json: bool) -> None:
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


def _evaluate_as(asked: _Asked, settings: Settings) -> None:
    """Score two volumes as a mask, as objects or as classes, print the scores and write the report."""
    from dataclasses import replace

    from pipeline.evaluation.compare_classes import ClassScores
    from pipeline.evaluation.files import make_folder
    from pipeline.evaluation.kinds import compare_as, pair_of
    from pipeline.runs.origin import require_finished
    from pipeline.volumes import open_volume
    from workflows.terminal.scores import result_table
    from workflows.terminal.tables import bars, say

    _refuse_address(asked.report)
    for url in (asked.truth, asked.labels):
        require_finished(url)
    volumes = open_volume(asked.truth), open_volume(asked.labels)
    pair = pair_of(asked.kind, *volumes, parse_box(asked.box), settings)
    if asked.report is not None:
        make_folder(asked.report, "--report")
        settings = replace(settings, sections=True)
    with bars() as advance:
        scores = compare_as(asked.kind, pair, settings, on_progress=advance)
    if asked.as_json:
        typer.echo(json.dumps(scores.to_dict(), indent=2))
    else:
        result_table(scores, pair.title)
    if asked.report is not None and not isinstance(scores, ClassScores):
        from pipeline.evaluation.error_report import write_report

        files = write_report(asked.report, pair, scores)
        for name, path in ({} if asked.as_json else files).items():
            say(f"{name:<18}{path}")


def _evaluate_run(run: str, overrides: list[str], as_json: bool) -> None:
    from workflows.driver import segment
    from workflows.terminal.report import report_table

    session = segment(run, overrides, only_after="result", report=True)
    report = session.report
    if session.run.inputs.truth is None or report is None:
        raise ConfigError(f"{run} names no ground truth; add evaluation.labels, or --set evaluation.labels=truth.zarr")
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=2))
    else:
        report_table(session.run, report)
