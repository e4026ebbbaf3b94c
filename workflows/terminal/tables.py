"""Progress bars and tables for people."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from pipeline.errors import counted
from pipeline.runs.status import StageStatus, read_status

if TYPE_CHECKING:  # reading a run directory needs no torch, numba, matplotlib or Luigi
    from pipeline.evaluation.run_length import RunLength
    from pipeline.evaluation.scores import Scores
    from pipeline.models.facts import Facts
    from pipeline.models.spec import ModelCard
    from pipeline.runs.run import Run
    from pipeline.runs.verify import Finding, StageProof
    from workflows.session import Session

console = Console(width=None if sys.stdout.isatty() else 120)
"""The console for results."""
progress_console = Console(stderr=True)
"""The console for progress, apart from results, which may be piped."""


def human_bytes(count: float) -> str:
    """A number of bytes for people: ``1.5 GB``."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} PB"


def human_seconds(seconds: float) -> str:
    """A duration for people: ``12 ms``, ``42 s``, ``3 min 10 s``, ``5 h 20 min``, ``12 days``."""
    if seconds < 0.1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
    if seconds < 48 * 3600:
        return f"{seconds // 3600:.0f} h {seconds % 3600 // 60:.0f} min"
    return f"{seconds / 86400:.0f} days"


def say(text: str, style: str | None = None) -> None:
    """Print a text as it is: brackets in names are no markup, and lines are not wrapped."""
    console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)


def heading(text: str) -> None:
    """A line above a table, not wrapped to the table's width."""
    say(text, "italic")


