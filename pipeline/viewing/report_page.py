"""A report of a run as one HTML file that needs no other: pictures are inside, and it reads well on paper.

Tables and pictures come from small tables and a few planes of voxels, so a volume of any size takes seconds.
"""

from __future__ import annotations

import platform
import tempfile
from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from pipeline import __version__
from pipeline.evaluation.seams import SeamTest
from pipeline.runs.class_summary import ClassSummary
from pipeline.runs.report import FOLDER, AnySummary, Report, write_report
from pipeline.runs.run import RUN_KEY, Run
from pipeline.runs.seams import seam_report
from pipeline.runs.status import RunWatch, StageStatus
from pipeline.runs.summary import Summary, sizes_of
from pipeline.stages.write_meshes import WriteMeshes
from pipeline.storage import store_of
from pipeline.suspects.listing import TABLE, look_hint, read_list
from pipeline.viewing.pictures import draw_largest, draw_places, draw_sizes, draw_times, swatch

NAME = "report.html"
SEAMS_SHOWN = 10
SUSPECTS_SHOWN = 20


@dataclass(frozen=True)
class Page:
    """A report that was written."""

    place: str
    seams: tuple[SeamTest, ...]

    @property
    def passed(self) -> bool:
        """True if no face between chunks shows."""
        return all(test.passed for test in self.seams)


def write_page(run: Run) -> Page:
    """Write the report of a finished run into its run directory, under the driver's lease."""
    report, seams = write_report(run), tuple(seam_report(run))
    key = f"{FOLDER}/{NAME}"
    run.store.put(key, page_of(run, report, seams).encode())
    return Page(f"{run.url}/{key}", seams)


def page_of(run: Run, report: Report, seams: Sequence[SeamTest]) -> str:
    """The HTML of a report."""
    watch = RunWatch(run.outline)
    sections = {
        "The result": _summary(run, report.summary),
        "Three directions at three places": _drawn(lambda path: draw_places(run, path)),
        "The largest": _largest(run, report.summary),
        "Scores": _scores(report),
        "Where it is probably wrong": _suspects(run),
        "Seams between chunks": _seams(seams),
        "Sizes": _sizes(run, report.summary),
        "Stages": _stages(watch),
        "Times of chunks": _drawn(lambda path: draw_times([(s, watch.ledger(s)) for s in watch.outline.stages], path)),
        "What was run": _configuration(run),
    }
    body = "\n".join(f"<section><h2>{escape(name)}</h2>{html}</section>" for name, html in sections.items() if html)
    template = Template(files("pipeline.viewing").joinpath("report.html").read_text())
    return template.substitute(title=escape(run.url), body=body)


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """An HTML table; texts are escaped, ``Markup`` is not."""
    line = "".join(f"<th>{escape(name)}</th>" for name in head)
    lines = ["".join(f"<td>{_cell(value)}</td>" for value in row) for row in rows]
    return f"<table><tr>{line}</tr>{''.join(f'<tr>{each}</tr>' for each in lines)}</table>"


class Markup(str):
    """HTML that is put into a table as it is."""


def _cell(value: Any) -> str:
    if isinstance(value, Markup):
        return value
    number = f"{value:,}" if isinstance(value, int) else f"{value:.4g}" if isinstance(value, float) else None
    return escape(str(value) if number is None else number)


def _image(data: bytes) -> str:
    return f'<img alt="" src="data:image/png;base64,{b64encode(data).decode()}">'


def _drawn(draw: Callable[[Path], object]) -> str:
    """A picture that a function draws into a file."""
    with tempfile.TemporaryDirectory(prefix="petaseg-report-") as folder:
        path = Path(folder) / "picture.png"
        draw(path)
        return _image(path.read_bytes())


def _largest(run: Run, summary: AnySummary) -> str:
    """The largest neurons or objects in 3D, or how to get them; classes have no meshes."""
    if not isinstance(summary, Summary):
        return ""
    if run.beside or not run.has_stage(WriteMeshes.name):
        return f"<p>There are no meshes to draw: <code>{escape(run.hint('add', 'meshes'))}</code> makes them.</p>"
    with tempfile.TemporaryDirectory(prefix="petaseg-report-") as folder:
        path = Path(folder) / "picture.png"
        return _image(path.read_bytes()) if draw_largest(run, summary.largest, path) else "<p>None has a mesh.</p>"


def _stored(place: str) -> str:
    """A picture that the report has stored already."""
    if not place:
        return ""
    store, key = store_of(place)
    return _image(store.get(key))


def _summary(run: Run, summary: AnySummary) -> str:
    """The numbers of a result, after what is implausible about them."""
    warnings = "".join(f'<p class="warning">{escape(warning)}</p>' for warning in summary.warnings)
    return warnings + (_numbers(run, summary) if isinstance(summary, Summary) else _classes(summary))


