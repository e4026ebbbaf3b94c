"""``petaseg suspects``: the places of a run that are probably wrong, those first that it pays to look at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from workflows.commands.options import BoxOption, RunArgument, SetOption, parse_box
from workflows.terminal.starting import starting

if TYPE_CHECKING:
    from pipeline.runs.run import Run
    from pipeline.suspects.model import Model

EPILOG = """Examples:

petaseg suspects runs/first --top 200 --csv

petaseg suspects runs/first --calibrate truth.zarr --box 0:100,0:500,0:500

petaseg suspects runs/second --model runs/first/tables/suspects.json --merger 5

docs/suspects.md tells how places are found and weighed."""


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog=EPILOG)
    def suspects(
        run: RunArgument = "run.yaml",
        top: Annotated[int, typer.Option(min=1, max=100_000, help="How many places to list.")] = 1000,
        split: Annotated[float, typer.Option(min=0, help="Minutes that a small split costs later.")] = 0.1,
        merger: Annotated[float, typer.Option(min=0, help="Minutes that a small merger costs later.")] = 1.0,
        large: Annotated[float, typer.Option(min=1, help="How many times as much a large error costs.")] = 10.0,
        look: Annotated[float, typer.Option(min=0, help="Minutes that it takes to judge a suspected split.")] = 0.05,
        look_merger: Annotated[float, typer.Option(min=0, help="The same of a suspected merger.")] = 0.5,
        as_csv: Annotated[bool, typer.Option("--csv", help="Write tables/suspects.csv besides.")] = False,
        calibrate: Annotated[
            str | None,
            typer.Option(metavar="LABELS", help="Fit the probabilities to these true neurons and keep them."),
        ] = None,
        box: BoxOption = None,
        model: Annotated[
            str | None, typer.Option(metavar="FILE", help="Probabilities that --calibrate has fitted elsewhere.")
        ] = None,
        nuclei: Annotated[
            str, typer.Option(metavar="NAME", help="The volume of organelles.volumes that holds nuclei.")
        ] = "nuclei",
        sections: Annotated[
            bool, typer.Option("--sections", help="List sections where affinities collapse; reads all of them.")
        ] = False,
        disagreement: Annotated[
            bool, typer.Option("--disagreement", help="List blocks where augmented copies of the image disagree.")
        ] = False,
        set_: SetOption = None,
    ) -> None:
        """Rank places of a finished run by the minutes of proofreading that looking there is expected to save.

        It reads the stored tables of the run, and writes tables/suspects.parquet into its directory.

        With --sections it reads all affinities besides, and writes tables/sections.parquet; with --disagreement the
        least and largest values that a run with augmentation_rule mean+extremes has stored, and writes
        tables/disagreement.parquet.
        """
        starting(f"opening {run}")
        from pipeline.runs.lease import Lease
        from pipeline.runs.run import Run
        from pipeline.suspects.costs import Costs
        from pipeline.suspects.disagreement import find_blocks, heads_with_extremes, write_blocks
        from pipeline.suspects.listing import keep_model, model_of, read_list, write_list
        from pipeline.suspects.ranking import check_nuclei, check_run, rank
        from pipeline.suspects.sections import find_sections, write_sections
        from pipeline.suspects.tables import Tables
        from workflows.terminal.suspects import show_blocks, show_sections, show_suspects

        _check_options(calibrate, box, model)
        costs = Costs(split, merger, large, look, look_merger)
        opened = Run.open(run, set_ or ())
        check_run(opened)
        check_nuclei(opened, nuclei)
        if disagreement:
            heads_with_extremes(opened)
        fitted = _calibrated(opened, calibrate, box) if calibrate else model_of(opened, model)
        starting("ranking")
        ranked, places = rank(opened, fitted, costs, top, nuclei)
        if sections:
            starting("reading affinities")
        collapsed = find_sections(opened) if sections else None
        if disagreement:
            starting("comparing copies")
        blocks = find_blocks(opened) if disagreement else None
        with Lease(opened.store, seconds=opened.config.execution.lease_seconds):
            if calibrate:
                keep_model(opened, fitted)
            write_list(opened, ranked, places, text=as_csv)
            if collapsed is not None:
                write_sections(opened, collapsed)
            if blocks is not None:
                write_blocks(opened, blocks)
        show_suspects(Tables(opened, nuclei=nuclei), read_list(opened), fitted)
        if collapsed is not None:
            show_sections(opened, collapsed)
        if blocks is not None:
            show_blocks(opened, blocks)


def _check_options(calibrate: str | None, box: str | None, model: str | None) -> None:
    from pipeline.errors import ConfigError

    if calibrate and model:
        raise ConfigError(f"--calibrate {calibrate} fits a model and --model {model} names one: leave one out")
    if box and not calibrate:
        raise ConfigError(f"--box {box} says which labels --calibrate uses: give --calibrate LABELS as well")


def _calibrated(run: Run, labels: str, box: str | None) -> Model:
    from pipeline.suspects.calibration import calibrate

    starting(f"counting {labels}")
    return calibrate(run, labels, None if box is None else parse_box(box))
