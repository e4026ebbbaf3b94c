"""A training on one to three painted sections of a stack, and the model that follows from it.

1. Find the sections that have labels                                    ``painted_boxes``
2. Close the gaps between cells, so that cells touch where membranes are     ``closed``
3. Hold back a strip of the last section, and write down the training        ``sections_config``
4. Train a network in 2D, as any other                                    ``trainer.train``
5. Put it before the network that reads stacks of its maps               ``join``
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from pipeline.config.fingerprint import fingerprint
from pipeline.config.reading import apply_overrides, parse_config
from pipeline.errors import ConfigError, ModelError
from pipeline.geometry import BoundingBox, Vec
from pipeline.models.sections_to_volume import SIZES, SectionsToVolume
from pipeline.models.spec import CARD_FILE, ModelCard, load_card, load_model, save_model
from pipeline.training.config import LabelledVolume, TrainConfig
from pipeline.training.output import LOG
from pipeline.training.section_maps import MAPS, map_targets
from pipeline.training.sources import Source, open_source
from pipeline.volumes import create_volume, open_volume
from pipeline.volumes.base import VolumeSpec

FOLDER = "sections"
"""The folder of the training in 2D, inside the model's."""
STACK = "stack"
"""The bundled network that reads stacks of maps."""
THICK = 2.0
"""Sections are thick if voxels are at least this many times deeper than wide."""
MOST = 50
"""The most painted sections; with more, a network in 3D learns more."""
PATCH, MULTIPLE = 128, 16
"""The largest side of a patch, and what its sides are multiples of."""
LEAST = 64
"""The least side of what is painted in a section."""
SETTINGS: dict[str, Any] = {
    "architecture": "plain_unet",
    "arguments": {key: value for key, value in SIZES["tiny"]["sections_arguments"].items() if key != "out_channels"},
    "batch_size": 4,
    "steps": 600,
    "warmup_steps": 50,
    "validate_every": 100,
    "ema_decay": 0.99,
    "augmentation": {"misalignment": 0.0, "missing_sections": 0.0, "rescale_in_plane": True},
    "choose_threshold": False,
    "pictures": False,
}
"""What a training on painted sections is, where it does not follow from them; ``--set`` overrides it."""


