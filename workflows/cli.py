"""The ``petaseg`` command."""

from __future__ import annotations

import logging
import signal
import sys

import typer

from pipeline import __version__
from pipeline.errors import PetasegError
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
from workflows.interruption import GO_ON, STOP, Interruption, last_words, leave

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


STOPPED = {signal.SIGINT: "interrupted", signal.SIGTERM: "asked to end"}
"""What the last line says after Ctrl-C, and after TERM from ``kill`` or from a cluster before the walltime."""
ANEW = "the same command begins anew"
AFTER = {
    **dict.fromkeys(("init", "plan", "verify", "evaluate", "synthesize", "models"), ANEW),
    "submit": "`petaseg status` and `petaseg logs` tell whether the run was submitted",
    "cancel": "`petaseg status` tells whether the driver has ended",
}
"""How to go on after commands that do not go on where they stopped."""
INTERRUPTED = 130
"""Exit status of typer after Ctrl-C."""


def main() -> None:
    """Run the command line; errors raised on purpose print their message and exit with status 1."""
    with Interruption(STOP, _say) as interruption:
        try:
            app()
        except PetasegError as error:
            typer.secho(f"petaseg: {error}", fg="red", err=True)
            sys.exit(1)
        except (KeyboardInterrupt, SystemExit) as error:  # typer turns the first into the second
            if not interruption.received or getattr(error, "code", INTERRUPTED) != INTERRUPTED:
                raise  # a command that handles the interruption itself, like a watch
            signal_ = signal.Signals(interruption.received[0])
            words = last_words(error, AFTER.get(_verb(), GO_ON))
            typer.secho(f"petaseg: {STOPPED[signal_]}; {words}", fg="yellow", err=True)
            leave(interruption.status)


def _verb() -> str:
    """The name of the command that is running."""
    return next((word for word in sys.argv[1:] if not word.startswith("-")), "")


def _say(text: str) -> None:
    """Print a line above the bars of a command that goes on for a moment."""
    from workflows.terminal.tables import progress_console

    progress_console.print(f"petaseg: {text}", style="yellow", highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
