"""``petaseg ingest``: bring images into a chunked volume."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from workflows.commands.options import named, parse_shape, parse_sizes, parse_two, parse_vector

if TYPE_CHECKING:
    from pipeline.volumes.base import VolumeSpec


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog="Example: petaseg ingest stack/ image.zarr --resolution 40,4,4")
    def ingest(
        source: Annotated[
            str,
            typer.Argument(
                callback=named,
                help="Folder of TIFF, PNG or JPEG, tiles.json, stack.tif, file.h5, .npy, or a volume.",
            ),
        ],
        target: Annotated[str, typer.Argument(callback=named, help="Volume to write: path or URL.")],
        resolution: Annotated[
            str | None, typer.Option(metavar="Z,Y,X", help="Nanometres per voxel, if the source does not state them.")
        ] = None,
        offset: Annotated[
            str | None, typer.Option(metavar="Z,Y,X", help="Global position of the first voxel; the source's, or 0.")
        ] = None,
        dataset: Annotated[str | None, typer.Option(help="Dataset in an HDF5 file.")] = None,
        chunk: Annotated[
            str | None, typer.Option(metavar="Z,Y,X", help="Voxels of one stored chunk; 64,64,64 if left out.")
        ] = None,
        shard: Annotated[str | None, typer.Option(metavar="Z,Y,X", help="Voxels of one stored object.")] = None,
        format_: Annotated[
            str | None, typer.Option("--format", help="Such as zarr or precomputed; by the target's name if left out.")
        ] = None,
        to: Annotated[
            str | None, typer.Option(metavar="uint8", help="Convert 16-bit or float values to uint8.")
        ] = None,
        percentiles: Annotated[
            str | None,
            typer.Option(
                metavar="LOW,HIGH",
                help="With --to: percentiles of all values that become 0 and 255; 0.1,99.9 if left out.",
            ),
        ] = None,
        colours: Annotated[
            bool, typer.Option("--colours", help="Keep red, green and blue of image files as three channels.")
        ] = False,
        overwrite: Annotated[
            bool, typer.Option("--overwrite", help="Replace an existing volume that petaseg made.")
        ] = False,
    ) -> None:
        """Copy an image stack, HDF5, npy or any volume into chunks, slab by slab in bounded memory."""
        from pipeline.errors import ConfigError
        from pipeline.volumes import parse_target
        from pipeline.volumes.ingest import ingest as run_ingest
        from workflows.interruption import between_steps, this_command
        from workflows.terminal.tables import share_bar

        if not parse_target(target).entry.lasting:
            raise ConfigError(f"the target {target} is gone when this command ends; name a path or the URL of a bucket")

        def words(done: int, total: int) -> str:
            written = f"{done:,} of {total:,} blocks of {target} are written" if total else "no block is written yet"
            return f"{written}; go on with: {this_command(without='--overwrite')}"

        with share_bar("ingest") as advance, between_steps(lambda done, total: None, "block", words) as begin_block:
            report = run_ingest(
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
                colours=colours,
                overwrite=overwrite,
                on_progress=begin_block,
                on_voxels=advance,
            )
        typer.echo(report)
        for line in next_steps(report.url, report.spec):
            typer.echo(line)


def next_steps(url: str, spec: VolumeSpec) -> list[str]:
    """What can be done next with a volume: by its type and channels it is an image, affinities or labels.

    A volume of uint8 without channels may be a mask too; such lines begin with their purpose.
    """
    place = shlex.quote(url)
    if (spec.channels or 1) >= 3 and (spec.dtype == "uint8" or spec.dtype.kind == "f"):
        return [
            f"next, if these are affinities: petaseg init run.yaml --affinities {place}",
            *(_for_colours(url) if spec.dtype == "uint8" and spec.channels == 3 else []),
        ]
    if spec.channels not in (None, 1):
        one = shlex.quote(f"{url}#channel=0")
        return [f"no run reads {spec.channels} channels: take one of them ({one}), or affinities of z, y and x"]
    if spec.dtype == "uint8":
        return [f"next: petaseg init run.yaml --image {place}"]
    if spec.dtype.kind == "f" or spec.dtype in ("uint16", "int16"):
        return [
            f"next, if this is an image: petaseg ingest {place} image.zarr --to uint8   (a run reads uint8)",
            *(_for_labels(place) if spec.dtype.kind in "ui" else []),
        ]
    return _for_labels(place)


def _for_colours(url: str) -> list[str]:
    """What can be done with red, green and blue."""
    return [
        f"or, if these are colours: petaseg init run.yaml --model MODEL --image {shlex.quote(url)}   (in_channels: 3)",
        f"or, to use the green alone: petaseg init run.yaml --image {shlex.quote(f'{url}#channel=1')}",
    ]


def _for_labels(place: str) -> list[str]:
    """Commands for labels."""
    return [
        f"next, to train on these labels: petaseg init train.yaml --image IMAGE --labels {place}",
        f"or to score with them: petaseg run run.yaml --set evaluation.labels={place}",
        f"or to score them: petaseg evaluate TRUTH {place}",
    ]
