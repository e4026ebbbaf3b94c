"""Overlapping patches become sums: for each voxel the values of its patches, each with its share of the weight.

A patch is rounded to whole numbers before it is added (``fixed_point.py``), so the sum of a voxel does not depend on
the order of its patches, nor on which chunk has computed them. float32 holds these numbers exactly.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import ModelError
from pipeline.geometry import BoundingBox, Triple
from pipeline.inference.fixed_point import FixedPoint
from pipeline.inference.lattice import PatchLattice
from pipeline.inference.window import weight_shares


class Blender:
    """The sums of one box, (channels, z, y, x), on one device."""

    def __init__(self, box: BoundingBox, lattice: PatchLattice, channels: int, device: torch.device) -> None:
        self._box = box
        self._lattice = lattice
        self._scale = FixedPoint.of(lattice)
        self._total = torch.zeros((channels, *box.shape), device=device)

    def add(self, index: Triple, values: Tensor) -> None:
        """Add a patch, (channels, z, y, x) float32, none beyond -1 to 1; patches may come in any order.

        A patch of zeros need not be added: it changes no sum, and the shares of the others follow from the lattice.
        """
        box = self._lattice.box(index)
        part = box.intersect(self._box)
        inside = part.slices(box.start)
        weighted = (values[:, *inside] * self._window(index)[inside]).round_()
        self._total[:, *part.slices(self._box.start)] += weighted

    def sums(self) -> Tensor:
        """The sums, (channels, z, y, x) of the scale's integer type; after the last patch.

        Raises ``ModelError`` if the network returned a value that is not a finite number.
        """
        if not torch.isfinite(self._total.sum()):  # a sum is not finite if any value is not
            raise ModelError(
                f"the network returned values that are not finite in {self._box}; numbers must be finite: check the "
                "card's normalisation, or use precision: float32"
            )
        return self._total.to(torch.int16 if self._scale.dtype.itemsize == 2 else torch.int32)

    def _window(self, index: Triple) -> Tensor:
        """The share of a patch in its voxels, (z, y, x) float32, on the scale of the sums."""
        along_z, along_y, along_x = weight_shares(self._lattice, index)
        parts = (along_z * self._scale.one, along_y, along_x)
        z, y, x = (torch.from_numpy(part.astype(np.float32)).to(self._total.device) for part in parts)
        return z[:, None, None] * y[:, None] * x
