"""``petaseg export``: a volume of a finished run, or its supervoxels and merge tree, for another program."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

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
        from pipeline.errors import ConfigError
        from pipeline.geometry import Vec
        from pipeline.handover import HANDOVERS, hand_over
        from pipeline.runs.exported import exported, image_of
        from pipeline.runs.run import Run
        from pipeline.runs.swc import SWC, export_swc
        from pipeline.volumes.export import WRITERS
        from pipeline.volumes.export import export as write
        from workflows.terminal.tables import say

        if graph_chunk is not None and to != "pychunkedgraph":
            raise ConfigError(f"--graph-chunk is for --to pychunkedgraph, and --to is {to}: leave it out")
        if segments and to != SWC:
            raise ConfigError(f"--segment is for --to {SWC}, and --to is {to}: leave it out")
        if to not in {*WRITERS, *HANDOVERS, SWC}:
            raise ConfigError(f"--to is {to!r}; there are {', '.join((*WRITERS, *HANDOVERS, SWC))}: choose one")
        opened = Run.open(run, tuple(set_ or ()))
        if to == SWC:
            if box or volume or sharded:
                raise ConfigError(f"--box, --volume and --sharded are about voxels; --to {to} has none: leave them out")
            with _bar(quiet) as advance:
                count = export_swc(opened, output, segments or (), advance)
            if not quiet:
                say(f"{output} has {count:,} skeletons of {opened.url}")
            return
        if to in HANDOVERS:
            if box or volume or sharded:
                raise ConfigError(
                    f"--box, --volume and --sharded are about voxels; --to {to} hands on a whole run: leave them out"
                )
            given = {} if graph_chunk is None else {"graph_chunk": Vec(*parse_shape(graph_chunk, "--graph-chunk"))}
            with _bar(quiet) as advance:
                hand_over(opened, output, to, advance, **given)
            if not quiet:
                say(f"{output} has the supervoxels of {opened.url}, and what joins them")
            return
        wanted, roi = exported(opened, volume), opened.layout.roi
        part = parse_box(box) or roi
        if not roi.contains(part):
            raise ConfigError(f"--box is {part}, and the run has computed {roi}; choose a box within it")
        beside = None if wanted.name == "image" else image_of(opened)
        with _bar(quiet) as advance:
            write(wanted, output, to, part, advance, beside, sharded)
        if not quiet:
            say(f"{output} has {part.voxels:,} voxels of {wanted.name} of {opened.url}")


@contextmanager
def _bar(quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A progress bar, or nothing."""
    from workflows.terminal.tables import share_bar

    if quiet:
        yield lambda done, total: None
        return
    with share_bar("export") as advance:
        yield advance
