"""Boxes of a run that are worth labelling next: a table, a picture, crops to label, and lines for a training file.

    <output>/box-01/image.zarr     the image of the box, with its offset and size of voxels
    <output>/box-01/labels.zarr    labels of the box, all 0, to be painted
    <output>/volumes.yaml          the lines under ``volumes`` of a training file
    <output>/sheet.png             image, prediction, and where it is unsure
    <output>/suggestions.csv, suggestions.json     the boxes in order; the second is written last

Labels that are there are never written again, since somebody may have painted them.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config.fingerprint import fingerprint
from pipeline.config.strict_yaml import dump_yaml
from pipeline.errors import ConfigError
from pipeline.evaluation.files import make_folder, whole_file
from pipeline.few_labels.candidates import Candidates, Probabilities, Progress, boxes_of, describe
from pipeline.few_labels.choice import Choice, choose
from pipeline.few_labels.rounds import part_of
from pipeline.few_labels.suggestion import Suggestion
from pipeline.formats import SUGGESTIONS
from pipeline.geometry import BoundingBox, Vec
from pipeline.runs.run import Run
from pipeline.stages import opened
from pipeline.training.config import TrainConfig
from pipeline.volumes import create_volume, open_volume
from pipeline.volumes.base import Volume, VolumeSpec
from pipeline.volumes.coarser import same_size
from pipeline.volumes.places import overlap, place_of, real

TABLE = "suggestions.json"
STREAMS = ("pooled", "vae")
"""How images are described: by statistics and coarse means, or by an autoencoder that is trained on the candidates."""
PROBE = Vec(32, 32, 32)
"""Voxels by which a crop of an image is known."""


@dataclass(frozen=True)
class Wanted:
    """How many boxes of which shape are wanted."""

    run: Run
    output: Path
    """An absolute path."""
    boxes: int
    shape: Vec
    labelled: tuple[BoundingBox, ...] = ()
    """Boxes of the image that have labels; what overlaps them is not suggested."""
    describe_by: str = "pooled"
    """What the image stream is: a key of ``STREAMS``."""

    @property
    def fingerprint(self) -> str:
        """Digest of everything that the suggestions depend on."""
        labelled = [[box.start, box.stop] for box in self.labelled]
        inputs = Probabilities.of(self.run).fingerprint, self.run.inputs.fingerprint, self.run.inputs.mask_fingerprint
        region = self.run.layout.roi
        stream = [] if self.describe_by == "pooled" else [self.describe_by]
        return fingerprint(*inputs, [region.start, region.stop], self.boxes, self.shape, labelled, *stream)


def check(wanted: Wanted) -> None:
    """Refuse what cannot be done, before anything is read or written; the heads of the run are finished."""
    run, output = wanted.run, real(str(wanted.output))
    for place in (place_of(run.inputs.url), real(run.url)):
        if overlap(output, place) in ("is", "lies in"):
            raise ConfigError(f"--output is {wanted.output}, which is {place}, or in it: name another folder")
    refuse_other(wanted)


def suggest(wanted: Wanted, tell: Progress = lambda done, total: None) -> list[Suggestion]:
    """Describe all candidates, choose, and write everything; the same call after a stop writes the same.

    Raises ``ConfigError`` if the region of the run holds fewer boxes than are wanted.
    """
    candidates = boxes_of(wanted.run, wanted.shape, wanted.labelled)
    if len(candidates) < wanted.boxes:
        raise ConfigError(
            f"--boxes is {wanted.boxes}, and the region {wanted.run.layout.roi} holds {len(candidates)} boxes of "
            f"{list(wanted.shape)} that are tissue without labels: ask for fewer, or for smaller ones (--box-shape)"
        )
    described = describe(wanted.run, candidates, tell, with_patches=wanted.describe_by == "vae")
    found = suggestions_of(described, choose(described, wanted.boxes))
    write(wanted, found)
    return found


def suggestions_of(candidates: Candidates, choices: Sequence[Choice]) -> list[Suggestion]:
    """The chosen boxes with their facts."""
    return [
        Suggestion(
            *(rank, candidates.boxes[c.number], c.cluster, c.group),
            *(float(candidates.unsure[c.number]), float(candidates.entropy[c.number])),
        )
        for rank, c in enumerate(choices, start=1)
    ]


def write(wanted: Wanted, found: Sequence[Suggestion]) -> None:
    """Write crops, lines, picture and tables, the table that counts last."""
    from pipeline.few_labels.sheet import draw_sheet

    folder = make_folder(wanted.output, "--output")
    for each in found:
        write_crop(wanted.run, folder / each.name, each.box)
    with whole_file(folder / "volumes.yaml") as path:
        path.write_text(lines_of(folder, found))
    draw_sheet(wanted.run, found, folder / "sheet.png")
    rows = [each.row for each in found]
    with whole_file(folder / "suggestions.csv") as path, path.open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0].keys())
        table.writeheader()
        table.writerows(rows)
    with whole_file(folder / TABLE) as path:
        path.write_text(json.dumps({**SUGGESTIONS.stamp, "inputs": wanted.fingerprint, "boxes": rows}, indent=1) + "\n")


def write_crop(run: Run, folder: Path, box: BoundingBox) -> None:
    """The image of a box, and empty labels on its voxels unless there are some."""
    image = opened.source(run.inputs.url)
    spec = replace(image.spec, bounds=box, storage_chunk=Vec(64, 64, 64), storage_shard=None)
    create_volume(str(folder / "image.zarr"), spec).write(box, image.read(box))
    create_volume(str(folder / "labels.zarr"), VolumeSpec(box, spec.resolution_nm, np.dtype(np.uint32)))


def lines_of(folder: Path, found: Sequence[Suggestion]) -> str:
    """The lines of a training file that name the crops."""
    volumes = [{name: str(folder / each.name / f"{name}.zarr") for name in ("image", "labels")} for each in found]
    return "# More volumes of a training file, once their labels are painted.\n" + dump_yaml({"volumes": volumes})


def known(wanted: Wanted) -> list[Suggestion] | None:
    """The suggestions that an equal call has written; ``None`` if there are none."""
    table = read_table(wanted.output / TABLE)
    if table is None or table["inputs"] != wanted.fingerprint:
        return None
    return [
        Suggestion(
            row["rank"],
            BoundingBox(*(Vec(*(row[f"{axis}_{end}"] for axis in "zyx")) for end in ("start", "stop"))),
            *(row["cluster"], row["group"], row["unsure"], row["entropy"]),
        )
        for row in table["boxes"]
    ]


def refuse_other(wanted: Wanted) -> None:
    """``ConfigError`` if the folder holds other suggestions, whose labels somebody may have painted."""
    path = wanted.output / TABLE
    if read_table(path) is not None and known(wanted) is None:
        raise ConfigError(
            f"{path} holds suggestions for other predictions, another region, or other boxes, and their labels may be "
            "painted: name another --output"
        )


def read_table(path: Path) -> dict[str, Any] | None:
    """The table of a folder; ``None`` if there is none. ``ConfigError`` if it is damaged, or a newer petaseg's."""
    if not path.is_file():
        return None
    try:
        table: dict[str, Any] = json.loads(path.read_text())
        SUGGESTIONS.check(table, str(path), ConfigError)
        return {"inputs": table["inputs"], "boxes": table["boxes"]}
    except (ValueError, TypeError, KeyError) as error:
        raise ConfigError(f"{path} is damaged ({error}); name another --output, or delete it") from None


def labelled_boxes(config: TrainConfig, run: Run) -> tuple[BoundingBox, ...]:
    """The parts of a run's image that a training names, to train or to validate on, as well as crops of the image."""
    parts = [*config.volumes, *([] if config.validation is None else [config.validation])]
    image = opened.source(run.inputs.url)
    return tuple(part_of(part) for part in parts if same_tissue(open_volume(part.image), part_of(part), image))


def same_tissue(volume: Volume, box: BoundingBox, image: Volume) -> bool:
    """True if a volume shows at the middle of a box what the image shows there."""
    middle = BoundingBox.from_shape(PROBE, box.middle - PROBE // 2).intersect(box).intersect(image.bounds)
    if middle.empty or not same_size(volume.spec.resolution_nm, image.spec.resolution_nm):
        return False
    return np.array_equal(volume.read(middle), image.read(middle))
