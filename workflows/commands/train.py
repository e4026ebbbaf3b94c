"""``petaseg train``: train a network on labelled volumes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from workflows.terminal.starting import starting

if TYPE_CHECKING:
    from pipeline.training.config import TrainConfig

SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key, e.g. --set augmentation.blur=0; repeatable."),
]
FILE = "train.yaml"
EPILOG = """Examples:

petaseg train examples/train_synthetic.yaml --set output=models/first --set steps=200

petaseg train train.yaml --preview

petaseg train --sections painted.zarr --image image.zarr --output models/mine

docs/training.md explains every key."""


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog=EPILOG)
    def train(
        file: str = typer.Argument(FILE, help="Training file."),
        set_: SetOption = None,
        preview: bool = typer.Option(
            False, "--preview", help="Only draw patches with their random changes and targets, to look at."
        ),
        dry_run: bool = typer.Option(False, "--dry-run", help="Check everything, train nothing."),
        threshold: bool = typer.Option(
            True, "--threshold/--no-threshold", help="Choose the card's threshold on the validation part at the end."
        ),
        sections: str | None = typer.Option(
            None, metavar="LABELS", help="Train on painted sections of a stack, without a file; 0 is not painted."
        ),
        image: str | None = typer.Option(None, help="With --sections: the stack."),
        output: str | None = typer.Option(None, help="With --sections: folder of the model."),
        at: str | None = typer.Option(None, metavar="Z,Z", help="With --sections: which are painted; all if left out."),
        gap: int = typer.Option(10, min=0, help="With --sections: 0 between cells, up to so many voxels, is membrane."),
        stack: str = typer.Option("stack", help="With --sections: the network that reads stacks of maps."),
    ) -> None:
        """Train a network, with checkpoints and a curve; run it again to continue after an interruption."""
        starting(f"opening {sections or file}, loading what trains networks")
        from workflows.interruption import saying

        painted = painted_of(file, sections, image, output, at, gap, stack)
        if dry_run:
            check_only(file, painted, set_ or ())
            return
        config: TrainConfig = config_of(file, painted, set_ or ())
        require_finished_volumes(config)
        if preview:
            from pipeline.training.preview import preview as draw_preview

            typer.echo(draw_preview(config))
            return
        from pipeline.training.dry_run import heads_of_targets, use_of
        from pipeline.training.trainer import first_process
        from pipeline.training.trainer import train as run_train
        from workflows.terminal.training import training_line

        if first_process():
            _name_unused(config)
            typer.echo(use_of(heads_of_targets(config.channels)))
        with saying(lambda: interrupted(config)), training_line() as show:
            result = run_train(config, on_update=show)
        if not first_process():
            return
        typer.echo(result)
        if threshold and config.choose_threshold:
            from workflows.threshold import choose_threshold

            typer.echo(choose_threshold(config))
        if painted is not None:
            from pipeline.training.painted import join

            typer.echo(
                f"model of both networks in {painted.output}: {join(config, painted.output, painted.stack).name}"
            )
        typer.echo(_next(config.output if painted is None else painted.output))


@dataclass(frozen=True)
class Painted:
    """The options of a training on painted sections."""

    labels: str
    image: str
    output: str
    at: tuple[int, ...] | None
    gap: int
    stack: str


def painted_of(
    file: str, labels: str | None, image: str | None, output: str | None, at: str | None, gap: int, stack: str
) -> Painted | None:
    """The options of ``--sections``, ``None`` without it; ``typer.BadParameter`` for options that do not fit."""
    if labels is None:
        given = [name for name, value in (("--image", image), ("--output", output), ("--at", at)) if value is not None]
        if given:
            raise typer.BadParameter(f"{given[0]} belongs to --sections LABELS: add that, or leave it out")
        return None
    if image is None or output is None:
        raise typer.BadParameter("--sections needs --image IMAGE, the stack, and --output FOLDER, for the model")
    if file != FILE:
        raise typer.BadParameter(f"both {file} and --sections are given; with --sections leave the file out, use --set")
    try:
        numbers = None if at is None else tuple(int(z) for z in at.split(","))
    except ValueError:
        raise typer.BadParameter(f"--at is {at!r}; it must be numbers of sections, such as 12 or 12,40,71") from None
    return Painted(labels, image, output, numbers, gap, stack)


def check_only(file: str, painted: Painted | None, sets: Sequence[str]) -> None:
    """Check everything and say what would be trained; the closed labels of painted sections last as long as this."""
    from pipeline.training.dry_run import dry_run
    from pipeline.training.painted import refuse_other_model

    with TemporaryDirectory() as folder:
        if painted is not None:
            refuse_other_model(Path(painted.output))
        config = config_of(file, painted and replace(painted, output=folder), sets)
        require_finished_volumes(config)
        typer.echo(f"{painted.labels if painted else file} is sound. {dry_run(config)}")
        _name_unused(config)


def config_of(file: str, painted: Painted | None, sets: Sequence[str]) -> TrainConfig:
    """The training of a file, or of painted sections."""
    if painted is None:
        from pipeline.config.reading import load_config
        from pipeline.training.config import TrainConfig

        return load_config(file, sets, TrainConfig)
    from pipeline.training.painted import sections_config, stack_card

    stack_card(painted.stack)
    return sections_config(
        painted.labels, painted.image, painted.output, at=painted.at, gap=painted.gap, overrides=sets
    )


def _name_unused(config: TrainConfig) -> None:
    """Name what the file sets in vain; ``ConfigError`` for what contradicts."""
    from pipeline.training.unused import unused_keys

    for each in unused_keys(config):
        typer.echo(str(each))


def interrupted(config: TrainConfig) -> str:
    """What an interrupted training has kept, and the command that goes on."""
    from pipeline.training.trainer import saved
    from workflows.interruption import this_command

    checkpoint = saved(config)
    if checkpoint is None:
        return f"there was no validation yet, so nothing is kept; begin anew with: {this_command()}"
    kept = f"the checkpoint in {config.output} holds {checkpoint['global_step']:,} of {config.steps:,} steps"
    return f"{kept}; go on with: {this_command()}"


def require_finished_volumes(config: TrainConfig) -> None:
    """Refuse volumes that a run has not finished."""
    from pipeline.runs.origin import require_finished

    for volume in (*config.volumes, *([] if config.validation is None else [config.validation])):
        for url in (volume.image, volume.labels, volume.mask):
            if url is not None:
                require_finished(url)


def _next(folder: str) -> str:
    """The next command for the model of this folder."""
    from pipeline.models.heads import heads_of, uses
    from pipeline.models.spec import load_card
    from pipeline.runs.hints import command

    heads = heads_of(load_card(folder))
    if any(head.makes_neurons for head in heads):
        return f"next: {command('init', 'run.yaml', (), '--image', 'IMAGE', '--model', folder)}"
    return f"a run can make of it: {uses(heads)}; docs/predictions.md tells more"
