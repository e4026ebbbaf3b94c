"""Mesh fragments of all chunks -> the meshes of neurons, one shard after another, as Neuroglancer reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from pipeline.shapes.fragments import Fragments, by_segment
from pipeline.shapes.multilod import Meshes
from pipeline.stages.base import Products
from pipeline.stages.chain_stage import ChainStage
from pipeline.stages.extract_meshes import ExtractMeshes
from pipeline.stages.setup import Setup
from pipeline.stages.shapes import WriteShapes


@dataclass(frozen=True)
class WriteMeshes(WriteShapes):
    """Fragments -> shards of whole meshes."""

    fragments: ExtractMeshes

    name = "write_meshes"
    reads = (ExtractMeshes.name,)
    folder = "meshes"

    @classmethod
    def of(cls, setup: Setup, before: Mapping[str, ChainStage]) -> Self | None:
        """The stage of a run that has mesh fragments."""
        found = before.get(ExtractMeshes.name)
        return cls(setup.layout, found) if isinstance(found, ExtractMeshes) else None

    def joined(
        self, parts: Sequence[Fragments], kept: frozenset[int]
    ) -> tuple[dict[int, tuple[bytes, bytes]], Products]:
        """See ``WriteShapes``."""
        found = by_segment(parts, kept, len(self.fragments.lattice.levels))
        meshes = self._meshes()
        return {name: meshes.assemble(levels) for name, levels in found.items() if any(levels[0].values())}, {}

    def info(self) -> dict[str, Any]:
        """See ``WriteShapes``."""
        return self._meshes().info(self.fragments.sharding.specification())

    def _meshes(self) -> Meshes:
        return Meshes(self.fragments.lattice, self.layout.resolution_nm)