@contextmanager
def bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar that is advanced with (done, total); it is removed if nothing was done before an error."""
    with _advanced(title, MofNCompleteColumn()) as advance:
        yield advance


@contextmanager
def share_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """The same with a percentage, for numbers that nobody counts."""
    with _advanced(title, TaskProgressColumn()) as advance:
        yield advance


@contextmanager
def _advanced(title: str, count: ProgressColumn) -> Iterator[Callable[[int, int], None]]:
    with _progress(count) as progress:
        task = progress.add_task(title, total=None, note="")
        try:
            yield lambda done, total: progress.update(task, completed=done, total=total)
        except BaseException:
            progress.live.transient = not progress.tasks[task].completed
            raise


@contextmanager
def bars() -> Iterator[Callable[[str, int, int], None]]:
    """One progress bar for each title, advanced with (title, done, total)."""
    with _progress(MofNCompleteColumn()) as progress:
        tasks: dict[str, TaskID] = {}

        def advance(title: str, done: int, total: int) -> None:
            if title not in tasks:
                tasks[title] = progress.add_task(title, total=total, note="")
            progress.update(tasks[title], completed=done)

        yield advance


def _progress(count: ProgressColumn) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description:<22}"),
        BarColumn(bar_width=30),
        count,
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(compact=True),
        console=progress_console,
    )


def outdated_note(stages: Iterable[StageStatus]) -> None:
    """Print which stages were computed under another configuration."""
    names = [stage.name for stage in stages if stage.outdated]
    if names:
        console.print(
            f"[yellow]made under another configuration[/] (input, weights, rules, threshold), to be computed again: "
            f"{', '.join(names)}; the run directory itself remembers the configuration of its last run",
            highlight=False,
            soft_wrap=True,
        )


def verify_table(run: Run, proofs: Sequence[StageProof]) -> list[Finding]:
    """Print the checks and findings stage by stage; all findings are returned."""
    table = Table("stage", "chunks", "done", "stored bytes checked", "computed again", "verdict")
    findings: list[Finding] = []
    for proof in proofs:
        counts = (proof.chunks, proof.done, proof.stored, proof.recomputed)
        table.add_row(proof.stage, *map(str, counts), _verdict(proof))
        findings += proof.findings
    console.print(table)
    for finding in findings[:20]:
        problem = escape(finding.problem)
        console.print(f"[red]differs[/] {finding.stage} chunk {finding.chunk.name}: {problem}", highlight=False)
    if len(findings) > 20:
        console.print(f"and {len(findings) - 20} more")
    for proof in proofs:
        if proof.strays:
            console.print(
                f"[red]stray[/] {proof.stage}: {counted(len(proof.strays), 'stored object')} that no chunk of this run "
                f"writes, such as {proof.strays[0]}; another region or chunk shape has left them",
                highlight=False,
                soft_wrap=True,
            )
        if proof.altered:
            console.print(
                f"[red]altered[/] {proof.stage}: {', '.join(proof.altered)} is missing, or holds other bytes than the "
                "chunks give",
                highlight=False,
                soft_wrap=True,
            )
        if proof.obstacle:
            console.print(
                f"[yellow]not computed again[/] {proof.stage}: its stored bytes were checked, but "
                f"{escape(proof.obstacle)}. To check it all, verify on a machine like those of the run; --sample 0 "
                "asks for the stored bytes only",
                highlight=False,
                soft_wrap=True,
            )
    return findings


def _verdict(proof: StageProof) -> str:
    if proof.findings:
        return "[red]differs[/]"
    if proof.altered:
        return "[red]altered[/]"
    if proof.strays:
        return "[red]stray objects[/]"
    if proof.done < proof.chunks:
        return "[yellow]unfinished[/]"
    return "[yellow]stored bytes only[/]" if proof.obstacle else "[green]proven[/]"


def models_table(cards: Iterable[ModelCard]) -> None:
    """Print a table of the bundled models."""
    from pipeline.models.heads import described, heads_of

    table = Table("model", "architecture", "voxels (nm)", "patch", "heads", "trained on", "scores")
    for card in cards:
        scores = "\n".join(f"{name}: {value}" for name, value in card.scores.items())
        nm = " x ".join(f"{side:g}" for side in card.resolution_nm)
        patch = " x ".join(map(str, card.patch_shape))
        table.add_row(card.name, card.architecture, nm, patch, described(heads_of(card)), card.training_data, scores)
    console.print(table)


def facts_table(found: Iterable[Facts]) -> None:
    """Print a table of networks in numbers: bundled models, then architectures with their named sizes."""
    found = list(found)
    columns = ["model, or architecture/size", "parameters", "sees (voxels)", "patch", "kMAC / voxel"]
    measured = any(facts.voxels_per_second is not None for facts in found)
    table = Table(*columns, *(["voxels / s"] if measured else []))
    for facts in found:
        row = [
            facts.name,
            f"{facts.parameters:,}"
            + (f" ({facts.free_parameters:,})" if facts.free_parameters < facts.parameters else ""),
            " x ".join("all" if side is None else str(side) for side in facts.receptive_field),
            " x ".join(map(str, facts.patch_shape)),
            f"{facts.kmac_per_voxel:,.1f}",
        ]
        table.add_row(*row, *([f"{facts.voxels_per_second:,.0f}"] if facts.voxels_per_second else []))
    console.print(table)
    console.print("parameters: in brackets, what symmetric kernels tie together counted once", highlight=False)
    console.print("sees: along z, y, x; all: the whole patch. kMAC: thousand multiply-adds", highlight=False)


def run_table(session: Session) -> None:
    """Print chunks of every stage of a finished run; and seconds and speed of the chunks that this driver computed."""
    heading(f"run {session.run.url}")
    table = Table("stage", "chunks", "seconds", "voxels / s")
    for stage in read_status(session.run):
        seconds, voxels = session.seconds.get(stage.name), session.voxels.get(stage.name)
        if seconds is None or voxels is None:
            table.add_row(stage.name, f"{stage.done:,}", "done before", "")
        else:
            table.add_row(stage.name, f"{stage.done:,}", f"{seconds:.1f}", f"{voxels / seconds:,.0f}")
    console.print(table)


def scores_table(scores: Scores, length: RunLength | None, title: str) -> None:
    """Print scores against ground truth."""
    heading(title)
    table = Table("score", "value", "")
    table.add_row("VOI split", f"{scores.voi_split:.3f} bits", "0 is best; false splits")
    table.add_row("VOI merge", f"{scores.voi_merge:.3f} bits", "0 is best; false mergers")
    table.add_row("VOI total", f"{scores.voi:.3f} bits", "")
    table.add_row("adapted Rand error", f"{scores.adapted_rand_error:.3f}", "0 is best, 1 worst")
    table.add_row("neurons found", f"{scores.neurons_found} of {scores.neurons}", "by a segment with IoU > 0.5")
    if length is not None:
        found, of = length.erl_nm / 1000, length.best_nm / 1000
        table.add_row("expected run length", f"{found:.2f} um", f"of {of:.2f} um; {length.normalised:.0%}")
    console.print(table)


def next_commands(commands: Mapping[str, str]) -> None:
    """Print commands to try and their purpose, and how to make the shell find petaseg if it does not."""
    width = max(map(len, commands))
    if shutil.which("petaseg") is None:
        activate = Path(sys.argv[0]).with_name("activate")
        say(f"source {shlex.quote(str(activate))}   # so that your shell finds petaseg")
    console.print("try next:")
    for each, purpose in commands.items():
        say(f"  {each:<{width}}   {purpose}")
