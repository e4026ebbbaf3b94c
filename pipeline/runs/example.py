"""A commented run file for an image, or for affinities, that `petaseg run` accepts as it stands."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.config.base import PathMarker
from pipeline.config.reading import read_config
from pipeline.config.run_file import Agglomeration, Inference, RunConfig
from pipeline.config.strict_yaml import quoted
from pipeline.errors import ConfigError, PetasegError, StorageError, VolumeError
from pipeline.runs.inputs import RESOLUTION_FACTOR, open_inputs, resolution_ratio
from pipeline.runs.run import Run, with_absolute_paths
from pipeline.storage import absolute, local_path, parent_of
from pipeline.volumes import open_volume
from pipeline.volumes.base import VolumeSpec

if TYPE_CHECKING:
    from pipeline.models.spec import ModelCard

EXAMPLE = """\
# A petaseg run: from an image (or affinities) to neurons.   petaseg plan run.yaml   then   petaseg run run.yaml
# Shapes and positions are z, y, x, in voxels. Relative paths count from this file's folder.
# yaml-language-server: $schema={schema}

run_directory: {directory}   # everything the run writes goes here; one directory for each image

input:
{input}
  # mask: tissue.zarr              # 0 = outside the tissue
  # start: [0, 0, 0]               # region of interest; the whole dataset if left out
  # stop: [512, 2048, 2048]

# The result does not depend on these two, only speed and memory do.
chunk_shape: {chunk}       # one unit of work; a multiple of the storage chunk
storage_chunk_shape: {storage}  # one stored object

inference:{unused}
  model: {model}                # `petaseg models` lists the bundled ones; or the path of a card.yaml{any_resolution}
  batch_size: 1
  device: auto                     # auto, cpu or cuda
  augmentation: none               # none, flips, flips+transpose: average over 8 or 16 mirrored copies
  threads: 1                       # CPU threads of one forward pass

supervoxels:
  mode: auto                       # volume, section; auto chooses by the shape of the voxels
  # threshold: 0.5                 # inside a cell if the mean of a voxel's affinities is at least this

agglomeration:
  linkage: mean                    # mean, or quantile (with quantile: 0.5)
  stop_score: {stop_score}                 # the merge tree is built down to here

segmentation:                      # can be changed without the network: petaseg relabel run.yaml --threshold 0.4
  {threshold}
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
OF_AN_IMAGE = """\
  image: {place}         # zarr, OME-Zarr, precomputed://, file.h5:dataset; local path, s3:// or gs://
  # affinities: affinities.zarr    # instead of image: predicted by any program; then no network is run
  # affinity_offsets: [[-1, 0, 0], [0, -1, 0], [0, 0, -1]]   # partner of each channel"""
OF_AFFINITIES = """\
  affinities: {place}    # predicted by any program; no network is run
  affinity_offsets: [[-1, 0, 0], [0, -1, 0], [0, 0, -1]]   # partner of each channel: correct them if yours differ"""
NO_NETWORK = "                         # of runs on an image; not used with affinities"
ANY_RESOLUTION = """
  any_resolution: true             # the model was trained on {trained} nm, the image has {found} nm: expect errors"""
DEFAULT_COMMENT = "# threshold: 0.5                 # lower merges more; default: the model card's"
OF_THE_CARD = (
    "threshold: {threshold}                 # of the model's card, chosen on its validation part; lower merges more"
)
SCHEMA = "run.schema.json"
TRIES = 100
"""Names of run directories that are tried, until one holds no other input's results."""


@dataclass(frozen=True)
class Wanted:
    """What a run file is written for; places as they are typed in the present folder."""

    file: str
    image: str | None = None
    affinities: str | None = None
    model: str | None = None

    @property
    def source(self) -> str:
        """The volume to segment."""
        return self.affinities or self.image or "image.zarr"


@dataclass(frozen=True)
class Example:
    """A run file that is not written yet."""

    text: str
    unread: str = ""
    """Why the input could not be opened, so that nothing could be checked; empty if the run file is sound."""


def example(wanted: Wanted) -> Example:
    """The text of a run file in which everything fits the input: a run would accept it.

    An input that cannot be opened is believed, since it may be made later. Raises ``ConfigError``, ``VolumeError`` or
    ``ModelError`` for an input that no run could use.
    """
    try:
        spec = open_volume(wanted.source).spec
    except (VolumeError, StorageError) as error:
        return Example(text_of(wanted, None, 1), unread=str(error))
    _refuse_kind(wanted, spec)
    refused: PetasegError | None = None
    for number in range(1, TRIES):
        text = text_of(wanted, spec, number)
        try:
            check(text, wanted.file)
            return Example(text)
        except OccupiedError as error:
            refused = error
    raise refused or ConfigError(f"{wanted.file} was not written")