def sections_config(
    labels: str,
    image: str,
    output: str,
    *,
    at: Sequence[int] | None = None,
    gap: int = 10,
    overrides: Sequence[str] = (),
) -> TrainConfig:
    """The training in 2D, in ``<output>/sections``, where the closed labels are stored as well.

    labels: a volume that is 0 where nothing is painted. at: the painted sections, z; all are looked for if left out.
    gap: voxels between two cells up to which 0 is their membrane. overrides: ``key=value`` texts of a training file.

    Raises ``ConfigError`` and ``VolumeError`` if the volumes do not fit each other, or too little is painted.
    """
    source = _opened(labels, image)
    boxes = painted_boxes(source, at)
    folder = Path(output) / FOLDER
    refuse_other_model(Path(output))
    closed_labels = [closed(source.read_labels(box)[0], gap) for box in boxes]
    for box, section in zip(boxes, closed_labels, strict=True):
        _check_touching(section, box, labels, gap)
    stored = folder / f"labels-{_digest(boxes, closed_labels)}.zarr"
    held_back, *kept = _split(boxes)
    sides = [min(PATCH, *(box.shape[axis] // MULTIPLE * MULTIPLE for box in kept)) for axis in (1, 2)]
    targets = [target.model_dump(mode="json") for target in map_targets(source.resolution_nm)]
    settings = {
        **SETTINGS,
        **{"output": str(folder), "name": f"{Path(output).name}-sections", "targets": targets},
        **{
            "volumes": [_part(image, str(stored), box) for box in kept],
            "validation": _part(image, str(stored), held_back),
        },
        **{"patch_shape": [1, *sides], "overlap": [0, *(side // 4 for side in sides)]},
    }
    config = parse_config(apply_overrides(settings, overrides), TrainConfig, source="--set")
    if Path(config.output) != folder:
        raise ConfigError(f"--set output={config.output} is given; with --sections the folder is named by --output")
    _store(stored, source, boxes, closed_labels)
    return config


def _opened(labels: str, image: str) -> Source:
    """Image and labels, where there are both; ``ConfigError`` unless their sections are thick."""
    one, other = open_volume(image).spec, open_volume(labels).spec
    box = one.bounds.intersect(other.bounds)
    if box.empty:
        raise ConfigError(
            f"{image} covers {one.bounds}, {labels} covers {other.bounds}; they share no voxel: correct the place of "
            "one of them by adding #offset=z,y,x"
        )
    nm = one.resolution_nm
    if nm[0] < THICK * min(nm[1:]):
        raise ConfigError(
            f"{image} has voxels of {list(nm)} nm; --sections is for sections at least {THICK:g} times as thick as "
            f"voxels are wide: train in 3D (petaseg init train.yaml --image {image} --labels {labels}), or correct the "
            "voxel size by adding #resolution=z,y,x"
        )
    return open_source(LabelledVolume(image=image, labels=labels, start=box.start, stop=box.stop))


def painted_boxes(source: Source, at: Sequence[int] | None = None) -> list[BoundingBox]:
    """The box of what is painted in each section; ``ConfigError`` for none, too many, or one that is too small."""
    box, url = source.box, source.labels.url
    if outside := [z for z in at or () if not box.start[0] <= z < box.stop[0]]:
        raise ConfigError(f"--at names section {outside[0]}; {url} has sections {box.start[0]} to {box.stop[0] - 1}")
    found = [_painted(source, z) for z in (range(box.start[0], box.stop[0]) if at is None else sorted(set(at)))]
    boxes = [each for each in found if each is not None]
    if not boxes or (at is not None and len(boxes) < len(found)):
        raise ConfigError(f"{url} has no label in {_named(at)}; paint at least one section, 0 is not painted")
    if len(boxes) > MOST:
        raise ConfigError(
            f"{url} has labels in {len(boxes)} sections, and --sections takes at most {MOST}: choose some by --at, or "
            f"train in 3D (petaseg init train.yaml --image {source.image.url} --labels {url})"
        )
    for each in boxes:
        if min(each.shape[1:]) < LEAST:
            raise ConfigError(
                f"section {each.start[0]} of {url} is painted on {list(each.shape[1:])} voxels (y, x); at least "
                f"{LEAST} along both are needed: paint more of it"
            )
    return boxes


def _named(at: Sequence[int] | None) -> str:
    return "any section" if at is None else f"all of the sections {', '.join(map(str, at))}"


def _painted(source: Source, z: int) -> BoundingBox | None:
    """The box around the labels of a section; ``None`` without any."""
    section = BoundingBox(Vec(z, *source.box.start[1:]), Vec(z + 1, *source.box.stop[1:]))
    places = np.nonzero(source.read_labels(section)[0])
    if not len(places[0]):
        return None
    low, high = (Vec(z, *(int(f(axis)) for axis in places)) for f in (np.min, np.max))
    shift = Vec(0, *source.box.start[1:])
    return BoundingBox(low + shift, high + shift + (1, 1, 1))


def closed(labels: np.ndarray, gap: int) -> np.ndarray:
    """Labels (y, x) as uint32 1, 2, ..., in which each 0 in a gap between cells belongs to the nearest cell.

    A gap is what the closing of everything painted by a disc of diameter ``gap`` fills; wider ones stay 0, not known.
    """
    ids, codes = np.unique(labels, return_inverse=True)
    numbers = codes.reshape(labels.shape).astype(np.uint32) + np.uint32(ids[0] != 0)
    reach, free = gap / 2, numbers == 0
    if not free.any() or not gap:
        return numbers
    edge = int(np.ceil(reach)) + 1
    distance = ndimage.distance_transform_edt(np.pad(free, edge, constant_values=True))
    filled = ndimage.distance_transform_edt(distance <= reach)[edge:-edge, edge:-edge] > reach
    nearest = ndimage.distance_transform_edt(free, return_distances=False, return_indices=True)
    return np.where(free & filled, numbers[tuple(nearest)], numbers)


def _check_touching(section: np.ndarray, box: BoundingBox, url: str, gap: int) -> None:
    """``ConfigError`` unless two cells touch: membranes are learned where they do."""
    pairs = ((section[1:], section[:-1]), (section[:, 1:], section[:, :-1]))
    if not any(((one != other) & (one > 0) & (other > 0)).any() for one, other in pairs):
        raise ConfigError(
            f"in section {box.start[0]} of {url} no two cells touch, and membranes are learned where cells touch; 0 "
            f"between cells counts as membrane up to {gap} voxels: raise --gap, or paint cells that are neighbours"
        )


def _digest(boxes: Sequence[BoundingBox], labels: Sequence[np.ndarray]) -> str:
    """A digest of the closed labels, the name of their volume, so that no training goes on with others."""
    contents = [hashlib.blake2b(section.tobytes()).hexdigest() for section in labels]
    return fingerprint([list(box.start) for box in boxes], contents)[:12]


def _store(path: Path, source: Source, boxes: Sequence[BoundingBox], labels: Sequence[np.ndarray]) -> None:
    """Write the volume of the closed labels."""
    spec = VolumeSpec(source.image.spec.bounds, source.resolution_nm, np.dtype(np.uint32))
    volume = create_volume(str(path), spec)
    for box, section in zip(boxes, labels, strict=True):
        volume.write(box, section[None])


def _split(boxes: Sequence[BoundingBox]) -> list[BoundingBox]:
    """The strip that is held back, a quarter of the last section along its longer side; then the rest of all."""
    *whole, last = boxes
    axis = 1 + int(np.argmax(last.shape[1:]))
    cut = last.stop[axis] - max(last.shape[axis] // 4, MULTIPLE)
    along = Vec(*(int(a == axis) for a in range(3)))
    strip = BoundingBox(last.start + along * (cut - last.start[axis]), last.stop)
    return [strip, *whole, BoundingBox(last.start, last.stop - along * (last.stop[axis] - cut))]


def _part(image: str, labels: str, box: BoundingBox) -> dict[str, Any]:
    return {"image": image, "labels": labels, "start": list(box.start), "stop": list(box.stop)}


def refuse_other_model(output: Path) -> None:
    """``ConfigError`` if the folder holds a model that no training on sections in it has written."""
    if (output / CARD_FILE).exists() and not (output / FOLDER / LOG).is_file():
        raise ConfigError(
            f"--output is {output}, and a model is there that no training on sections has written; it would be "
            "replaced: name another folder"
        )


def stack_card(name: str) -> ModelCard:
    """The card of a network that reads stacks of maps; ``ModelError`` if it reads something else."""
    card = load_card(name)
    if card.image_channels != MAPS or not card.offsets:
        raise ModelError(
            f"--stack is {name}; the network of a stack reads {MAPS} maps and finds affinities, and this one reads "
            f"{card.image_channels} and has {len(card.offsets)} offsets: leave --stack out, or train one "
            "(examples/train_stack.yaml)"
        )
    return card


def join(config: TrainConfig, output: str, stack: str) -> ModelCard:
    """Write the model of both networks to ``output``: the one that was trained, and the one named ``stack``."""
    first, second = load_card(config.output), stack_card(stack)
    arguments: Mapping[str, Any] = {
        **{"sections": first.architecture, "sections_arguments": _without(first.arguments, "in_channels")},
        **{"volume": second.architecture, "volume_arguments": _without(second.arguments, "out_channels")},
        "out_channels": len(second.offsets),
    }
    network = SectionsToVolume(**arguments)
    network.sections.load_state_dict(load_model(first).module.state_dict())
    network.volume.load_state_dict(load_model(second).module.state_dict())
    card = ModelCard(
        name=Path(output).name,
        architecture="sections_to_volume",
        arguments=json.loads(json.dumps(arguments)),
        patch_shape=second.patch_shape,
        overlap=second.overlap,
        normalisation=first.normalisation,
        offsets=second.offsets,
        activation=second.activation,
        resolution_nm=first.resolution_nm,
        threshold=second.threshold,
        training_data=f"{first.training_data or 'painted sections'}; {second.name}: {second.training_data}",
        scores={f"sections: {name}": score for name, score in first.scores.items()},
        licence=first.licence,
    )
    return save_model(Path(output), network, card)


def _without(arguments: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if name != key}
