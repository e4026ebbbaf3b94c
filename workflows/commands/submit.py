"""``petaseg submit``, ``logs`` and ``cancel``: start a run as jobs of a cluster, and look at or end any run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.clusters import CLUSTERS
from workflows.commands.options import OverwriteOption, RunArgument, SetOption

OnOption = Annotated[
    str | None, typer.Option("--on", metavar="CLUSTER", help=f"{' or '.join(CLUSTERS)}; default: cluster.kind.")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(epilog="Example: petaseg submit run.yaml --on slurm --dry-run")(submit)
    app.command(epilog="Example: petaseg logs runs/first --workers")(logs)
    app.command(epilog="Example: petaseg cancel runs/first")(cancel)


def submit(
    run: RunArgument = "run.yaml",
    on: OnOption = None,
    set_: SetOption = None,
    setup: Annotated[
        Path | None, typer.Option(help="File of shell lines for each job: module load cuda (SLURM).")
    ] = None,
    overwrite: OverwriteOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be submitted, and exit.")] = False,
) -> None:
    """Run on a cluster: a driver job that starts its own workers, with the same bytes as anywhere else. Of a training
    file: train there, as one job."""
    from pipeline.clusters.setup import remember_setup
    from pipeline.runs.launch import cluster_of, submission_of
    from pipeline.runs.launch import submit as submit_run
    from pipeline.runs.run import Run
    from pipeline.runs.unused import unused_keys
    from workflows.commands import submit_training
    from workflows.commands.submitting import queued, setup_lines, setup_note
    from workflows.interruption import undivided
    from workflows.terminal.tables import say

    if submit_training.is_training_file(run):
        submit_training.submit(run, on, set_ or (), setup, overwrite=overwrite, dry_run=dry_run)
        return
    opened = Run.open(run, set_ or ())
    opened.check_directory(overwrite=overwrite)
    cluster = cluster_of(opened, on)
    unused = unused_keys(opened, cluster.name)
    lines = setup_lines(setup, cluster.name, opened.url)
    opened.check_model()
    if dry_run:
        for name, text in cluster.render(submission_of(opened, lines)).items():
            typer.echo(f"# ---- {name}\n{text.rstrip()}\n")
        for each in unused:
            typer.echo(f"# {each}")
        return
    with undivided("submission", lambda: queued(job, opened.hint("cancel"))):
        job = submit_run(opened, cluster, lines, overwrite=overwrite)
        if setup is not None:
            remember_setup(opened.url, lines)
    for each in unused:
        say(str(each))
    again = ("submit", *(("--on", on) if on else ()))
    say(
        f"submitted to {job.cluster} as {job.id}\n"
        f"look at it     {opened.hint('status')}\n"
        f"its messages   {opened.hint('logs')}\n"
        f"end it         {opened.hint('cancel')}\n"
        f"after an end   {opened.hint(*again)}   (it goes on where it stopped)" + setup_note(lines, opened.url)
    )


def logs(
    run: RunArgument = "run.yaml",
    set_: SetOption = None,
    workers: Annotated[bool, typer.Option("--workers", help="Print the logs of the workers instead.")] = False,
) -> None:
    """Print what the driver of a run has written so far, wherever it runs."""
    from pipeline.clusters import make_cluster
    from pipeline.runs.launch import driver_of
    from workflows.commands.submit_training import place_of
    from workflows.events.run_log import stored_lines

    place = place_of(run, set_ or ())
    job = driver_of(place)
    lines = stored_lines(place, workers) if job is None else make_cluster(job.cluster).logs(job, workers=workers)
    for line in lines:
        typer.echo(line)


def cancel(run: RunArgument = "run.yaml", set_: SetOption = None) -> None:
    """End the driver of a run and its workers, wherever they are; completed chunks are kept."""
    from pipeline.runs.hints import continuation
    from pipeline.runs.launch import cancel as cancel_run
    from pipeline.runs.launch import driver_here, driver_of
    from workflows.commands.submit_training import place_of
    from workflows.terminal.tables import say

    place = place_of(run, set_ or ())
    job = driver_of(place) if driver_here(place) is None else None
    again = continuation(place.source, place.overrides, None if job is None else job.cluster)
    say(f"{cancel_run(place)} is cancelled; go on with: {again}")