class OccupiedError(ConfigError):
    """The run directory belongs to another input, or to somebody."""


def check(text: str, file: str) -> None:
    """Everything that a run checks before it loads a network; ``OccupiedError`` if only its directory does not fit."""
    source = absolute(file, ".")
    config = with_absolute_paths(read_config(text, source), parent_of(source) or "")
    run = Run(config, file, (), config.run_directory, open_inputs(config))
    assert run.threshold >= 0  # computed here, so that it is refused here
    try:
        run.check_directory()
    except ConfigError as error:
        raise OccupiedError(str(error)) from None


def text_of(wanted: Wanted, spec: VolumeSpec | None, number: int) -> str:
    """The text of the run file whose run directory has the ``number``-th name."""
    place = from_folder_of(wanted.file, wanted.source)
    threshold = None if wanted.model is None else _card(wanted.model).threshold
    stop_score, defaults = Agglomeration().stop_score, RunConfig.model_fields
    return EXAMPLE.format(
        schema=SCHEMA,
        directory=run_directory_for(wanted.file, place) + (f"-{number}" if number > 1 else ""),
        input=(OF_AN_IMAGE if wanted.affinities is None else OF_AFFINITIES).format(place=quoted(place)),
        unused="" if wanted.affinities is None else NO_NETWORK,
        model=quoted(model_place(wanted.file, wanted.model or Inference().model)),
        any_resolution="" if spec is None or wanted.affinities else _any_resolution(wanted.model, spec),
        threshold=DEFAULT_COMMENT if threshold is None else OF_THE_CARD.format(threshold=threshold),
        stop_score=stop_score if threshold is None else min(stop_score, threshold),
        chunk=list(defaults["chunk_shape"].default),
        storage=list(defaults["storage_chunk_shape"].default),
    )


def _refuse_kind(wanted: Wanted, spec: VolumeSpec) -> None:
    """Refuse affinities that are called an image, and the reverse, with the option to use."""
    several = (spec.channels or 1) >= 3
    takes = 1 if wanted.affinities else _card(wanted.model).image_channels
    may_be_affinities = several and (spec.dtype == "uint8" or spec.dtype.kind == "f")
    if wanted.affinities is None and may_be_affinities and takes != spec.channels:
        raise ConfigError(
            f"{wanted.source} has {spec.channels} channels of {spec.dtype}; the model takes images of {takes}: if "
            f"these are affinities, give --affinities {wanted.source} instead of --image; if they are colours, name "
            "a model with in_channels 3, or one of them by adding #channel=0"
        )
    if wanted.affinities is not None and not several:
        raise ConfigError(
            f"{wanted.source} has {spec.channels or 1} channel of {spec.dtype}; affinities have at least three: if "
            f"this is an image, give --image {wanted.source} instead of --affinities"
        )


def _any_resolution(model: str | None, spec: VolumeSpec) -> str:
    """The line that allows voxels of another size than the model's, where they differ too much; else an empty text."""
    from pipeline.models.spec import load_card

    card = load_card(model or Inference().model)
    if resolution_ratio(card, spec.resolution_nm) <= RESOLUTION_FACTOR:
        return ""
    trained, found = (" x ".join(f"{nm:g}" for nm in each) for each in (card.resolution_nm, spec.resolution_nm))
    return ANY_RESOLUTION.format(trained=trained, found=found)


def _card(model: str | None) -> ModelCard:
    """The card of a model, or of the one that is used if none is named."""
    from pipeline.models.spec import load_card

    return load_card(model or Inference().model)


def model_place(file: str, model: str) -> str:
    """A model as a run file must name it: a bundled name stays, and a folder becomes its card."""
    if not PathMarker("", may_be_name=True).is_path(model) and not _is_folder(model):
        return model
    place = from_folder_of(file, model)
    card = place if place.endswith((".yaml", ".yml")) else f"{place.rstrip('/')}/card.yaml"
    return card if "/" in card else f"./{card}"


def _is_folder(place: str) -> bool:
    path = local_path(place)
    return path is not None and path.is_dir()


def from_folder_of(file: str, place: str) -> str:
    """A path or URL, typed in the present folder, as a run file must name it: relative paths count from its folder."""
    folder = parent_of(absolute(file, ".")) or ""
    if absolute(place, folder) == absolute(place, "."):
        return place  # a URL, an absolute path, or the same folder
    if local_path(folder) is None:
        return absolute(place, ".")
    return os.path.relpath(absolute(place, "."), folder)


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
