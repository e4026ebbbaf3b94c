"""How large the measured things are: enough to fill a GPU, or little enough to try the script on a CPU."""

from __future__ import annotations

import os
from dataclasses import dataclass

from pipeline.geometry import Triple


@dataclass(frozen=True)
class Sizes:
    """How large the measured things are."""

    matrix: int
    """Side of the matrices of a plain product."""
    channels: int
    side: int
    """Side of the cube of a plain convolution."""
    cubes: tuple[Triple, ...]
    """Patches of networks for isotropic voxels: the usual one first, that of trainings last."""
    slabs: tuple[Triple, ...]
    """The same of networks for thick sections."""
    batches: tuple[int, ...]
    """Patches of a forward pass, the usual number first."""
    along: Triple
    """Patches of the made-up volume along z, y, x."""
    updates: int
    """Of a training."""
    together: int
    """Patches of an update."""
    precision: str
    """Of a training: on a CPU the gradients of thin levels need float32."""
    loaders: int


SIZES = {
    "cuda": Sizes(
        matrix=8192,
        channels=128,
        side=96,
        cubes=((128, 128, 128), (192, 192, 192), (64, 64, 64)),
        slabs=((32, 256, 256), (16, 160, 160)),
        batches=(4, 1, 2, 8),
        along=(3, 3, 3),
        updates=200,
        together=4,
        precision="bfloat16",
        loaders=min(4, os.cpu_count() or 1),
    ),
    "cpu": Sizes(
        matrix=512,
        channels=32,
        side=16,
        cubes=((32, 32, 32), (16, 16, 16)),
        slabs=((8, 32, 32), (4, 32, 32)),
        batches=(1, 2),
        along=(2, 1, 1),
        updates=96,
        together=2,
        precision="float32",
        loaders=0,
    ),
}
