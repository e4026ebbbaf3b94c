"""The score of a prediction, 1 for the best, which schedules, early stopping and the choice of the model use.

F1 is taken over all patches of a validation together: a patch without a single true voxel has no F1 of its own, and
would make the mean over patches jump whenever a single voxel is predicted there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.evaluation.contours import hits, thinned
from pipeline.training.target_classes import Classes, ContourMap
from pipeline.training.target_kinds import Affinities, Contours, Foreground, Membranes
from pipeline.training.target_specs import AnyTarget

THRESHOLDS = np.arange(1, 10) / 10
"""Probabilities from which on a pixel is contour; ODS takes the best of them."""


class Hits(NamedTuple):
    """Counts of voxels; those of several patches are added up."""

    both: int | np.ndarray = 0
    """Voxels that are predicted and true; of contours a number for each of ``THRESHOLDS``."""
    either: int | np.ndarray = 0
    """Predicted voxels plus true voxels."""


def score_name(specs: Sequence[AnyTarget]) -> str:
    """The name of the score of these targets, which is that of the first target."""
    match specs[0]:
        case Affinities():
            return "cut-edge F1"
        case Foreground() | Membranes() | Contours():
            return f"{specs[0].what} F1"
        case Classes():
            return "class F1"
        case ContourMap():
            return "contour ODS F1"
        case _:
            return "1 / (1 + loss)"


def hits_of(specs: Sequence[AnyTarget], logits: Tensor, targets: Tensor, weights: Tensor) -> Hits:
    """The score's counts of logits, targets and weights (b, c, ...), with channels as ``make_targets`` orders them."""
    match specs[0]:
        case Affinities():
            nearest = slice(0, min(3, specs[0].channels))
            return cut_edges(logits[:, nearest], targets[:, nearest], weights[:, nearest])
        case Foreground() | Membranes() | Contours():
            return found_voxels(logits[:, :1], targets[:, :1], weights[:, :1])
        case Classes():
            return found_classes(logits[:, : specs[0].channels], targets[:, :1], weights[:, :1])
        case ContourMap():
            return found_contours(logits[:, :1], targets[:, :1], weights[:, :1])
        case _:
            return Hits()


def score_of(specs: Sequence[AnyTarget], found: Sequence[Hits], loss: float) -> float:
    """The score of a validation: F1 of all its patches (of several thresholds the best), or 1 / (1 + loss)."""
    if not score_name(specs).endswith("F1"):
        return 1 / (1 + loss)
    both, either = (np.atleast_1d(sum(counts)) for counts in zip(*found, strict=True))
    return max(f1(Hits(int(b), int(e))) for b, e in zip(both, either, strict=True))


def f1(found: Hits) -> float:
    """The harmonic mean of precision and recall; 1 if no voxel is predicted and none is true."""
    return 2 * float(found.both) / float(found.either) if found.either else 1.0


def cut_edges(logits: Tensor, targets: Tensor, weights: Tensor) -> Hits:
    """Counts of edges that are cut (affinity 0), among unmasked ones."""
    return _hits(logits < 0, targets < 0.5, weights)


def found_voxels(logits: Tensor, targets: Tensor, weights: Tensor) -> Hits:
    """Counts of voxels that are 1, among unmasked ones."""
    return _hits(logits > 0, targets > 0.5, weights)


def found_classes(logits: Tensor, targets: Tensor, weights: Tensor) -> Hits:
    """Counts of voxels whose class is right, among unmasked ones that are predicted or true to be no background.

    logits (b, classes, ...); targets and weights (b, 1, ...). Class 0 is background.
    """
    predicted, unmasked = logits.argmax(1, keepdim=True), weights > 0
    objects = [(classes > 0) & unmasked for classes in (predicted, targets)]
    right = objects[0] & objects[1] & (predicted == targets)
    return Hits(int(right.sum()), int(objects[0].sum()) + int(objects[1].sum()))


def found_contours(logits: Tensor, targets: Tensor, weights: Tensor) -> Hits:
    """Counts of contour pixels with a partner in the truth near by (``evaluation.contours``), for each threshold.

    All (b, 1, z, y, x) or (b, 1, y, x); each section is a picture. Pixels that are masked are no contours.
    """
    predicted, true, unmasked = (
        part.reshape(-1, *part.shape[-2:]).float().cpu().numpy() for part in (torch.sigmoid(logits), targets, weights)
    )
    counts = [
        [hits((p >= t) & (w > 0), [thinned((y > 0.5) & (w > 0))]) for t in THRESHOLDS]
        for p, y, w in zip(predicted, true, unmasked, strict=True)
    ]
    found, lines, _, drawn = np.moveaxis(np.array(counts).sum(0), -1, 0)
    return Hits(found, lines + drawn)


def _hits(predicted: Tensor, true: Tensor, weights: Tensor) -> Hits:
    predicted, true = predicted & (weights > 0), true & (weights > 0)
    return Hits(int((predicted & true).sum()), int(predicted.sum()) + int(true.sum()))
