"""``petaseg synthesize``: made-up data sets with exact ground truth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.synthetic import KINDS

EPILOG = """Examples:

petaseg synthesize challenge cells --count 100

petaseg synthesize pathfinder curves --count 1000 --seed 1 --set paddles=20

petaseg synthesize tilt gratings --set part=test

petaseg synthesize tissue volumes --count 2 --set shape=[32,128,128]

petaseg synthesize mitochondria organelles --count 2 --set touching=0.8

Every setting, with the value that was used, is in the data set's parameters.yaml; docs/synthetic.md explains them."""


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog=EPILOG)
    def synthesize(
        kind: Annotated[str, typer.Argument(help=f"{', '.join(KINDS)}.")],
        output: Annotated[Path, typer.Argument(help="Folder to write; it must not exist, or be empty.")],
        count: Annotated[int, typer.Option(min=1, help="Samples to make.")] = 16,
        seed: Annotated[int, typer.Option(min=0, help="Sample i of a seed is always the same.")] = 0,
        set_: Annotated[
            list[str] | None,
            typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, e.g. --set noise=0.2; repeatable."),
        ] = None,
    ) -> None:
        """Make volumes of images and targets, their settings, and a picture of the first samples."""
        from pipeline.synthetic.dataset import synthesize as run_synthesis
        from workflows.terminal.tables import bar

        with bar(f"synthesize {kind}") as advance:
            report = run_synthesis(kind, output, count=count, seed=seed, overrides=set_ or (), on_progress=advance)
        typer.echo(report)
