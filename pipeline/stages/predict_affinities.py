"""Image -> the network's affinities, on a patch lattice that does not depend on the chunks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from pipeline.config.fingerprint import fingerprint
from pipeline.config.run_file import Inference
from pipeline.errors import WorkerEnvironmentError
from pipeline.geometry import Vec
from pipeline.grid import Chunk
from pipeline.needs import Needs
from pipeline.stages import opened
from pipeline.stages.base import DEVICE_LOCK, Products
from pipeline.stages.chain_stage import ChainStage, OutputVolume
from pipeline.stages.layout import Layout
from pipeline.stages.setup import Setup

if TYPE_CHECKING:
    from pipeline.inference.lattice import PatchLattice
    from pipeline.inference.predictor import PredictOptions


@dataclass(frozen=True)
class PredictAffinities(ChainStage):
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
    """Digest of device kind, torch version and other facts that can change the last bit."""

    name = "predict_affinities"
    volumes = (OutputVolume("affinities", "uint8", channels=3),)
    has_part = False

    @classmethod
    def of(cls, setup: Setup, before: Mapping[str, ChainStage]) -> Self | None:
        """The stage of a run that begins with an image."""
        from pipeline.inference.predictor import environment_identity

        network = setup.inputs.network
        if network is None:
            return None
        options = options_of(network.config)
        return cls(
            layout=setup.layout,
            image_url=setup.inputs.url,
            image_fingerprint=setup.inputs.fingerprint,
            model_card=network.card_path,
            model_digest=network.card.digest,
            patch_shape=network.patch_shape,
            overlap=network.overlap,
            options=options,
            environment=fingerprint(environment_identity(options, of_workers=True)),
        )

    def depends_on(self) -> Sequence[Any]:
        """Image, weights, lattice, options and environment."""
        identity = self.options.identity()
        lattice = [self.patch_shape, self.overlap]
        inputs = [self.layout.fingerprint, self.image_fingerprint, self.model_digest]
        return inputs, lattice, identity, self.environment

    def lattice(self) -> PatchLattice:
        """The patches of the whole dataset."""
        from pipeline.inference.lattice import PatchLattice

        return PatchLattice(self.layout.bounds, self.patch_shape, self.overlap)

    def needs(self) -> Needs:
        """The network, and a GPU if it runs on one."""
        return Needs(network=True, gpus=int(self.options.resolved_device() == "cuda"))

    def compute_slot(self) -> AbstractContextManager[Any]:
        """One chunk at a time on a GPU; on a CPU, threads run the network in parallel."""
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


def options_of(table: Inference) -> PredictOptions:
    """The options of a predictor that a run file names; ``auto`` precision becomes the device's."""
    from pipeline.inference.options import PredictOptions

    options = PredictOptions(
        batch_size=table.batch_size,
        device=table.device,
        gpu=table.gpu,
        compile=table.compile,
        threads=table.threads,
        tta=table.augmentation,
    )
    if table.precision != "auto":
        return replace(options, precision=table.precision)
    return replace(options, precision="bfloat16" if options.resolved_device() == "cuda" else "float32")
