"""``petaseg init``: write a commented example of a run file, or of a training file."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pipeline.config.base import Table

SCHEMA = "run.schema.json"
TRAINING_SCHEMA = "train.schema.json"
EPILOG = """Examples:

petaseg init run.yaml --image my_volume.zarr

petaseg init train.yaml --image my_volume.zarr --labels my_labels.zarr"""
EXAMPLE = """\
# A petaseg run: from an image (or affinities) to neurons.   petaseg plan run.yaml   then   petaseg run run.yaml
# Shapes and positions are z, y, x, in voxels. Relative paths count from this file's folder.
# yaml-language-server: $schema={schema}

run_directory: {directory}   # everything the run writes goes here; one directory for each image

input:
  image: {image}         # zarr, OME-Zarr, precomputed://, file.h5:dataset; local path, s3:// or gs://
  # affinities: affinities.zarr    # instead of image: predicted by any program; then no network is run
  # affinity_offsets: [[-1, 0, 0], [0, -1, 0], [0, 0, -1]]   # partner of each channel
  # mask: tissue.zarr              # 0 = outside the tissue
  # start: [0, 0, 0]               # region of interest; the whole dataset if left out
  # stop: [512, 2048, 2048]

# The result does not depend on these two, only speed and memory do.
chunk_shape: [128, 128, 128]       # one unit of work; a multiple of the storage chunk
storage_chunk_shape: [64, 64, 64]  # one stored object

inference:
  model: fib25-tiny                # `petaseg models` lists the bundled ones; or the path of a card.yaml
  batch_size: 1
  device: auto                     # auto, cpu or cuda
  augmentation: none               # none, flips, flips+transpose: average over 8 or 16 mirrored copies
  threads: 1                       # CPU threads of one forward pass

supervoxels:
  mode: auto                       # volume, section; auto chooses by the shape of the voxels
  # threshold: 0.5                 # inside a cell if the mean of a voxel's affinities is at least this

agglomeration:
  linkage: mean                    # mean, or quantile (with quantile: 0.5)
  stop_score: 0.05                 # the merge tree is built down to here

segmentation:                      # can be changed without the network: petaseg relabel run.yaml --threshold 0.4
  # threshold: 0.5                 # lower merges more; default: the model card's
  min_size: 0                      # pieces of fewer voxels follow their next merge
  # min_size_threshold: 0.2        # ... down to this score

# evaluation:                      # scores against ground truth
#   labels: truth.zarr

execution:
  executor: threads                # serial, threads, dask
  workers: 2
  # scheduler: tcp://host:8786     # an existing Dask cluster
  # metrics: 127.0.0.1:9095        # Prometheus metrics of the driver
  attempts: 3                      # a chunk that failed this often is set aside, the rest goes on
"""


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog=EPILOG)
    def init(
        file: Annotated[str, typer.Argument(help="File to write: a path or a URL.")] = "run.yaml",
        image: Annotated[
            str | None, typer.Option(help="Volume to segment, or to train on; image.zarr if left out.")
        ] = None,
        labels: Annotated[
            str | None,
            typer.Option(help="Labels of the image: write a training file, with parts and patches that fit."),
        ] = None,
        schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of a run file instead.")] = False,
        keys: Annotated[bool, typer.Option("--keys", help="Print a page of all keys instead.")] = False,
        force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    ) -> None:
        """Write a commented run file (with --labels, a training file), and its JSON schema for editors."""
        from pipeline.config.reading import json_schema
        from pipeline.runs.hints import command

        for name, text in (("FILE", file), ("--image", image), ("--labels", labels)):
            _check_name(name, text)
        if schema:
            typer.echo(json.dumps(json_schema(), indent=2))
            return
        if keys:
            from pipeline.config.reference import markdown

            typer.echo(markdown(), nl=False)
            return
        if labels is not None:
            write_training_example(file, image or "image.zarr", labels, force=force)
            typer.echo(f"wrote {file}; next: {command('train', file, (), '--preview')}, then {command('train', file)}")
            return
        write_example(file, "image.zarr" if image is None else from_folder_of(file, image), force=force)
        typer.echo(f"wrote {file}; next: {command('plan', file)}, then {command('run', file)}")


def _check_name(option: str, text: str | None) -> None:
    """Refuse names that no file can hold on one line."""
    from pipeline.config.base import check_path
    from pipeline.errors import ConfigError

    try:
        if text is not None:
            check_path(text)
    except ValueError as error:
        raise ConfigError(f"{option}: {error}") from None


def from_folder_of(file: str, place: str) -> str:
    """A path or URL, typed in the present folder, as a run file must name it: relative paths count from its folder."""
    from pipeline.storage import absolute, local_path, parent_of

    folder = parent_of(absolute(file, ".")) or ""
    if absolute(place, folder) == absolute(place, "."):
        return place  # a URL, an absolute path, or the same folder
    if local_path(folder) is None:
        return absolute(place, ".")
    return os.path.relpath(absolute(place, "."), folder)


def write_example(file: str | Path, image: str, *, force: bool = False) -> None:
    """Write the example and its schema beside it; ``ConfigError`` if the file is there."""
    from pipeline.config.run_file import RunConfig
    from pipeline.config.strict_yaml import quoted

    text = EXAMPLE.format(image=quoted(image), schema=SCHEMA, directory=run_directory_for(str(file), image))
    _write(file, text, SCHEMA, RunConfig, force)


def run_directory_for(file: str, image: str) -> str:
    """A run directory that no other run file in the folder shares: it is named like the image and the file.

    >>> run_directory_for("run.yaml", "s3://bucket/cortex.zarr"), run_directory_for("fine.yaml", "cortex.h5:raw")
    ('runs/cortex', 'runs/cortex-raw-fine')
    """
    names = [_plain(image.partition("#")[0]), _plain(file)]
    return "runs/" + ("-".join(name for name in dict.fromkeys(names) if name != "run") or "first")


def _plain(address: str) -> str:
    """The last part of an address without its ending, in characters that need no quotes anywhere."""
    last = address.rstrip("/").rpartition("/")[2]
    stem = re.sub(r"\.(zarr|ome|n5|h5|hdf5|hdf|npy|tiff?|ya?ml)(?=$|[.:])", "", last, flags=re.IGNORECASE)
    return re.sub(r"[^A-Za-z0-9_]+", "-", stem).strip("-") or "run"


def write_training_example(file: str | Path, image: str, labels: str, *, force: bool = False) -> None:
    """Write an example of a training file and its schema, for volumes that exist."""
    from pipeline.training.config import TrainConfig
    from pipeline.training.example import example

    text = example(image, labels, file=str(file), schema=TRAINING_SCHEMA)
    _write(file, text, TRAINING_SCHEMA, TrainConfig, force)


def _write(file: str | Path, text: str, schema: str, model: type[Table], force: bool) -> None:
    """Write both files; ``ConfigError`` if the first exists."""
    from pipeline.config.reading import json_schema
    from pipeline.errors import ConfigError
    from pipeline.storage import store_of

    store, key = store_of(file)
    if store.exists(key) and not force:
        raise ConfigError(f"{file} is there already; give another name, or --force to replace it")
    store.put(schema, (json.dumps(json_schema(model), indent=2) + "\n").encode())
    store.put(key, text.encode())
