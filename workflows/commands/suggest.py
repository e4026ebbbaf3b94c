"""``petaseg suggest``: which boxes of a run are worth labelling next."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from workflows.commands.options import RunArgument, SetOption, parse_shape
from workflows.terminal.starting import starting

if TYPE_CHECKING:
    from pipeline.few_labels.suggestions import Wanted
    from pipeline.runs.run import Run

EPILOG = """Examples:

petaseg suggest run.yaml --boxes 10

petaseg suggest runs/first --boxes 20 --box-shape 32,128,128 --labelled train.yaml --output to_label

docs/few-labels.md tells how boxes are chosen and labelled."""


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog=EPILOG)
    def suggest(
        run: RunArgument = "run.yaml",
        boxes: Annotated[int, typer.Option(min=1, max=10_000, help="How many boxes to suggest.")] = 10,
        box_shape: Annotated[
            str | None, typer.Option(metavar="Z,Y,X", help="Voxels of a box; the network's patch if left out.")
        ] = None,
        labelled: Annotated[
            str | None, typer.Option(metavar="FILE", help="Training file; what it has labels of is not suggested.")
        ] = None,
        output: Annotated[
            str | None, typer.Option(metavar="DIR", help="Folder to write; suggestions beside the run directory.")
        ] = None,
        describe_by: Annotated[
            str, typer.Option(metavar="NAME", help="How images are told apart: pooled features, or codes of a vae.")
        ] = "pooled",
        set_: SetOption = None,
        quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress display.")] = False,
    ) -> None:
        """Suggest boxes of a run to label next: where its network is unsure, and the tissue looks different."""
        if not quiet:
            starting(f"opening {run}")
        from pipeline.few_labels import suggestions
        from pipeline.runs.run import Run
        from workflows.terminal.few_labels import show_suggestions
        from workflows.terminal.tables import bars

        wanted = wanted_of(Run.open(run, set_ or ()), boxes, box_shape, labelled, output, describe_by)
        suggestions.check(wanted)
        found = suggestions.known(wanted)
        if found is None:
            with bars() as advance:
                tell = (lambda done, total: None) if quiet else (lambda done, total: advance("boxes", done, total))
                found = suggestions.suggest(wanted, tell)
        show_suggestions(wanted, found)


def wanted_of(
    run: Run, boxes: int, box_shape: str | None, labelled: str | None, output: str | None, describe_by: str
) -> Wanted:
    """What a command line asks for; ``ConfigError`` if the run has no finished heads, or no image."""
    from pipeline.config.reading import load_config
    from pipeline.errors import ConfigError
    from pipeline.few_labels.suggestions import STREAMS, Wanted, labelled_boxes
    from pipeline.geometry import as_vec
    from pipeline.storage import absolute, local_path
    from pipeline.training.config import TrainConfig
    from workflows.driver import check_complete

    if describe_by not in STREAMS:
        raise ConfigError(f"--describe-by is {describe_by!r}; it must be one of {', '.join(STREAMS)}")
    network = run.inputs.network
    if network is None:
        raise ConfigError(
            f"{run.source} begins with {', '.join(run.inputs.heads)}; boxes are chosen by the image too, and crops of "
            "it are written: give the run an image (input.image)"
        )
    check_complete(run, "heads")
    shape = network.patch_shape if box_shape is None else as_vec(parse_shape(box_shape, "--box-shape"))
    known = () if labelled is None else labelled_boxes(load_config(labelled, (), TrainConfig), run)
    place = output or f"{run.url.rstrip('/')}-suggestions"
    if local_path(place) is None:
        raise ConfigError(f"--output is {place}; crops are painted on this machine: name a folder with --output")
    return Wanted(run, Path(absolute(place, ".")), boxes, shape, known, describe_by)