def _classes(summary: ClassSummary) -> str:
    rows = [
        (_swatch(number) if number else Markup(""), str(number), voxels, f"{summary.share(number):.2%}")
        for number, voxels in enumerate(summary.classes)
    ]
    rows += [(Markup(""), "masked", summary.masked, "")] if summary.masked else []
    return table(("", "class", "voxels", "share"), rows)


def _numbers(run: Run, summary: Summary) -> str:
    words = run.kind.words
    rows: list[tuple[str, Any]] = [
        ("threshold", "none: given labels" if summary.threshold is None else str(summary.threshold)),
        (words, summary.segments),
        ("voxels in them", f"{summary.labelled:,} of {summary.voxels:,}"),
        ("without label, not masked", summary.background),
        ("median size, voxels", summary.median),
        ("half of the volume is in sizes of at least", summary.half),
        (f"{words} of less than 64 voxels", summary.specks),
    ]
    return table(("", ""), rows)


def _scores(report: Report) -> str:
    if report.scores is None:
        return ""
    plain = {name: value for name, value in report.scores.to_dict().items() if isinstance(value, int | float)}
    return table(("score", "value"), plain.items()) + _stored(report.sweep_picture)


def _suspects(run: Run) -> str:
    """The first places of the list of suspects, if one was made, with the command that opens the viewer there."""
    suspects = read_list(run)
    if not suspects:
        return ""
    rows = [
        (
            *(each.rank, each.kind, ",".join(map(str, each.place)), " + ".join(map(str, each.labels))),
            *(f"{each.probability:.0%}", each.minutes, Markup(f"<code>{escape(look_hint(run, each.rank))}</code>")),
        )
        for each in suspects[:SUSPECTS_SHOWN]
    ]
    head = ("", "kind", "voxel z,y,x", "segments", "probability", "minutes saved", "look at it")
    return f"<p>{len(suspects):,} places are in {TABLE}; the first:</p>" + table(head, rows)


def _seams(seams: Sequence[SeamTest]) -> str:
    if not any(test.faces for test in seams):
        return "<p>The run has one chunk, or chunks too thin to have planes inside, so it has no seams to look for.</p>"
    rows = [
        (test.volume, test.number, test.faces, test.mean, test.mean_inside, test.deviation, _verdict(test))
        for test in seams
    ]
    head = ("volume", "number", "faces", "mean at faces", "mean inside", "deviation inside", "")
    found = [(test.volume, face, f"{by:g} deviations") for test in seams for face, by in test.seams[:SEAMS_SHOWN]]
    more = table(("volume", "face (first voxel behind it)", "off by"), found) if found else ""
    return table(head, rows) + more


def _verdict(test: SeamTest) -> Markup:
    return Markup("no seam" if test.passed else f'<b class="bad">{len(test.seams)} seams</b>')


def _swatch(label: int) -> Markup:
    return Markup(f'<i class="swatch" style="background: {swatch(label)}"></i>')


def _sizes(run: Run, summary: AnySummary) -> str:
    """The sizes of the segments; classes have none."""
    if not isinstance(summary, Summary):
        return ""
    sizes = sizes_of(run)
    rows = [(_swatch(label), str(label), voxels) for label, voxels in summary.largest]
    picture = _drawn(lambda path: draw_sizes(sizes, path, run.kind.words)) if sizes.count else ""
    return picture + (table(("", "largest", "voxels"), rows) if rows else "")


def _stages(watch: RunWatch) -> str:
    rows = [_stage_row(stage) for stage in watch.read().stages]
    head = ("stage", "chunks", "failed", "retries", "chunk seconds", "voxels a chunk second", "MB before compression")
    return table(head, rows)


def _stage_row(stage: StageStatus) -> tuple[Any, ...]:
    speed = f"{stage.voxels / stage.seconds:,.0f}" if stage.seconds else ""
    chunks, retries = f"{stage.done:,} of {stage.total:,}", max(stage.attempts - stage.done, 0)
    return stage.name, chunks, stage.failed, retries, stage.seconds, speed, f"{stage.bytes_written / 1e6:,.1f}"


def _configuration(run: Run) -> str:
    versions = {"petaseg": __version__, **{name: version(name) for name in ("numpy", "numba", "torch", "zarr")}}
    rows = [*versions.items(), ("Python", platform.python_version()), ("machine of this report", platform.machine())]
    prints = table(("stage", "fingerprint"), [(stage.name, stage.fingerprint) for stage in run.stages])
    text = run.store.get(RUN_KEY).decode()
    return f"<pre>{escape(text)}</pre>" + table(("", "version"), rows) + prints
