"""The ``petaseg`` command."""

from __future__ import annotations

import logging
import os
import signal
import sys
from types import FrameType

import typer

from pipeline import __version__
from pipeline.errors import ConfigError, ModelError, PetasegError, WorkerEnvironmentError
from workflows.commands import (
    demo,
    evaluate,
    experiment,
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


for module in (
    *(demo, init, ingest, plan, run, submit, status, relabel, verify, evaluate),
    *(train, models, synthesize, experiment),
):
    module.register(app)


STOPPED = {
    signal.SIGINT: "interrupted; the same command goes on where it stopped",
    signal.SIGTERM: "asked to end; the same command goes on where it stopped",
}
"""The message after Ctrl-C, and after TERM from ``kill`` or from a cluster before the walltime."""
received: list[int] = []
INTERRUPTED = 130
"""Exit status of typer after Ctrl-C."""


def _stop(number: int, frame: FrameType | None) -> None:
    """End as after Ctrl-C. A cluster may send the signal twice, and the second must not interrupt the clean-up."""
    received.append(number)
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def status_of(error: PetasegError) -> int:
    """Exit status 1; for a cluster that starts drivers again, the status by which it knows that this helps nobody."""
    final = isinstance(error, (ConfigError, ModelError)) and not isinstance(error, WorkerEnvironmentError)
    return int(os.environ.get("PETASEG_FINAL_STATUS", 1)) if final else 1


def main() -> None:
    """Run the command line; errors raised on purpose print their message and exit with ``status_of`` them."""
    for number in STOPPED:
        signal.signal(number, _stop)
    try:
        app()
    except PetasegError as error:
        typer.secho(f"petaseg: {error}", fg="red", err=True)
        sys.exit(status_of(error))
    except (KeyboardInterrupt, SystemExit) as error:  # typer turns the first into the second
        if not received or getattr(error, "code", INTERRUPTED) != INTERRUPTED:
            raise  # a command that handles the interruption itself, like a watch
        typer.secho(f"petaseg: {STOPPED[signal.Signals(received[0])]}", fg="yellow", err=True)
        sys.exit(128 + received[0])


if __name__ == "__main__":
    main()
