"""The threshold of a trained model, chosen by a run on a box of its validation part.

1. a box in the middle of the validation part, at most ``threshold_box`` voxels      validation_box
2. the whole pipeline on this box: affinities, supervoxels, merge tree           an ordinary run in <output>/threshold
3. the VOI at 51 thresholds from one merge tree                                      pipeline/evaluation/sweep.py
4. the threshold of the lowest VOI goes to the model's card                          card.yaml

It is an ordinary run, so after an interruption the same command goes on with its missing chunks.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.config.strict_yaml import dump_yaml
from pipeline.geometry import BoundingBox, Vec
from pipeline.models.heads import heads_of
from pipeline.models.spec import ModelCard, load_card, write_card
from pipeline.runs.report import write_report
from pipeline.storage import absolute
from pipeline.training.sources import Source, open_sources
from workflows.driver import run_with_progress

if TYPE_CHECKING:
    from pipeline.training.config import TrainConfig

FOLDER = "threshold"
CHUNK = [64, 128, 128]
"""Voxels of a chunk of the run."""


@dataclass(frozen=True)
class Chosen:
    """The threshold of a model's card, or why none was chosen."""

    threshold: float | None
    text: str

    def __str__(self) -> str:
        return self.text


def choose_threshold(config: TrainConfig, *, quiet: bool = False) -> Chosen:
    """Choose the threshold of a finished training and write it into its card; a card that has one keeps it.

    Only for affinities or membranes that a run can use, and for labels of at least two objects.
    """
    folder = Path(config.output)
    card = load_card(folder)
    if card.threshold is not None:
        return Chosen(card.threshold, f"threshold {card.threshold:g} stands in {folder}/card.yaml")
    if not any(head.makes_neurons for head in heads_of(card)):
        return Chosen(None, "no threshold is chosen: it predicts neither affinities of neighbours nor membranes")
    source = open_sources(config)[1]
    box = validation_box(source.box, config.threshold_box)
    objects = np.unique(source.read_labels(box))
    if (objects != 0).sum() < 2:
        return Chosen(None, f"no threshold is chosen: {box} of the validation part has fewer than two labelled objects")
    return _chosen(folder, card, box, write_run_file(folder, config, source, box), quiet)


def _chosen(folder: Path, card: ModelCard, box: BoundingBox, run_file: Path, quiet: bool) -> Chosen:
    """Run the file, take the threshold of the lowest VOI, and write it into the card."""
    report = write_report(run_with_progress(str(run_file), quiet=quiet).run)
    best = report.best
    assert best is not None, "the run has true labels"
    threshold = round(best.threshold, 4)
    scores = {**card.scores, "validation VOI": round(best.scores.voi, 4), "validation VOI on": str(box)}
    write_card(folder, card.model_copy(update={"threshold": threshold, "scores": scores}))
    return Chosen(
        threshold,
        f"threshold {threshold:g} has the lowest VOI, {best.scores.voi:.3f} bits, on {box} of the validation part; it "
        f"stands in {folder}/card.yaml now ({report.sweep_picture} shows all thresholds)",
    )


def validation_box(part: BoundingBox, most: Vec) -> BoundingBox:
    """The box in the middle of a part, with at most ``most`` voxels along each axis."""
    shape = part.shape.minimum(most)
    return BoundingBox.from_shape(shape, part.start + (part.shape - shape) // 2)


def write_run_file(folder: Path, config: TrainConfig, source: Source, box: BoundingBox) -> Path:
    """The run file, in ``<output>/threshold``."""
    mask = {} if source.mask is None else {"mask": absolute(source.mask.url, ".")}
    region = {"start": list(box.start), "stop": list(box.stop)}
    data: dict[str, Any] = {
        "run_directory": "run",
        "input": {"image": absolute(source.image.url, "."), **mask, **region},
        "chunk_shape": CHUNK,
        "inference": {
            "model": absolute(str(folder / "card.yaml"), "."),
            **{"device": config.device, "any_resolution": True},
            **({"threads": config.threads} if config.threads > 1 else {}),
        },
        "evaluation": {"labels": absolute(source.labels.url, "."), **region},
        "execution": {"executor": "serial"},
    }
    file = folder / FOLDER / "run.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("# The run by which petaseg train chose the threshold of the model's card.\n" + dump_yaml(data))
    return file
