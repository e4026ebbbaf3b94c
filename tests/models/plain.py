"""Small arguments of the plain networks, and networks whose norms have seen something."""

from typing import Any

import torch
from torch import nn

from pipeline.models.folding import ScaledConv
from tests.contracts.model import images, seeded

THICK: dict[str, Any] = {
    "widths": (32, 32),
    "kernels": ((1, 3, 3), (3, 3, 3)),
    "pools": ((1, 2, 2),),
    "stride": (1, 2, 2),
    "out_channels": 3,
}
CUBIC: dict[str, Any] = {"widths": (32, 64), "kernels": ((3, 3, 3),) * 2, "pools": ((2, 2, 2),), "out_channels": 5}


def trained(architecture: str, arguments: dict[str, Any], seed: int = 0) -> nn.Module:
    """A network whose norms have seen a few batches, and whose gains and biases are random."""
    network = seeded(architecture, arguments, seed)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm3d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.uniform_(part.bias, -0.5, 0.5)
        if isinstance(part, ScaledConv):
            nn.init.uniform_(part.gain, 0.5, 1.5)
    network.train()
    with torch.no_grad():
        for number in range(5):
            network(images(2, (4, 8, 12), seed=number))
    return network.eval()
