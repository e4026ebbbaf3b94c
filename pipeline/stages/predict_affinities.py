"""Stage 1: the network's affinities, on a patch lattice that does not depend on the chunks."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.config.fingerprint import fingerprint
from pipeline.errors import WorkerEnvironmentError
from pipeline.geometry import Vec
from pipeline.grid import Chunk, ChunkGrid
from pipeline.needs import Needs
from pipeline.stages import opened
from pipeline.stages.base import DEVICE_LOCK, Products, Stage
from pipeline.stages.layout import Layout

if TYPE_CHECKING:
    from pipeline.inference.lattice import PatchLattice
    from pipeline.inference.predictor import PredictOptions

ALGORITHM = 1


@dataclass(frozen=True)
class PredictAffinities(Stage):
    """Image -> nearest-neighbour affinities (3, z, y, x) uint8; channel k at voxel v is the edge v to v - e_k."""

    layout: Layout
    image_url: str
    image_fingerprint: str
    model_card: str
    model_digest: str
    patch_shape: Vec
    overlap: Vec
    options: PredictOptions
    environment: str
    """Digest of device kind, torch version and whatever else decides about the last bit."""

    name = "predict_affinities"

    @property
    def fingerprint(self) -> str:
        """Image, weights, lattice, options and environment."""
        identity = self.options.identity()
        lattice = [self.patch_shape, self.overlap]
        inputs = [self.layout.fingerprint, self.image_fingerprint, self.model_digest]
        return fingerprint(self.name, ALGORITHM, inputs, lattice, identity, self.environment)

    def grids(self) -> Sequence[ChunkGrid]:
        """One grid; the support of the patches is read instead of a fixed halo."""
        return [self.layout.grid()]

    def lattice(self) -> PatchLattice:
        """The patches of the whole dataset."""
        from pipeline.inference.lattice import PatchLattice

        return PatchLattice(self.layout.bounds, self.patch_shape, self.overlap)

    def prepare(self) -> None:
        """Create the volume of affinities."""
        self.layout.create_volume("affinities", "uint8", channels=3)

    def needs(self) -> Needs:
        """One GPU, if there is one to run on."""
        return Needs(network=True, gpus=int(self.options.resolved_device() == "cuda"))

    def compute_slot(self) -> AbstractContextManager[Any]:
        """One chunk at a time on a GPU; on a CPU, threads run the network side by side."""
        return DEVICE_LOCK if self.options.resolved_device() == "cuda" else nullcontext()

    def read(self, chunk: Chunk) -> np.ndarray:
        """The image under every patch that touches the core."""
        return opened.source(self.image_url).read(self.lattice().support(chunk.core))

    def compute(self, chunk: Chunk, inputs: np.ndarray) -> tuple[Products, dict[str, float]]:
        """Run the patches and blend them; ``WorkerEnvironmentError`` where the arithmetic may differ."""
        self._check_environment()
        predictor = opened.predictor(self.model_card, self.options)
        affinities, counters = predictor.predict(inputs, core=chunk.core, lattice=self.lattice())
        return {"affinities": affinities}, counters

    def _check_environment(self) -> None:
        from pipeline.inference.predictor import environment_identity

        identity = environment_identity(self.options)
        if fingerprint(identity) != self.environment:
            raise WorkerEnvironmentError(
                f"this worker would compute with {identity}; the run's driver has another device or version of "
                "torch, so bytes could differ: give driver and workers the same environment, or set inference.device"
            )

    def write(self, chunk: Chunk, products: Products) -> None:
        """Store the core."""
        self.layout.write("affinities", chunk.core, products["affinities"])

    def load(self, chunk: Chunk) -> Products:
        """Read the core back."""
        return {"affinities": self.layout.read("affinities", chunk.core)}
