"""``petaseg submit``, ``logs`` and ``cancel``: a run whose driver and workers are jobs of a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from workflows.commands.options import RunArgument, SetOption

OnOption = Annotated[
    str | None, typer.Option("--on", metavar="CLUSTER", help="slurm or kubernetes; default: cluster.kind.")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""

    @app.command(epilog="Example: petaseg submit run.yaml --on slurm --dry-run")
    def submit(
        run: RunArgument = "run.yaml",
        on: OnOption = None,
        set_: SetOption = None,
        setup: Annotated[
            Path | None, typer.Option(help="File of shell lines for each job: module load cuda (SLURM).")
        ] = None,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be submitted, and stop.")] = False,
    ) -> None:
        """Run on a cluster: a driver job that starts its own workers. The same bytes as anywhere else."""
        from pipeline.launch import cluster_of, submission_of
        from pipeline.launch import submit as submit_run
        from pipeline.run import Run
        from workflows.display import console

        opened = Run.open(run, set_ or ())
        opened.check_model()
        cluster, lines = cluster_of(opened, on), read_setup(setup)
        if dry_run:
            for name, text in cluster.render(submission_of(opened, lines)).items():
                typer.echo(f"# ---- {name}\n{text.rstrip()}\n")
            return
        job = submit_run(opened, cluster, lines)
        console.print(f"submitted to {job.cluster} as {job.id}", highlight=False)
        console.print(
            f"look at it     petaseg status {run}\n"
            f"its messages   petaseg logs {run}\n"
            f"end it         petaseg cancel {run}\n"
            f"after an end   petaseg submit {run}: it goes on where it stopped",
            highlight=False,
            soft_wrap=True,
        )

    @app.command(epilog="Example: petaseg logs runs/first --workers")
    def logs(
        run: RunArgument = "run.yaml",
        set_: SetOption = None,
        workers: Annotated[bool, typer.Option("--workers", help="Those of the workers instead.")] = False,
    ) -> None:
        """Print what the driver of a submitted run has written so far."""
        from pipeline.clusters import make_cluster
        from pipeline.launch import submitted_driver
        from pipeline.run import Run

        job = submitted_driver(Run.open(run, set_ or ()))
        for line in make_cluster(job.cluster).logs(job, workers=workers):
            typer.echo(line)

    @app.command(epilog="Example: petaseg cancel runs/first")
    def cancel(run: RunArgument = "run.yaml", set_: SetOption = None) -> None:
        """End the driver and the workers of a submitted run; what is done stays done."""
        from pipeline.clusters import make_cluster
        from pipeline.launch import submitted_driver
        from pipeline.run import Run
        from workflows.display import console

        job = submitted_driver(Run.open(run, set_ or ()))
        make_cluster(job.cluster).cancel(job)
        console.print(f"{job.cluster} {job.id} is cancelled; go on with: petaseg submit {run}", highlight=False)


def read_setup(path: Path | None) -> str:
    """The shell lines of a file of the user's own."""
    from pipeline.errors import ConfigError

    if path is None:
        return ""
    try:
        return path.read_text()
    except OSError as error:
        raise ConfigError(f"--setup {path} cannot be read: {error.strerror}; name a file of shell lines") from None
