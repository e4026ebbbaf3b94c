"""A commented training file for an image with labels, with a split, shapes and offsets that fit its voxels."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

from pipeline.config.reading import read_config
from pipeline.config.strict_yaml import quoted
from pipeline.errors import ConfigError
from pipeline.geometry import BoundingBox, Vec
from pipeline.models.facts import on_meta
from pipeline.models.spec import named_arguments
from pipeline.training.callbacks import CHECKPOINT
from pipeline.training.config import LabelledVolume, TrainConfig
from pipeline.training.dry_run import dry_run
from pipeline.training.patch_check import two_thick
from pipeline.training.sources import Source, open_source
from pipeline.volumes import open_volume

THICK = 2.0
"""Sections are thick if voxels are at least this many times deeper than wide."""
ARCHITECTURE = "residual_unet"
LEFT = (CHECKPOINT, "card.yaml")
"""Files by which a folder shows that a model was trained there."""
MULTIPLE = 16
"""Sides of patches are multiples of this, but the depth of thick sections."""

TEMPLATE = """\
# A petaseg training.   petaseg train {file} --preview   then   petaseg train {file}
# Shapes and positions are z, y, x, in voxels. Relative paths count from the folder in which petaseg is started.
# yaml-language-server: $schema={schema}

# The model, its log and its pictures.
output: {output}
name: {name}

# More volumes, or more parts, are drawn by their number of voxels. Labels are integers; 0 is not known.
volumes:
  - image: {image}
    labels: {labels}
    start: {start}
    stop: {train_stop}
# Never trained on: the score is measured here, and the best weights are kept.
validation:
  image: {image}
  labels: {labels}
  start: {watch_start}
  stop: {stop}

architecture: residual_unet        # `petaseg models` lists them
{of_voxels}
patch_shape: {patch}
overlap: {overlap}                 # of patches, in a run

steps: 5000
learning_rate: 0.002
validate_every: 250                # steps between two looks, each with a checkpoint
# patience: 10                     # end after so many looks without a better score
# devices: 2                       # GPUs that train together
device: auto                       # a GPU if there is one
precision: {precision}                # bfloat16 or float32
threads: 1                         # of a CPU

# For the model's card.
training_data: "which tissue, which part, which source and licence"
licence: ""
"""

OF_THICK_SECTIONS = """\
arguments: lee
# Affinities to predict: nearest neighbours first, then farther ones.
offsets: [[-1, 0, 0], [0, -1, 0], [0, 0, -1], [-2, 0, 0], [0, -9, 0], [0, 0, -9], [-3, 0, 0], [0, -27, 0], [0, 0, -27]]
augmentation: lee                  # for thick sections; or default, flips, pytc, a table"""
OF_CUBES = """\
arguments: tiny
# offsets: ...                     # affinities to predict; 1, 3, 9 and 18 voxels along each axis if left out
augmentation: default              # or flips, lee, pytc, a table"""


def checked_example(image: str, labels: str, *, file: str, schema: str) -> str:
    """``example``, after every check that a training makes before its first update."""
    text = example(image, labels, file=file, schema=schema)
    dry_run(read_config(text, file, model=TrainConfig))
    return text


def example(image: str, labels: str, *, file: str = "train.yaml", schema: str = "train.schema.json") -> str:
    """The text of a training file for the voxels that an image and labels share; both are opened and checked.

    The last eighth of the planes is for validation: at least 16, or a quarter of a few thick sections.
    The output of a file that lies in another folder than the present one is an absolute path.

    Raises:
        VolumeError: image and labels do not belong together.
        ConfigError: they share too few voxels to train on.
    """
    source = labelled(image, labels)
    box, thick = source.box, source.resolution_nm[0] > THICK * min(source.resolution_nm[1:])
    held_back = max(box.shape[0] // 8, max(1, min(MULTIPLE, box.shape[0] // 4)) if thick else MULTIPLE)
    patch = patch_of(box, held_back, thick)
    split = box.stop[0] - held_back
    name, output = free_output(file)
    return TEMPLATE.format(
        **{"file": shlex.quote(file), "schema": schema, "name": name, "output": quoted(output)},
        **{"image": quoted(image), "labels": quoted(labels)},
        **{"start": list(box.start), "train_stop": [split, *box.stop[1:]]},
        **{"watch_start": [split, *box.start[1:]], "stop": list(box.stop)},
        **{"patch": list(patch), "overlap": [side // 4 for side in patch]},
        of_voxels=_with_channels(OF_THICK_SECTIONS if thick else OF_CUBES, source.image.spec.channels or 1),
        precision=precision_for(patch, thick),
    )


def _with_channels(text: str, channels: int) -> str:
    """The lines of the network, for images of several channels with its arguments written out."""
    size = re.match(r"arguments: (\w+)", text)
    if channels == 1 or size is None:
        return text
    arguments = {**named_arguments(ARCHITECTURE, size[1]), "in_channels": channels}
    return text.replace(size[0], f"arguments: {json.dumps(arguments)}", 1)


def free_output(file: str) -> tuple[str, str]:
    """Name and folder of a model beside the file, where no other training has left its checkpoint."""
    names = ["first", *(f"first-{number}" for number in range(2, 1000))]
    beside = Path(file).absolute().parent / "models"
    name = next(name for name in names if not any((beside / name / left).exists() for left in LEFT))
    inside = Path("models") / name
    return name, str(inside if beside.parent.resolve() == Path.cwd().resolve() else beside / name)


def precision_for(patch: Vec, thick: bool) -> str:
    """bfloat16, or float32 where the network would be two voxels thick somewhere, which torch miscomputes on a CPU."""
    arguments = named_arguments(ARCHITECTURE, "lee" if thick else "tiny")
    return "float32 " if two_thick(on_meta(ARCHITECTURE, arguments), patch) else "bfloat16"


def labelled(image: str, labels: str) -> Source:
    """The part of an image that has labels."""
    spec = open_volume(image).spec
    one, other = spec.bounds, open_volume(labels).spec.bounds
    box = one.intersect(other)
    if box.empty:
        raise ConfigError(
            f"{image} covers {one}, {labels} covers {other}; they share no voxel, so nothing is labelled: correct the "
            "place of one of them by adding #offset=z,y,x"
        )
    volumes = LabelledVolume(image=image, labels=labels, start=box.start, stop=box.stop)
    return open_source(volumes, spec.channels or 1)


def patch_of(box: BoundingBox, held_back: int, thick: bool) -> Vec:
    """The largest patch that fits beside the planes that are held back, up to what is usual for such voxels."""
    multiple = Vec(1 if thick else MULTIPLE, MULTIPLE, MULTIPLE)
    usual = Vec(16, 160, 160) if thick else Vec(64, 64, 64)
    room = (box.shape - (held_back, 0, 0)) // multiple * multiple
    patch = usual.minimum(room)
    if min(room) <= 0 or patch == multiple:  # of the smallest patch, the lowest level is one voxel: no norm of it
        raise ConfigError(
            f"image and labels share {list(box.shape)} voxels; a network needs {list(multiple)} to train on, twice as "
            f"many along one axis, and {held_back} planes z more to validate on: label more, or train on several "
            "volumes (docs/training.md)"
        )
    return patch
