"""What the stages that write small arrays, and no voxels, have in common."""

from __future__ import annotations

from pipeline.grid import Chunk, ChunkGrid
from pipeline.stages.base import Products, Stage
from pipeline.stages.layout import Layout


class PartStage(Stage):
    """A stage whose products of a chunk are one object of small arrays."""

    layout: Layout

    def write(self, chunk: Chunk, products: Products) -> None:
        """Store the arrays, all or nothing."""
        self.layout.put_part(self.name, chunk, products)

    def load(self, chunk: Chunk) -> Products:
        """Read them back."""
        return self.layout.get_part(self.name, chunk)


class TreeStage(PartStage):
    """A part stage over the tree of chunks: level 0 are the chunks, each node above covers 2 x 2 x 2 below."""

    def levels(self) -> list[ChunkGrid]:
        """The grids from the chunks up to the whole."""
        return self.layout.grid().levels()

    def children(self, chunk: Chunk) -> list[Chunk]:
        """The chunks one level down that a node covers."""
        return self.levels()[chunk.level - 1].children(chunk)

    def parent(self, chunk: Chunk) -> Chunk | None:
        """The node one level up, or None at the root."""
        levels = self.levels()
        if chunk.level + 1 == len(levels):
            return None
        z, y, x = (i // 2 for i in chunk.index)
        return levels[chunk.level + 1].chunk((z, y, x))
