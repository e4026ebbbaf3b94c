"""``petaseg ingest``: bring images into a chunked volume."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import typer

from workflows.commands.options import named, parse_shape, parse_sizes, parse_two, parse_values, parse_vector

SourceArgument = Annotated[
    str,
    typer.Argument(
        callback=named, help="Folder of TIFF, PNG or JPEG, tiles.json, stack.tif, file.h5, .npy, or a volume."
    ),
]
TargetArgument = Annotated[str, typer.Argument(callback=named, help="Volume to write: path or URL.")]
ResolutionOption = Annotated[
    str | None, typer.Option(metavar="Z,Y,X", help="Nanometres per voxel, if the source does not state them.")
]
OffsetOption = Annotated[
    str | None, typer.Option(metavar="Z,Y,X", help="Global position of the first voxel; the source's, or 0.")
]
DatasetOption = Annotated[str | None, typer.Option(help="Dataset in an HDF5 file.")]
ChunkOption = Annotated[
    str | None, typer.Option(metavar="Z,Y,X", help="Voxels of one stored chunk; 64,64,64 if left out.")
]
ShardOption = Annotated[str | None, typer.Option(metavar="Z,Y,X", help="Voxels of one stored object.")]
FormatOption = Annotated[
    str | None, typer.Option("--format", help="Such as zarr or precomputed; by the target's name if left out.")
]
ToOption = Annotated[str | None, typer.Option(metavar="uint8", help="Convert 16-bit or float values to uint8.")]
PercentilesOption = Annotated[
    str | None,
    typer.Option(
        metavar="LOW,HIGH",
        help="With --to: percentiles of all values that become 0 and 255; 0.1,99.9 if left out.",
    ),
]
SelectOption = Annotated[
    str | None,
    typer.Option(
        metavar="VALUE,...", help="Write 1 where the source has one of these values and 0 elsewhere, as uint8."
    ),
]
ColoursOption = Annotated[
    bool, typer.Option("--colours", help="Keep red, green and blue of image files as three channels.")
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace an existing volume that petaseg made.")]


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog="Example: petaseg ingest stack/ image.zarr --resolution 40,4,4")
    def ingest(
        source: SourceArgument,
        target: TargetArgument,
        resolution: ResolutionOption = None,
        offset: OffsetOption = None,
        dataset: DatasetOption = None,
        chunk: ChunkOption = None,
        shard: ShardOption = None,
        format_: FormatOption = None,
        to: ToOption = None,
        percentiles: PercentilesOption = None,
        select: SelectOption = None,
        colours: ColoursOption = False,
        overwrite: OverwriteOption = False,
    ) -> None:
        """Copy an image stack, HDF5, npy or any volume into chunks, slab by slab in bounded memory."""
        copy(
            source,
            target,
            resolution_nm=None if resolution is None else parse_sizes(resolution, "--resolution"),
            offset=None if offset is None else parse_vector(offset, "--offset"),
            storage_chunk=None if chunk is None else parse_shape(chunk, "--chunk"),
            shard=None if shard is None else parse_shape(shard, "--shard"),
            format=format_,
            dataset=dataset,
            to=to,
            percentiles=None if percentiles is None else parse_two(percentiles, "--percentiles"),
            select=None if select is None else parse_values(select, "--select"),
            colours=colours,
            overwrite=overwrite,
        )


def copy(source: str, target: str, **options: Any) -> None:
    """Ingest with a progress bar, and say what was written and what can be done with it.

    options: those of ``pipeline.volumes.ingest.ingest``. Raises what that does, and ``ConfigError`` for a target
    in memory.
    """
    from pipeline.volumes.ingest import ingest as run_ingest
    from workflows.commands.ingested import next_steps
    from workflows.interruption import between_steps
    from workflows.terminal.tables import share_bar

    refuse_passing(target)
    words = partial(progress_words, target)
    with share_bar("ingest") as advance, between_steps(lambda done, total: None, "block", words) as begin_block:
        report = run_ingest(source, target, **options, on_progress=begin_block, on_voxels=advance)
    typer.echo(report)
    for line in next_steps(report.url, report.spec):
        typer.echo(line)


def refuse_passing(target: str) -> None:
    """``ConfigError`` for a target in memory."""
    from pipeline.errors import ConfigError
    from pipeline.volumes import parse_target

    if not parse_target(target).entry.lasting:
        raise ConfigError(f"the target {target} is gone when this command ends; name a path or the URL of a bucket")


def progress_words(target: str, done: int, total: int) -> str:
    """What an interrupted ingest has written, and the command that goes on with it."""
    from workflows.interruption import this_command

    written = f"{done:,} of {total:,} blocks of {target} are written" if total else "no block is written yet"
    return f"{written}; go on with: {this_command(without='--overwrite')}"
