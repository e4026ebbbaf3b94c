"""What a chunk hands to each chunk on whose voxels its patches lie: one piece, a flat array of bytes.

piece    finished bytes of a box, uint8 (channels, z, y, x)
         sums of the boxes around it, of the scale's type, one after the other
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.geometry import BoundingBox
from pipeline.grid import Chunk
from pipeline.inference.fixed_point import FixedPoint
from pipeline.inference.shares import PatchShares


@dataclass(frozen=True)
class Pieces:
    """How pieces are cut and joined, for heads with these values where there is no image, one for each channel."""

    shares: PatchShares
    outside: tuple[float, ...]

    @property
    def bytes_stored(self) -> int:
        """The bytes of the pieces of all chunks, where every patch has an image."""
        finished, others = self.shares.voxels()
        return len(self.outside) * (finished + others * self._scale.dtype.itemsize)

    def cut(self, sums: np.ndarray, source: Chunk) -> dict[str, np.ndarray]:
        """The pieces of a chunk by the name of their target, uint8 (bytes,); those that say nothing are left out.

        sums: what its patches contribute to their reach, (channels, z, y, x).
        """
        origin = self.shares.reach(source).start
        found = {}
        for target in self.shares.targets(source):
            finished, others = self.shares.pieces(source, target)
            values = [sums[:, *box.slices(origin)] for box in (finished, *others)]
            if any(each.any() for each in values):
                complete = self._scale.to_uint8(values[0], self.outside)
                handed = (each.astype(self._scale.dtype).ravel().view(np.uint8) for each in values[1:])
                found[target.name] = np.concatenate([complete.ravel(), *handed])
        return found

    def join(self, pieces: Iterable[tuple[Chunk, np.ndarray | None]], target: Chunk) -> np.ndarray:
        """The bytes of a chunk's core, uint8 (channels, z, y, x), of the pieces of all its sources, in any order."""
        total = np.zeros((len(self.outside), *target.core.shape), np.int32)
        complete = []
        for source, piece in pieces:
            if piece is None:
                continue
            finished, others = self.shares.pieces(source, target)
            values, *sums = self._parted(piece, finished, others)
            complete.append((finished, values))
            for box, part in zip(others, sums, strict=True):
                total[:, *box.slices(target.core.start)] += part
        result = self._scale.to_uint8(total, self.outside)
        for box, values in complete:
            result[:, *box.slices(target.core.start)] = values
        return result

    @property
    def _scale(self) -> FixedPoint:
        return FixedPoint.of(self.shares.lattice)

    def _parted(self, piece: np.ndarray, finished: BoundingBox, others: Sequence[BoundingBox]) -> Iterator[np.ndarray]:
        """The arrays of a piece, (channels, z, y, x) each."""
        channels, at = len(self.outside), 0
        for box, dtype in ((finished, np.dtype(np.uint8)), *((box, self._scale.dtype) for box in others)):
            end = at + channels * box.voxels * dtype.itemsize
            yield piece[at:end].view(dtype).reshape(channels, *box.shape)
            at = end
