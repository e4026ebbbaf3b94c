"""``petaseg export``: a volume of a finished run, or its supervoxels and merge tree, for another program."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pipeline.runs.run import Run

from workflows.commands.options import BoxOption, RunArgument, SetOption, named, parse_box, parse_shape

KINDS = "precomputed, ome-zarr, hdf5, tiff; or of a whole run parquet, webknossos, pychunkedgraph; or of skeletons swc"


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(
        epilog="Examples: petaseg export runs/first neurons.tif --to tiff --box 0:64,0:512,0:512; "
        "petaseg export runs/first layer --to precomputed --sharded; "
        "petaseg export runs/first tables --to parquet; petaseg export runs/first dataset --to webknossos; "
        "petaseg export runs/first lines --to swc; "
        "petaseg export runs/first graph --to pychunkedgraph --graph-chunk 64,512,512"
    )
    def export(
        run: RunArgument,
        output: Annotated[str, typer.Argument(callback=named, help="File or folder to write; it must not exist.")],
        to: Annotated[str, typer.Option("--to", metavar="FORMAT", help=f"One of {KINDS}.")],
        box: BoxOption = None,
        volume: Annotated[
            str | None, typer.Option(help="Volume of the run, such as labels or image; its result if left out.")
        ] = None,
        sharded: Annotated[
            bool,
            typer.Option("--sharded", help="precomputed: many chunks in a file, for volumes of millions of chunks."),
        ] = False,
        graph_chunk: Annotated[
            str | None,
            typer.Option(metavar="Z,Y,X", help="pychunkedgraph: voxels of a chunk of the graph; else 256,256,256."),
        ] = None,
        segments: Annotated[
            list[int] | None, typer.Option("--segment", min=1, help="swc: this segment alone; repeatable. Else all.")
        ] = None,
        set_: SetOption = None,
        quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress display.")] = False,
    ) -> None:
        """Write a volume of a run for Neuroglancer, Fiji, VAST and others, block by block in bounded memory.

        precomputed and ome-zarr get all levels that petaseg add RUN downsample has made; ome-zarr has the image too.
        parquet, webknossos and pychunkedgraph hand on the whole run for proofreading: supervoxels, contacts, merges,
        neurons. swc makes a folder with a file for each skeleton that petaseg add RUN skeletons has made.
        The output appears when it is complete.
        """
        from pipeline.handover import HANDOVERS
        from pipeline.runs.run import Run
        from pipeline.runs.swc import SWC
        from workflows.terminal.tables import say

        _check(to, of_voxels={"--box": box, "--volume": volume, "--sharded": sharded}, graph=graph_chunk, some=segments)
        opened = Run.open(run, tuple(set_ or ()))
        with _bar(quiet) as advance:
            if to == SWC:
                words = _write_swc(opened, output, segments or (), advance)
            elif to in HANDOVERS:
                words = _hand_over(opened, output, to, graph_chunk, advance)
            else:
                words = _write_volume(opened, output, to, volume, box, advance, sharded=sharded)
        if not quiet:
            say(f"{output} has {words}")


Advance = Callable[[int, int], None]


def _check(to: str, *, of_voxels: Mapping[str, object], graph: str | None, some: Sequence[int] | None) -> None:
    """``ConfigError`` for a format that there is not, and for options of another one."""
    from pipeline.errors import ConfigError
    from pipeline.handover import HANDOVERS
    from pipeline.runs.swc import SWC
    from pipeline.volumes.export import WRITERS

    formats = {**WRITERS, **HANDOVERS, SWC: None}
    if to not in formats:
        raise ConfigError(f"--to is {to!r}; there are {', '.join(formats)}: choose one")
    if graph is not None and to != "pychunkedgraph":
        raise ConfigError(f"--graph-chunk is for --to pychunkedgraph, and --to is {to}: leave it out")
    if some and to != SWC:
        raise ConfigError(f"--segment is for --to {SWC}, and --to is {to}: leave it out")
    given = [name for name, value in of_voxels.items() if value]
    if given and to not in WRITERS:
        raise ConfigError(
            f"{', '.join(given)} is about voxels, and --to {to} writes none of a single volume: leave it out"
        )


def _write_swc(run: Run, output: str, segments: Sequence[int], advance: Advance) -> str:
    """Write skeletons; returns what was written, in words."""
    from pipeline.runs.swc import export_swc

    return f"{export_swc(run, output, segments, advance):,} skeletons of {run.url}"


def _hand_over(run: Run, output: str, to: str, graph_chunk: str | None, advance: Advance) -> str:
    """Write supervoxels and what joins them; returns what was written, in words."""
    from pipeline.geometry import Vec
    from pipeline.handover import hand_over

    given = {} if graph_chunk is None else {"graph_chunk": Vec(*parse_shape(graph_chunk, "--graph-chunk"))}
    hand_over(run, output, to, advance, **given)
    return f"the supervoxels of {run.url}, and what joins them"


def _write_volume(
    run: Run, output: str, to: str, volume: str | None, box: str | None, advance: Advance, *, sharded: bool
) -> str:
    """Write a volume; returns what was written, in words."""
    from pipeline.errors import ConfigError
    from pipeline.runs.exported import exported, image_of
    from pipeline.volumes.export import export as write

    wanted, roi = exported(run, volume), run.layout.roi
    part = parse_box(box) or roi
    if not roi.contains(part):
        raise ConfigError(f"--box is {part}, and the run has computed {roi}; choose a box within it")
    beside = None if wanted.name == "image" else image_of(run)
    write(wanted, output, to, part, advance, beside, sharded)
    return f"{part.voxels:,} voxels of {wanted.name} of {run.url}"


@contextmanager
def _bar(quiet: bool) -> Iterator[Advance]:
    """A progress bar, or nothing."""
    from workflows.terminal.tables import share_bar

    if quiet:
        yield lambda done, total: None
        return
    with share_bar("export") as advance:
        yield advance
