"""``petaseg self-train``: train, run on unlabelled tissue, keep what is sure, train on both."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workflows.commands.options import BoxOption, finite, named
from workflows.commands.train import SetOption
from workflows.terminal.starting import starting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pipeline.few_labels.rounds import SelfTraining
    from pipeline.few_labels.self_training import Steps
    from pipeline.few_labels.sure import SureBy
    from pipeline.runs.run import Run
    from pipeline.training.callbacks import Update
    from pipeline.training.config import TrainConfig

EPILOG = """Examples:

petaseg self-train train.yaml --unlabelled image.zarr --dry-run

petaseg self-train train.yaml --unlabelled image.zarr --rounds 1

petaseg self-train train.yaml --unlabelled image.zarr --sure-by agreement --output models/agreed

petaseg self-train train.yaml --unlabelled image.zarr --box 0:128,0:512,0:512 --sure 0.6 --output models/self

Killed at any time, the same command goes on. docs/few-labels.md tells what it writes and when it helps."""


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog=EPILOG)
    def self_train(
        file: Annotated[str, typer.Argument(help="Training file.")] = "train.yaml",
        unlabelled: Annotated[
            str, typer.Option(callback=named, metavar="VOLUME", help="Image without labels, of the same tissue.")
        ] = ...,  # type: ignore[assignment]  # required
        rounds: Annotated[int, typer.Option(min=1, max=100, help="Rounds of run, keep and train.")] = 1,
        sure: Annotated[
            float,
            typer.Option(callback=finite, help="Keep voxels whose predictions p have |2 p - 1| of at least this."),
        ] = 0.8,
        sure_by: Annotated[
            str,
            typer.Option(
                metavar="RULE",
                help="probability; or agreement: keep voxels whose predictions of eight flipped copies differ by at "
                "most 1 less --sure.",
            ),
        ] = "probability",
        output: Annotated[
            str | None, typer.Option(metavar="DIR", help="Folder to write; the training's with -self-trained.")
        ] = None,
        box: BoxOption = None,
        set_: SetOption = None,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, compute nothing.")] = False,
        quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress display.")] = False,
    ) -> None:
        """Train a network, and again on what it is sure of in an image without labels."""
        if not quiet:
            starting(f"opening {file}, loading what trains networks")
        from pipeline.config.reading import load_config
        from pipeline.few_labels.checks import check
        from pipeline.few_labels.self_training import self_train as run_steps
        from pipeline.training.config import TrainConfig, with_absolute_paths
        from workflows.terminal.few_labels import show_rounds

        config = with_absolute_paths(load_config(file, set_ or (), TrainConfig))
        plan = replace(plan_of(config, unlabelled, rounds, sure, output, box), sure_by=rule_named(sure_by))
        found = check(plan)
        if dry_run:
            for line in planned(plan):
                typer.echo(line)
            typer.echo(f"{file} is sound. {found}")
            return
        show_rounds(plan, run_steps(plan, steps_of(quiet)))


def plan_of(
    config: TrainConfig, unlabelled: str, rounds: int, sure: float, output: str | None, box: str | None
) -> SelfTraining:
    """The self-training of a command line."""
    from pipeline.few_labels.checks import whole_or
    from pipeline.few_labels.rounds import SelfTraining, absolute_folder
    from pipeline.storage import absolute
    from workflows.commands.options import parse_box
    from workflows.commands.train import require_finished_volumes

    require_finished_volumes(config)
    image = absolute(unlabelled, ".")
    part = whole_or(parse_box(box), image)
    return SelfTraining(config, image, absolute_folder(output, config), part, rounds, sure)


def rule_named(name: str) -> SureBy:
    """What a voxel is sure by; ``ConfigError`` for an unknown name."""
    from pipeline.errors import ConfigError
    from pipeline.few_labels.sure import READ

    if name not in READ:
        raise ConfigError(f"--sure-by is {name!r}; it must be one of {', '.join(READ)}")
    return name


def planned(plan: SelfTraining) -> list[str]:
    """What a self-training would do, a line for each step."""
    lines = [f"1. train the first model, {plan.config.output}"]
    for number in range(1, plan.rounds + 1):
        one = plan.round(number)
        lines += [
            f"{3 * number - 1}. run it on {plan.box} of {plan.unlabelled}: {one.run_file}",
            f"{3 * number}. keep {kept(plan)}: {one.mask}",
            f"{3 * number + 1}. train from the first weights on labels and sure voxels: {one.training_file}",
        ]
    return lines


def kept(plan: SelfTraining) -> str:
    """What a plan keeps, in words."""
    if plan.sure_by == "agreement":
        return f"where copies differ by at most {1 - plan.sure:g}"
    return f"what has |2 p - 1| of at least {plan.sure:g}"


def steps_of(quiet: bool) -> Steps:
    """The commands of the steps, with their progress on the terminal."""
    from pipeline.few_labels.self_training import Steps
    from workflows.driver import run_with_progress

    def run(file: Path) -> Run:
        return run_with_progress(str(file), quiet=quiet).run

    def say(text: str) -> None:
        if not quiet:
            typer.echo(text, err=True)

    return Steps(train=lambda config: train_completely(config, quiet), run=run, say=say)


def train_completely(config: TrainConfig, quiet: bool) -> None:
    """Do what ``petaseg train`` does, with the choice of the threshold."""
    from pipeline.training.trainer import train
    from workflows.commands.train import interrupted
    from workflows.interruption import saying
    from workflows.threshold import choose_threshold

    with saying(lambda: interrupted(config)), _line(quiet) as show:
        train(config, on_update=show)
    if config.choose_threshold:
        choose_threshold(config, quiet=quiet)


@contextmanager
def _line(quiet: bool) -> Iterator[Callable[[Update], None] | None]:
    """The line of a training, or nothing."""
    from workflows.terminal.training import training_line

    if quiet:
        yield None
        return
    with training_line() as show:
        yield show
