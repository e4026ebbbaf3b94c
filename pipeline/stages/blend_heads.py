"""What the chunks' patches contribute -> the heads: the contributions of neighbouring chunks are added and rounded.

Each head that the run stores is a volume of its own, named like the head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from pipeline.errors import ConfigError
from pipeline.geometry import Vec
from pipeline.grid import Chunk
from pipeline.models.heads import AFFINITIES, Head, split_channels
from pipeline.stages.base import Products
from pipeline.stages.chain_stage import ChainStage, OutputVolume
from pipeline.stages.layout import Layout
from pipeline.stages.predict_heads import PredictHeads
from pipeline.stages.setup import Setup
from pipeline.volumes import open_volume
from pipeline.volumes.location import detect_format, parse_location

Read = list[tuple[Vec, np.ndarray | None]]
"""The index of each chunk whose patches lie on the core, and its piece; ``None`` if it says nothing."""


@dataclass(frozen=True)
class BlendHeads(ChainStage):
    """Pieces of chunks -> the heads of a network, uint8, each (z, y, x), or (c, z, y, x) if it has several channels.

    Channel k of affinities at voxel v is the edge from v to v - e_k; ``pipeline.models.heads`` tells what others say.
    """

    layout: Layout
    predicted: PredictHeads

    name = "blend_heads"
    reads = (PredictHeads.name,)
    has_part = False

    @classmethod
    def of(cls, setup: Setup, before: Mapping[str, ChainStage]) -> Self | None:
        """The stage of a run that begins with an image."""
        predicted = before.get(PredictHeads.name)
        return cls(setup.layout, predicted) if isinstance(predicted, PredictHeads) else None

    @property
    def outputs(self) -> tuple[OutputVolume, ...]:
        """A volume for each head, with what its numbers mean in the metadata; and its extremes, if they are stored."""
        return tuple(_volume_of(*each) for each in self.predicted.volumes_of_heads)

    def depends_on(self) -> Sequence[Any]:
        """What the network predicts."""
        return (self.predicted.fingerprint,)

    def prepare(self) -> None:
        """Create the output volumes; ``ConfigError`` if one is there with another number of channels."""
        for volume in self.outputs:
            self._refuse_other_channels(volume)
        super().prepare()

    def _refuse_other_channels(self, volume: OutputVolume) -> None:
        url = self.layout.volume_url(volume.name)
        if detect_format(parse_location(url)) is None:
            return
        found, wanted = open_volume(url).spec.channels or 1, volume.channels or 1
        if found != wanted:
            key = "agglomeration.far_offsets or inference.model" if volume.name == AFFINITIES else "inference.model"
            raise ConfigError(
                f"{url} has {found} channels, and this run predicts {wanted}: {key} is another one than it was. Set "
                "it back, choose another run_directory, or delete this volume, and it is predicted again"
            )

    def read(self, chunk: Chunk) -> Read:
        """The pieces of all chunks whose patches lie on the core; no byte of what they hand to others."""
        sources = self.predicted.pieces().shares.sources(chunk)
        found = self.layout.get_from_parts(self.predicted.name, sources, chunk.name)
        return [(source.index, piece) for source, piece in zip(sources, found, strict=True)]

    def compute(self, chunk: Chunk, inputs: Read) -> tuple[Products, dict[str, float]]:
        """Add the pieces up."""
        grid = self.layout.grid()
        block = self.predicted.pieces().join(((grid.chunk(index), piece) for index, piece in inputs), chunk)
        return split_channels(block, self.predicted.volumes_of_heads), {}


def _volume_of(name: str, head: Head) -> OutputVolume:
    channels = head.stored_channels if head.stored_channels > 1 else None
    return OutputVolume(name, "uint8", channels, head.attributes)
