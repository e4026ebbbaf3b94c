"""How good a prediction is, as one number, 1 for the best: what schedules, early stopping and the model follow."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from pipeline.training.losses import cut_f1
from pipeline.training.specs import Affinities, AnyTarget, Contours, Foreground, Membranes


def score_name(specs: Sequence[AnyTarget]) -> str:
    """What the score of these targets is; that of the first of them decides."""
    match specs[0]:
        case Affinities():
            return "cut-edge F1"
        case Foreground() | Membranes() | Contours():
            return f"{specs[0].what} F1"
        case _:
            return "1 / (1 + loss)"


def score_of(specs: Sequence[AnyTarget], logits: Tensor, targets: Tensor, weights: Tensor, loss: float) -> float:
    """The score of logits, targets and weights (b, c, ...), channels as ``make_targets`` orders them."""
    match specs[0]:
        case Affinities():
            nearest = slice(0, min(3, specs[0].channels))
            return cut_f1(logits[:, nearest], targets[:, nearest], weights[:, nearest])
        case Foreground() | Membranes() | Contours():
            return found_f1(logits[:, :1], targets[:, :1], weights[:, :1])
        case _:
            return 1 / (1 + loss)


def found_f1(logits: Tensor, targets: Tensor, weights: Tensor) -> float:
    """F1 of the voxels that are said to be 1, among those that are asked: 1 is best."""
    asked = weights > 0
    said, true = (logits > 0) & asked, (targets > 0.5) & asked
    both, total = (said & true).sum().item(), said.sum().item() + true.sum().item()
    return 2 * both / total if total else 1.0
