"""The commands of ``petaseg`` as one program."""

from __future__ import annotations

import logging

import typer

from pipeline import __version__
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
