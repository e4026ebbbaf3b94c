"""The state of a run on the terminal: progress of every stage, failures, and the cost of the run."""

from __future__ import annotations

import time
from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from pipeline.clusters.base import DriverJob, JobState
from pipeline.errors import counted
from pipeline.runs.applied import RELABEL
from pipeline.runs.cost import COVERAGE, Estimate, RunCost
from pipeline.runs.status import RunStatus, StageStatus
from workflows.terminal.tables import console, human_bytes, human_seconds, outdated_note, say

ERRORS_SHOWN = 10
NOTES_SHOWN = 5
"""Notes of each stage that are shown."""
TREE = "agglomerate"
"""The last stage that no relabel computes again."""
LIVE_SECONDS = 60.0
"""The time of the latest chunk is shown only if it is longer ago than this."""


def show_status(status: RunStatus) -> None:
    """Print the state of a run, and remedies for what failed."""
    console.print(status_view(status), highlight=False, soft_wrap=True)
    if is_relabelled(status):
        say(relabel_note(status), "yellow")
    else:
        outdated_note(status.stages)
    if any(stage.errors for stage in status.stages):
        say(f"retry with: {status.command}")


def is_relabelled(status: RunStatus) -> bool:
    """True if `petaseg relabel` has applied a threshold that not all labels have yet."""
    outdated = {stage.name for stage in status.stages if stage.outdated}
    names = [stage.name for stage in status.stages]
    applied = status.threshold is not None and status.threshold.source == RELABEL
    return applied and bool(outdated) and outdated <= set(names[names.index(TREE) + 1 :])


def relabel_note(status: RunStatus) -> str:
    """The stages that still have the labels of before, and the command that goes on."""
    names = ", ".join(stage.name for stage in status.stages if stage.outdated)
    if status.driver == "working":
        return f"petaseg relabel is at work: {names} of before its threshold until it gets there"
    return f"petaseg relabel was interrupted: {names} of before its threshold; go on with: {status.command}"


def show_job(job: DriverJob, state: JobState) -> None:
    """Print the state of a submitted driver and its workers on the cluster."""
    reason = f" ({state.reason})" if state.reason else ""
    workers = f"{counted(state.workers_running, 'worker')} running, {state.workers_pending} waiting"
    say(f"{'submitted':<14}{job.cluster} {job.id}: {state.phase}{reason}; {workers}")


def status_view(status: RunStatus) -> Group:
    """The parts of the status that change during a run."""
    parts: list[RenderableType] = [Text(f"run {status.url}", style="italic"), stage_table(status), *_problems(status)]
    parts += [Text(f"{'threshold':<14}{status.threshold}")] if status.threshold is not None else []
    parts += [Text(f"{'precision':<14}{status.precision}")] if status.precision else []
    parts += [Text(line) for line in (*total_left(status), *driver_lines(status, time.time()))]
    return Group(*parts, *(Text(line) for line in cost_lines(status.cost)))


def stage_table(status: RunStatus) -> Table:
    """A table with one line for each stage."""
    table = Table("stage", "done", "failed", "voxels / s", "time left", "written", "chunk time")
    for stage in status.stages:
        colour = "green" if stage.complete else "red" if stage.failed else "yellow"
        table.add_row(
            stage.name,
            f"[{colour}]{stage.done:,} / {stage.total:,}[/]",
            f"{stage.failed:,}" if stage.failed else "",
            speed(stage),
            time_left(status, stage),
            human_bytes(stage.bytes_written) if stage.done else "",
            human_seconds(stage.seconds / stage.done) if stage.done else "",
        )
    return table


def time_left(status: RunStatus, stage: StageStatus) -> str:
    """The time left of a stage while a driver works; an empty text if none does."""
    if stage.complete or status.driver != "working":
        return ""
    return "not known yet" if stage.seconds_left is None else human_seconds(stage.seconds_left)


def total_left(status: RunStatus) -> Iterator[str]:
    """A line on the time left of the whole run, while a driver works on it."""
    if status.complete or status.driver != "working":
        return
    left = [stage.seconds_left for stage in status.stages if not stage.complete]
    known = [seconds for seconds in left if seconds is not None]
    more = len(left) - len(known)
    if known:
        text = human_seconds(sum(known))
        behind = f", and that of {more} stages that is not known yet" if more > 1 else ""
        yield f"{'time left':<14}{text}{behind or (', and that of a stage that is not known yet' if more else '')}"


def speed(stage: StageStatus) -> str:
    """Voxels per second over the last minute; an empty text if there were none."""
    return f"{stage.voxels_per_second:,.0f}" if stage.voxels_per_second and not stage.complete else ""


def driver_lines(status: RunStatus, now: float) -> Iterator[str]:
    """Lines on the driver of an incomplete run, and on the latest chunk if it is older than ``LIVE_SECONDS``."""
    latest = max((stage.last or 0.0 for stage in status.stages), default=0.0)
    if status.complete or status.lease is None:
        return
    holder, heard = status.lease.holder, human_seconds(max(0.0, now - status.lease.renewed))
    yield (
        f"{'driver':<14}"
        + {
            "released": f"none; go on with: {status.command}",
            "unknown": f"{holder}; the next one takes over if it stays silent",
            "working": f"{holder}, heard of {heard} ago",
            "silent": f"{holder} is there and silent for {heard}: stopped, or cut off from the run directory",
            "dead": f"dead ({holder}, heard of {heard} ago); go on with: {status.command}",
        }[status.driver or "unknown"]
    )
    if latest and now - latest > LIVE_SECONDS:
        yield f"{'latest chunk':<14}{human_seconds(now - latest)} ago"


def cost_lines(cost: RunCost) -> Iterator[str]:
    """Lines on the cost so far and of the whole run; hours of workers, cores and GPUs only with prices."""
    for name, unit in cost.units().items():
        if name != "chunk_hours" and not cost.priced:
            continue
        spent, total = cost.spent(unit), cost.total(unit)
        if spent or total.value:
            behind = f" {cost.prices.currency}".rstrip() if name == "money" else ""
            yield f"{name.replace('_', ' '):<14}{_figure(spent)}{behind} spent{_forecast(spent, total, behind)}"
    if cost.unknown:
        yield f"{'not included':<14}{', '.join(cost.unknown)}: no chunk done yet, and no sample (petaseg plan --keep)"


def _forecast(spent: float, total: Estimate, behind: str) -> str:
    if total.value <= spent:
        return ""
    interval = f"{COVERAGE:.0%}: {_figure(total.low)} to {_figure(total.high)}"
    return f", {_figure(total.value)}{behind} in all ({interval})"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _problems(status: RunStatus) -> Iterator[Text]:
    """The chunks that were set aside, and the newest notes."""
    errors = [f"{stage.name} {error}" for stage in status.stages for error in stage.errors]
    for error in errors[:ERRORS_SHOWN]:
        yield Text.from_markup(f"[red]failed[/] {escape(error)}")
    if len(errors) > ERRORS_SHOWN:
        yield Text(f"and {len(errors) - ERRORS_SHOWN} more")
    for stage in status.stages:
        for note in stage.notes[-NOTES_SHOWN:]:
            yield Text.from_markup(f"[yellow]note[/] {escape(f'{stage.name}: {note}')}")
