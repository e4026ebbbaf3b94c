"""From the output of a network to the values of the heads that a run stores, all from 0 to 1.

affinities, membranes, ...    the activation of each channel
signed distance (tanh)        (d + 1) / 2
instance distance (levels)    the expected level over the number of levels: one channel
classes (softmax)             the probability of each class
affinities (no activation)    the value, cut to 0 to 1

All of it is linear behind the activation, so that it may come before copies and patches are averaged.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.models.heads import Head


def head_values(head: Head, logits: Tensor) -> Tensor:
    """The values of a head, (stored or used channels, z, y, x), of its channels of the output, both float32."""
    if head.activation == "sigmoid":
        return torch.sigmoid(logits)
    if head.activation == "tanh":
        return torch.tanh(logits).add_(1).mul_(0.5)
    if head.activation == "softmax":
        shares = torch.softmax(logits, 0)
        return _expected_level(shares) if head.mapping == "level" else shares
    return torch.where(torch.isfinite(logits), logits.clamp(0, 1), torch.nan)


def _expected_level(shares: Tensor) -> Tensor:
    """The mean level over the largest one, (1, z, y, x), added up from the first class to the last."""
    total = torch.zeros_like(shares[0])
    for level in range(1, len(shares)):
        total += shares[level] * (level / (len(shares) - 1))
    return total[None]
