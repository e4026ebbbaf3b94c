"""How good a prediction is, as one number, 1 for the best: what schedules, early stopping and the model follow.

F1 is taken over all patches of a validation together: a patch without a single true voxel has no F1 of its own, and
would make the mean of patches jump by its share whenever one voxel is said there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from pipeline.training.target_kinds import Affinities, Contours, Foreground, Membranes
from pipeline.training.target_specs import AnyTarget


class Hits(NamedTuple):
    """Counts of voxels; those of several patches are added up."""

    right: int = 0
    """Said, and true."""
    named: int = 0
    """Said, plus true."""


def score_name(specs: Sequence[AnyTarget]) -> str:
    """What the score of these targets is; that of the first of them decides."""
    match specs[0]:
        case Affinities():
            return "cut-edge F1"
        case Foreground() | Membranes() | Contours():
            return f"{specs[0].what} F1"
        case _:
            return "1 / (1 + loss)"


def hits_of(specs: Sequence[AnyTarget], logits: Tensor, targets: Tensor, weights: Tensor) -> Hits:
    """What counts of logits, targets and weights (b, c, ...), channels as ``make_targets`` orders them."""
    match specs[0]:
        case Affinities():
            nearest = slice(0, min(3, specs[0].channels))
            return cut_edges(logits[:, nearest], targets[:, nearest], weights[:, nearest])
        case Foreground() | Membranes() | Contours():
            return found_voxels(logits[:, :1], targets[:, :1], weights[:, :1])
        case _:
            return Hits()


def score_of(specs: Sequence[AnyTarget], hits: Sequence[Hits], loss: float) -> float:
    """The score of a validation: F1 of the hits of all its patches, or what its mean loss gives."""
    if score_name(specs).endswith("F1"):
        return f1(Hits(*(sum(counts) for counts in zip(*hits, strict=True))))
    return 1 / (1 + loss)


def f1(hits: Hits) -> float:
    """The harmonic mean of precision and recall; 1 if nothing is said and nothing true."""
    return 2 * hits.right / hits.named if hits.named else 1.0


def cut_edges(logits: Tensor, targets: Tensor, weights: Tensor) -> Hits:
    """Edges that are cut (affinity 0), among those that are asked."""
    return _hits(logits < 0, targets < 0.5, weights)


def found_voxels(logits: Tensor, targets: Tensor, weights: Tensor) -> Hits:
    """Voxels that are 1, among those that are asked."""
    return _hits(logits > 0, targets > 0.5, weights)


def _hits(said: Tensor, true: Tensor, weights: Tensor) -> Hits:
    said, true = said & (weights > 0), true & (weights > 0)
    return Hits(int((said & true).sum()), int(said.sum()) + int(true.sum()))
