"""``petaseg submit`` of a training file: ``petaseg train`` as a job of a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from pipeline.runs.launch import RunPlace
    from pipeline.training.config import TrainConfig


def is_training_file(path: str) -> bool:
    """True if there is a file with the keys of a training; what cannot be read is left to those who read run files."""
    from pipeline.config.kinds import kind_of
    from pipeline.config.strict_yaml import parse_yaml
    from pipeline.errors import ConfigError

    try:
        document = parse_yaml(Path(path).read_bytes(), path) if Path(path).is_file() else {}
    except (ConfigError, OSError):
        return False
    return isinstance(document, dict) and kind_of(document) == "TrainConfig"


def read_training(path: str, overrides: Sequence[str]) -> TrainConfig:
    """The training of a file, with absolute paths."""
    from pipeline.config.reading import load_config
    from pipeline.training.config import TrainConfig, with_absolute_paths

    config: TrainConfig = load_config(path, overrides, TrainConfig)
    return with_absolute_paths(config)


def place_of(path: str, overrides: Sequence[str]) -> RunPlace:
    """The place of a run, or the output folder of a training file."""
    from pipeline.runs.launch import RunPlace
    from pipeline.runs.status import find_run_directory
    from pipeline.storage import ObjectStore

    if is_training_file(path):
        return RunPlace(ObjectStore(read_training(path, overrides).output), path, tuple(overrides))
    return RunPlace(find_run_directory(path, overrides), path, tuple(overrides))


def submit(
    file: str, on: str | None, overrides: Sequence[str], setup: Path | None, *, overwrite: bool, dry_run: bool
) -> None:
    """Submit a training, or print the job that would be submitted."""
    from pipeline.clusters.base import lone_jobs
    from pipeline.clusters.setup import remember_setup
    from pipeline.errors import ConfigError
    from pipeline.runs.hints import command
    from pipeline.runs.launch import cluster_named
    from pipeline.training import submission
    from pipeline.training.dry_run import sound
    from pipeline.training.unused import unused_keys
    from workflows.commands.submitting import queued, setup_lines, setup_note
    from workflows.commands.train import require_finished_volumes
    from workflows.interruption import undivided
    from workflows.terminal.tables import progress_console, say

    if overwrite:
        raise ConfigError(
            f"--overwrite is for runs; {file} is a training: choose another output, or delete that folder"
        )
    config = read_training(file, overrides)
    cluster = cluster_named(on or config.cluster.kind, "the training file")
    jobs = lone_jobs(cluster)
    unused = unused_keys(config, cluster.name)
    lines = setup_lines(setup, cluster.name, config.output)
    job = submission.lone_job(config, lines)
    require_finished_volumes(config)
    with progress_console.status("checking volumes, patches and network ..."):
        sound(config)
    if dry_run:
        for name, text in jobs.render_lone(job).items():
            typer.echo(f"# ---- {name}\n{text.rstrip()}\n")
        for each in unused:
            typer.echo(f"# {each}")
        return
    look, end = command("logs", file, overrides), command("cancel", file, overrides)
    with undivided("submission", lambda: queued(record, end)):
        record = submission.submit(job, config, cluster, f"look at it with `{look}`, or end it with `{end}`")
        if setup is not None:
            remember_setup(config.output, lines)
    log = record.details.get("log")
    for each in unused:
        say(str(each))
    say(
        f"submitted to {record.cluster} as {record.id}\n"
        f"its messages   {look}" + (f"   ({log})" if log else "") + "\n"
        f"its curve      {config.output}/curve.png\n"
        f"end it         {end}\n"
        f"after an end   {command('submit', file, overrides, *(('--on', on) if on else ()))}   "
        "(it goes on from its last checkpoint)" + setup_note(lines, config.output)
    )
