"""A head of class probabilities -> a class map: the number of the most probable class of every voxel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from pipeline.errors import ConfigError
from pipeline.grid import Chunk
from pipeline.models.heads import DIRECTED, SIGNED_DISTANCE
from pipeline.segmentation.classes import MOST, count_classes, most_probable
from pipeline.stages.base import Products
from pipeline.stages.blend_heads import BlendHeads
from pipeline.stages.chain_stage import ChainStage, OutputVolume
from pipeline.stages.heads import HeadSource
from pipeline.stages.layout import Layout
from pipeline.stages.setup import Setup
from pipeline.stages.tissue import count_masked, tissue
from pipeline.stages.valued_head import result_head, split_name

COUNTER = "class_"
"""The voxels of class 3 are counted as ``class_3``, without those that the mask excludes."""


@dataclass(frozen=True)
class WriteClasses(ChainStage):
    """Class probabilities -> classes (uint8, the number of the channel; 0 outside of the tissue).

    The workers count the voxels of each class, and the ledger adds them up.
    """

    layout: Layout
    head: HeadSource
    count: int
    """The number of classes."""
    mask_url: str | None
    mask_fingerprint: str

    name = "write_classes"
    reads = (BlendHeads.name,)
    volumes = (OutputVolume("class_map", "uint8"),)
    has_part = False

    @classmethod
    def of(cls, setup: Setup, before: Mapping[str, ChainStage]) -> Self | None:
        """The stage of a run that makes a class map."""
        if setup.config.segmentation.kind != "classes":
            return None
        head, inputs = class_head(setup, before.get(BlendHeads.name)), setup.inputs
        _, count = inputs.meaning_of(head.name)
        return cls(setup.layout, head, count, inputs.mask_url, inputs.mask_fingerprint)

    def depends_on(self) -> Sequence[Any]:
        """The head and the mask."""
        return self.layout.fingerprint, self.head.identity, self.mask_fingerprint

    def read(self, chunk: Chunk) -> tuple[np.ndarray, np.ndarray | None]:
        """The stored probabilities of the core, uint8 (c, z, y, x), and the tissue."""
        return self.head.read(chunk.core), tissue(self.mask_url, self.layout, chunk.core)

    def compute(self, chunk: Chunk, inputs: tuple[np.ndarray, np.ndarray | None]) -> tuple[Products, dict[str, float]]:
        """Choose the class of each voxel, and count them."""
        stored, mask = inputs
        classes = most_probable(stored, mask)
        counts = enumerate(count_classes(classes, mask).tolist())
        counters = {f"{COUNTER}{number}": float(voxels) for number, voxels in counts if voxels}
        return {self.volumes[0].name: classes}, {**count_masked(mask, chunk.core, chunk.core.start), **counters}


def class_head(setup: Setup, predicted: ChainStage | None) -> HeadSource:
    """The head of class probabilities of a run.

    Raises ``ConfigError`` if the run has none of its name, or the head has no probabilities of classes.
    """
    name = result_head(setup.config.segmentation, setup.inputs.heads)
    if split_name(name)[0] != name:
        raise ConfigError(
            f"segmentation.head is {name!r}, and a class map is made of all channels of a head: set it to "
            f"{split_name(name)[0]}, or choose kind: mask or objects for one class"
        )
    source, (mapping, count) = setup.head(name, predicted), setup.inputs.meaning_of(name)
    is_other = name in (*DIRECTED, SIGNED_DISTANCE) or (setup.inputs.network is not None and mapping != "classes")
    if is_other or not 2 <= count <= MOST:
        raise ConfigError(
            f"segmentation.kind is classes, and head {name} has {count} channels of {mapping} values; a class map "
            f"needs a probability for each of 2 to {MOST} classes, as a target `classes` trains them: name such a head "
            "in segmentation.head, or choose kind: mask or objects"
        )
    return source
