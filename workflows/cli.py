"""The ``petaseg`` command: it listens to Ctrl-C first, and only then imports the commands."""

from __future__ import annotations

import os
import signal
import sys

from pipeline.errors import ConfigError, ModelError, PetasegError, WorkerEnvironmentError
from workflows.interruption import GO_ON, STOP, Interruption, last_words, leave

STOPPED = {signal.SIGINT: "interrupted", signal.SIGTERM: "asked to end"}
"""What the last line says after Ctrl-C, and after TERM from ``kill`` or from a cluster before the walltime."""
ANEW = "the same command begins anew"
AFTER = {
    **dict.fromkeys(("init", "plan", "status", "logs", "verify", "evaluate", "synthesize", "models"), ANEW),
    **dict.fromkeys(("view", "dashboard", "report", "suspects", "export"), ANEW),
    "edit": "`petaseg edit RUN --list` tells whether the edits are kept; `petaseg run` then goes on with them",
    "submit": "`petaseg status` and `petaseg logs` tell whether the run was submitted",
    "cancel": "`petaseg status` tells whether the driver has ended",
}
"""How to go on after commands that do not go on where they stopped."""
INTERRUPTED = 130
"""Exit status of typer after Ctrl-C."""


def status_of(error: PetasegError) -> int:
    """Exit status 1; for a cluster that starts drivers again, the status by which it knows that this helps nobody."""
    final = isinstance(error, (ConfigError, ModelError)) and not isinstance(error, WorkerEnvironmentError)
    return int(os.environ.get("PETASEG_FINAL_STATUS", 1)) if final else 1


def main() -> None:
    """Run the command line; errors raised on purpose print their message and exit with ``status_of`` them."""
    with Interruption(STOP, _say) as interruption:
        try:
            from workflows.app import app

            app()
        except PetasegError as error:
            _last_line(str(error), "red")
            sys.exit(status_of(error))
        except MemoryError as error:
            words = str(error) or "it has none left to give"
            _last_line(
                f"this machine has too little memory ({words}); choose smaller shapes, or another machine", "red"
            )
            sys.exit(1)
        except (KeyboardInterrupt, SystemExit) as error:  # typer turns the first into the second
            if not interruption.received or getattr(error, "code", INTERRUPTED) != INTERRUPTED:
                raise  # a command that handles the interruption itself, like a watch
            signal_ = signal.Signals(interruption.received[0])
            words = last_words(error, AFTER.get(_verb(), GO_ON))
            _last_line(f"{STOPPED[signal_]}; {words}", "yellow")
            leave(interruption.status)


def _last_line(text: str, colour: str) -> None:
    import typer

    typer.secho(f"petaseg: {text}", fg=colour, err=True)


def _verb() -> str:
    """The name of the command that is running."""
    return next((word for word in sys.argv[1:] if not word.startswith("-")), "")


def _say(text: str) -> None:
    """Print a line above the bars of a command that goes on for a moment."""
    from workflows.terminal.tables import progress_console

    progress_console.print(f"petaseg: {text}", style="yellow", highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
