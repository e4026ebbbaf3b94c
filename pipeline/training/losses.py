"""Losses on logits."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

LEAST_SHARE = 0.05
"""The rarer class counts as at least this share, so that a patch with one membrane voxel does not explode."""


def balanced_bce(logits: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """Binary cross entropy over the masked voxels in which both classes weigh the same, mean over channels.

    All (b, c, z, y, x). Class shares are taken for each channel over batch and voxels.
    """
    voxels = mask.sum((0, 2, 3, 4)).clamp(min=1)  # (c,)
    share = ((targets * mask).sum((0, 2, 3, 4)) / voxels).clamp(LEAST_SHARE, 1 - LEAST_SHARE)
    share = share.view(1, -1, 1, 1, 1)
    weight = 0.5 * mask * (targets / share + (1 - targets) / (1 - share))
    loss = F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none")
    return ((loss * weight).sum((0, 2, 3, 4)) / voxels).mean()


def cut_f1(logits: Tensor, targets: Tensor, mask: Tensor) -> float:
    """F1 of the edges that are cut (affinity 0) among the nearest neighbours: 1 is best."""
    asked = mask[:, :3] > 0
    said, true = (logits[:, :3] < 0) & asked, (targets[:, :3] < 0.5) & asked
    both = (said & true).sum().item()
    total = said.sum().item() + true.sum().item()
    return 2 * both / total if total else 1.0
