"""``petaseg train``: train a network on labelled volumes."""

from __future__ import annotations

import typer

from workflows.commands.options import SetOption


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog="Example: petaseg train examples/train_synthetic.yaml --set steps=200")
    def train(
        file: str = typer.Argument("train.yaml", help="Training file."),
        set_: SetOption = None,
        preview: bool = typer.Option(
            False, "--preview", help="Only draw patches with their random changes and targets, to look at."
        ),
    ) -> None:
        """Train a network, with checkpoints and a curve; run again to go on after an interruption."""
        from pipeline.config import load_config
        from pipeline.training.config import TrainConfig
        from workflows.display import bar

        config = load_config(file, set_ or (), TrainConfig)
        if preview:
            from pipeline.training.preview import preview as draw_preview

            typer.echo(draw_preview(config))
            return
        from pipeline.training.trainer import train as run_train

        with bar("train") as advance:
            result = run_train(config, on_progress=advance)
        typer.echo(f"{result}\nnext: petaseg run run.yaml --set inference.model={config.output}/card.yaml")
