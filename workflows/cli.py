"""The ``petaseg`` command."""

from __future__ import annotations

import logging
import signal
import sys
from types import FrameType

import typer

from pipeline import __version__
from pipeline.errors import PetasegError
from workflows.commands import (
    demo,
    evaluate,
    ingest,
    init,
    models,
    plan,
    relabel,
    run,
    status,
    submit,
    synthesize,
    train,
    verify,
)

EPILOG = "First time here? `petaseg demo` makes neurons out of nothing in three minutes."

app = typer.Typer(
    name="petaseg",
    help="From raw electron microscopy to exact neurons.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", help="Print the version and exit."),
) -> None:
    if version:
        typer.echo(f"petaseg {__version__}")
        raise typer.Exit
    logging.getLogger("petaseg").setLevel(logging.INFO)


for module in (demo, init, ingest, plan, run, submit, status, relabel, verify, evaluate, train, models, synthesize):
    module.register(app)


class Terminated(KeyboardInterrupt):
    """Somebody asked this process to end: a cluster before the walltime, or ``kill``."""


def _terminate(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # a cluster may send it twice, and the second one would end the clean-up
    raise Terminated


def main() -> None:
    """Run the command line; errors raised on purpose print their message and exit with status 1."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        app()
    except PetasegError as error:
        typer.secho(f"petaseg: {error}", fg="red", err=True)
        sys.exit(1)
    except Terminated:
        typer.secho("petaseg: asked to end; the same command goes on where it stopped", fg="yellow", err=True)
        sys.exit(143)
    except KeyboardInterrupt:
        typer.secho("petaseg: interrupted; the same command goes on where it stopped", fg="yellow", err=True)
        sys.exit(130)


if __name__ == "__main__":
    main()
