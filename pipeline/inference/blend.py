"""Overlapping patches become one block: for each voxel (sum of weight * value) / (sum of weights), then uint8.

Only the core is accumulated, in float32, one product and one sum a patch, in lattice order: the sequence of operations
of a voxel is the same in any core that holds it, so its byte is the same.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.errors import ModelError
from pipeline.geometry import BoundingBox, Triple
from pipeline.inference.lattice import PatchLattice
from pipeline.inference.window import weight_sums


class Blender:
    """The blended values of one core, (channels, z, y, x), on one device."""

    def __init__(self, core: BoundingBox, lattice: PatchLattice, channels: int, window: Tensor) -> None:
        self._core = core
        self._lattice = lattice
        self._window = window  # (z, y, x) float32
        self._total = torch.zeros((channels, *core.shape), device=window.device)

    def add(self, index: Triple, values: Tensor) -> None:
        """Add a patch, (channels, z, y, x) float32; patches must come in lattice order.

        A patch of zeros need not be added: it changes no sum, and the weights are those of the lattice.
        """
        box = self._lattice.box(index)
        part = box.intersect(self._core)
        inside = part.slices(box.start)
        target = self._total[:, *part.slices(self._core.start)]
        target += values[:, *inside] * self._window[inside]

    def values(self) -> Tensor:
        """The block, (channels, z, y, x) float32, 255 for 1; may be called once, after the last patch.

        Raises ``ModelError`` if the network returned a value that is not a finite number.
        """
        z, y, x = (torch.from_numpy(w).to(self._window.device) for w in weight_sums(self._lattice, self._core))
        scaled = self._total.div_(z[:, None, None] * y[:, None] * x).mul_(255.0)
        if not torch.isfinite(scaled.sum()):  # a NaN or an infinity survives any sum
            raise ModelError(
                f"the network returned values that are not finite in {self._core}; numbers must be finite: check the "
                "card's normalisation, or use precision: float32"
            )
        return scaled


def to_uint8(values: Tensor) -> Tensor:
    """Rounded half to even and cut to 0..255; ``values`` is overwritten."""
    return values.round_().clamp_(0, 255).to(torch.uint8)
