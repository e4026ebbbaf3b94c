"""``petaseg train``: train a network on labelled volumes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pipeline.training.config import TrainConfig

SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key, e.g. --set augmentation.blur=0; repeatable."),
]
EPILOG = """Examples:

petaseg train examples/train_synthetic.yaml --set output=models/first --set steps=200

petaseg train train.yaml --preview

docs/training.md explains every key."""


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog=EPILOG)
    def train(
        file: str = typer.Argument("train.yaml", help="Training file."),
        set_: SetOption = None,
        preview: bool = typer.Option(
            False, "--preview", help="Only draw patches with their random changes and targets, to look at."
        ),
    ) -> None:
        """Train a network, with checkpoints and a curve; run it again to continue after an interruption."""
        from pipeline.config.reading import load_config
        from pipeline.training.config import TrainConfig
        from workflows.terminal.tables import bar

        config: TrainConfig = load_config(file, set_ or (), TrainConfig)
        require_finished_volumes(config)
        if preview:
            from pipeline.training.preview import preview as draw_preview

            typer.echo(draw_preview(config))
            return
        from pipeline.training.trainer import train as run_train

        with bar("train") as advance:
            result = run_train(config, on_progress=advance)
        typer.echo(f"{result}\n{_next(config.output)}")


def require_finished_volumes(config: TrainConfig) -> None:
    """Refuse volumes that a run has not finished."""
    from pipeline.runs.origin import require_finished

    for volume in (*config.volumes, *([] if config.validation is None else [config.validation])):
        for url in (volume.image, volume.labels, volume.mask):
            if url is not None:
                require_finished(url)


def _next(folder: str) -> str:
    """The next command for the model of this folder."""
    from pipeline.config.strict_yaml import quoted
    from pipeline.models.spec import load_card
    from pipeline.runs.hints import command

    if load_card(folder).offsets:
        model = quoted(f"{folder}/card.yaml")
        return f"next: {command('run', 'run.yaml', [f'inference.model={model}'])}"
    return "it predicts no affinities of nearest neighbours, so petaseg run cannot use it; docs/training.md tells more"
