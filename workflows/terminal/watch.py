"""``petaseg status --watch``: follow a run from any machine that can read its run directory."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import typer
from rich.live import Live

from pipeline.errors import StorageError
from pipeline.runs.outline import read_outline
from pipeline.runs.status import RunStatus, RunWatch
from pipeline.storage import ObjectStore
from workflows.terminal.status import show_status, speed, status_view
from workflows.terminal.tables import console, human_bytes, human_seconds


def watch(store: ObjectStore, interval: float, *, as_json: bool = False) -> bool:
    """Show the state of a run every ``interval`` seconds, until it is complete or Ctrl-C; True if it is complete.

    In a terminal the table is drawn again in place. Elsewhere each change is a line, or with ``as_json`` each reading.
    """
    latest: list[RunStatus] = []
    readings = _remembered(_readings(store, interval), latest)
    try:
        if as_json:
            for status in readings:
                typer.echo(json.dumps(status.as_dict(), separators=(",", ":")))
        elif console.is_terminal:
            _draw(readings)
        else:
            _tell(readings)
    except KeyboardInterrupt:
        pass
    if latest and not as_json and not console.is_terminal:
        show_status(latest[-1])
    return bool(latest) and latest[-1].complete


def _remembered(readings: Iterator[RunStatus], latest: list[RunStatus]) -> Iterator[RunStatus]:
    for status in readings:
        latest[:] = [status]
        yield status


def _readings(store: ObjectStore, interval: float) -> Iterator[RunStatus]:
    """The state of a run now and after every pause, until it is complete."""
    outline = read_outline(store)
    if outline is None:
        typer.echo(f"no driver has begun in {store.url} yet; waiting (Ctrl-C ends this)", err=True)
    while outline is None:
        time.sleep(interval)
        outline = read_outline(store)
    watcher, complete = RunWatch(outline), False
    while not complete:
        status = _read(watcher)
        if status is not None:
            yield status
            complete = status.complete
        if not complete:
            time.sleep(interval)


def _read(watcher: RunWatch) -> RunStatus | None:
    """The state of the run; ``None``, with a message, if it cannot be read now: a lost network ends no watch."""
    try:
        return watcher.follow()
    except StorageError as error:
        typer.echo(f"{error} (trying again; Ctrl-C ends this)", err=True)
        return None


def _draw(readings: Iterator[RunStatus]) -> None:
    with Live(console=console, auto_refresh=False) as live:
        for status in readings:
            live.update(status_view(status), refresh=True)


def _tell(readings: Iterator[RunStatus]) -> None:
    told: dict[str, str] = {}
    for status in readings:
        for name, text in _lines(status):
            if told.get(name) != text:
                typer.echo(f"{time.strftime('%H:%M:%S')} {name} {text}")
                told[name] = text


def _lines(status: RunStatus) -> Iterator[tuple[str, str]]:
    """One line on each stage that has begun."""
    for stage in status.stages:
        if stage.done or stage.failed:
            text = f"{stage.done:,} / {stage.total:,} done, {stage.failed:,} failed, {human_bytes(stage.bytes_written)}"
            text += f", {speed(stage)} voxels/s" if speed(stage) else ""
            left = stage.seconds_left
            yield stage.name, text if left is None or stage.complete else f"{text}, {human_seconds(left)} left"
