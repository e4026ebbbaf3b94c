"""The commands of ``petaseg`` as one program."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from pipeline import __version__
from pipeline.errors import ConfigError
from workflows.commands import (
    add,
    dashboard,
    demo,
    edit,
    evaluate,
    experiment,
    export,
    ingest,
    init,
    models,
    plan,
    relabel,
    report,
    run,
    self_train,
    status,
    submit,
    suggest,
    suspects,
    synthesize,
    train,
    verify,
    view,
)

EPILOG = "First time here? `petaseg demo` makes neurons out of nothing in half a minute."

UsageError: Any = typer.BadParameter.__base__
"""What typer raises for arguments that it does not take."""
HELP = "NoArgsIsHelpError"
"""The name of the one that prints the page of help."""


class Commands(TyperGroup):
    """The commands; what is wrong with their arguments is said as every other refusal is, in one line."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        with _as_refusal():
            return super().invoke(ctx)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take the arguments in front of a command apart."""
        with _as_refusal():
            return super().parse_args(ctx, args)


@contextmanager
def _as_refusal() -> Iterator[None]:
    """Turn errors of arguments into a ``ConfigError``; the page of help that stands for no arguments stays."""
    try:
        yield
    except UsageError as error:
        if type(error).__name__ == HELP:
            raise
        command = f"{error.ctx.command_path} --help" if error.ctx else "petaseg --help"
        raise ConfigError(f"{error.format_message().rstrip('.')}; `{command}` says what is taken") from None


app = typer.Typer(
    name="petaseg",
    cls=Commands,
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
    *(demo, init, ingest, plan, run, submit, status, relabel, edit, add, export, verify, evaluate),
    *(view, report, suspects, dashboard),
    *(train, self_train, suggest, models, synthesize, experiment),
):
    module.register(app)
