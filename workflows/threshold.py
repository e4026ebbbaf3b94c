"""The threshold of a trained model, chosen by a run on a box of its validation part.

1. a box in the middle of the validation part, at most ``threshold_box`` voxels      validation_box
2. the whole pipeline on this box: affinities, supervoxels, merge tree           an ordinary run in <output>/threshold
3. the VOI at 51 thresholds from one merge tree                                      pipeline/evaluation/sweep.py
4. the threshold of the lowest VOI, averaged around it, goes to the model's card     card.yaml

A network that predicts the foreground, and nothing of which neurons are made, has a mask in place of neurons, and the
threshold of the largest foreground IoU (pipeline/runs/object_sweep.py).

It is an ordinary run, so after an interruption the same command goes on with its missing chunks.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.config.strict_yaml import dump_yaml
from pipeline.evaluation.sweep import steadiest
from pipeline.geometry import BoundingBox, Vec
from pipeline.models.heads import FOREGROUND, heads_of, makes_mask
from pipeline.models.spec import ModelCard, load_card, write_card
from pipeline.runs.report import Report, write_report
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

    Only for affinities or membranes that a run can use, with labels of at least two objects, and for a foreground.
    """
    folder = Path(config.output)
    card = load_card(folder)
    if card.threshold is not None:
        return Chosen(card.threshold, f"threshold {card.threshold:g} stands in {folder}/card.yaml")
    heads, source = heads_of(card), open_sources(config)[1]
    is_mask = makes_mask(heads)
    if not is_mask and not any(head.makes_neurons for head in heads):
        return Chosen(None, "no threshold is chosen: it predicts neither affinities of neighbours nor membranes")
    box = validation_box(source.box, config.threshold_box)
    needed = "one labelled object" if is_mask else "two labelled objects"
    if (np.unique(source.read_labels(box)) != 0).sum() < (1 if is_mask else 2):
        return Chosen(None, f"no threshold is chosen: {box} of the validation part has fewer than {needed}")
    return _chosen(folder, card, box, write_run_file(folder, config, source, box, is_mask=is_mask), quiet)


def _chosen(folder: Path, card: ModelCard, box: BoundingBox, run_file: Path, quiet: bool) -> Chosen:
    """Run the file, take the threshold of the best score, and write it into the card."""
    report = write_report(run_with_progress(str(run_file), quiet=quiet).run)
    name, words, threshold, score = _best(report)
    scores = {**card.scores, f"validation {name}": round(score, 4), f"validation {name} on": str(box)}
    write_card(folder, card.model_copy(update={"threshold": threshold, "scores": scores}))
    return Chosen(
        threshold,
        f"threshold {threshold:g} has the {words} on {box} of the validation part; it stands in {folder}/card.yaml "
        f"now ({report.sweep_picture} shows all thresholds)",
    )


def _best(report: Report) -> tuple[str, str, float, float]:
    """The name of the score, what is said of it, the threshold and the score."""
    if report.lines:
        line, best = report.lines[0], report.lines[0].best
        score = line.score(best)
        return "IoU", f"largest foreground IoU, {score:.3f},", best.value, score
    chosen = steadiest(report.points)
    voi = chosen.scores.voi
    return "VOI", f"lowest VOI around it, {voi:.3f} bits at it,", round(chosen.threshold, 4), voi


def validation_box(part: BoundingBox, most: Vec) -> BoundingBox:
    """The box in the middle of a part, with at most ``most`` voxels along each axis."""
    shape = part.shape.minimum(most)
    return BoundingBox.from_shape(shape, part.start + (part.shape - shape) // 2)


def write_run_file(
    folder: Path, config: TrainConfig, source: Source, box: BoundingBox, *, is_mask: bool = False
) -> Path:
    """The run file, in ``<output>/threshold``; is_mask: it makes a mask of the foreground."""
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
        **({"segmentation": {"kind": "mask", "head": FOREGROUND}} if is_mask else {}),
        "evaluation": {"labels": absolute(source.labels.url, "."), **region},
        "execution": {"executor": "serial"},
    }
    file = folder / FOLDER / "run.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("# The run by which petaseg train chose the threshold of the model's card.\n" + dump_yaml(data))
    return file
