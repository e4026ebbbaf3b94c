"""Image -> what the patches of each chunk contribute to the network's heads; each patch is computed once.

Patches lie on a lattice that does not depend on the chunks, and those at the faces of a chunk reach into others. One
pass of the network computes all heads; ``BlendHeads`` adds up what the chunks hand to each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from pipeline.errors import WorkerEnvironmentError
from pipeline.geometry import Vec
from pipeline.grid import Chunk
from pipeline.models.heads import NEAREST, Head, outside_of, volumes_of
from pipeline.needs import Needs
from pipeline.stages import opened
from pipeline.stages.base import DEVICE_LOCK, Products
from pipeline.stages.chain_stage import ChainStage
from pipeline.stages.environment import Environment, compare, record
from pipeline.stages.layout import Layout
from pipeline.stages.setup import Network, Setup
from pipeline.stages.within import within
from pipeline.storage import ObjectStore

if TYPE_CHECKING:
    from pipeline.inference.lattice import PatchLattice
    from pipeline.inference.pieces import Pieces
    from pipeline.inference.predictor import PredictOptions


@dataclass(frozen=True)
class PredictHeads(ChainStage):
    """Image -> the pieces that a chunk hands to itself and to the chunks on which its patches lie, by their names."""

    layout: Layout
    image_url: str
    image_fingerprint: str
    model_card: str
    model_digest: str
    patch_shape: Vec
    overlap: Vec
    options: PredictOptions
    device: Literal["cpu", "cuda"]
    """The kind of device of all workers, as the run's driver understood the options."""
    heads: tuple[Head, ...]
    """What is stored, in the order of the network's channels."""

    name = "predict_heads"
    algorithm = 2

    @classmethod
    def of(cls, setup: Setup, before: Mapping[str, ChainStage]) -> Self | None:
        """The stage of a run that begins with an image."""
        network = setup.inputs.network
        if network is None:
            return None
        options = options_of(network)
        return cls(
            layout=setup.layout,
            image_url=setup.inputs.url,
            image_fingerprint=setup.inputs.fingerprint,
            model_card=network.card_path,
            model_digest=network.card.digest,
            patch_shape=network.patch_shape,
            overlap=network.overlap,
            options=options,
            device=options.resolved_device(),
            heads=network.heads,
        )

    @property
    def volumes_of_heads(self) -> tuple[tuple[str, Head], ...]:
        """The volumes that a run stores of its heads, by name: also their extremes, if these are asked for."""
        return volumes_of(self.heads, self.options.augmentation_rule)

    @property
    def bytes_uncompressed(self) -> int:
        """Bytes of the pieces, where no patch is left out."""
        return self.pieces().bytes_stored

    def depends_on(self) -> Sequence[Any]:
        """Image, weights, lattice, options and heads; the environment is measured and recorded beside it."""
        identity = self.options.identity(self.device)
        lattice = [self.patch_shape, self.overlap]
        inputs = [self.layout.fingerprint, self.image_fingerprint, self.model_digest]
        return inputs, lattice, identity, [head.as_plain() for head in self.heads]

    def lattice(self) -> PatchLattice:
        """The patches of the whole dataset."""
        from pipeline.inference.lattice import PatchLattice

        return PatchLattice(self.layout.bounds, self.patch_shape, self.overlap)

    def pieces(self) -> Pieces:
        """How the contributions of a chunk are cut into pieces."""
        from pipeline.inference.pieces import Pieces
        from pipeline.inference.shares import PatchShares

        shares = PatchShares(self.lattice(), self.layout.grid())
        return Pieces(shares, outside_of(head for _, head in self.volumes_of_heads))

    def needs(self) -> Needs:
        """The network, and a GPU if it runs on one."""
        return Needs(network=True, gpus=int(self.device == "cuda"))

    def compute_slot(self) -> AbstractContextManager[Any]:
        """One chunk at a time on a GPU; on a CPU, threads run the network in parallel."""
        return DEVICE_LOCK if self.device == "cuda" else nullcontext()

    def warm_up(self) -> None:
        """Load the network, and measure what this process computes with it."""
        self._environment()

    def read(self, chunk: Chunk) -> np.ndarray:
        """The image under every patch of the chunk; nothing if it has none."""
        patches = self.pieces().shares.patches(chunk)
        if not all(patches):
            return np.zeros((0, 0, 0), np.uint8)
        return opened.source(self.image_url).read(self.lattice().around(patches))

    def compute(self, chunk: Chunk, inputs: np.ndarray) -> tuple[Products, dict[str, float]]:
        """Run the patches and add them up; ``WorkerEnvironmentError`` where the bytes would come out otherwise."""
        pieces, tell = self.pieces(), partial(within, self.name, chunk)
        patches = pieces.shares.patches(chunk)
        tell(0, prod(map(len, patches)))
        if self not in opened.agreed():
            self._check_device()
            compare(self._records(), self.fingerprint, self._environment())
        if not all(patches):
            return {}, {"patches": 0, "skipped": 0}
        predictor = opened.predictor(self.model_card, self.options)
        tell(0, prod(map(len, patches)))  # the network is loaded: only now patches take their usual time
        box, lattice = pieces.shares.reach(chunk), self.lattice()
        sums, counters = predictor.sums(inputs, patches=patches, box=box, lattice=lattice, on_patches=tell)
        return pieces.cut(sums, chunk), counters

    def write(self, chunk: Chunk, products: Products) -> None:
        """Store the pieces; the first worker of a run records its environment before that."""
        if self not in opened.agreed():
            record(self._records(), self.fingerprint, self._environment())
            opened.agreed().add(self)
        super().write(chunk, products)

    def _records(self) -> ObjectStore:
        return opened.store(self.layout.run_url)

    def _environment(self) -> Environment:
        return opened.environment(self.model_card, self.options, self.patch_shape)

    def _check_device(self) -> None:
        """Compare the device that the run file names with this worker's; everything else is measured."""
        from pipeline.inference.runtime import gpu_name

        gpu, named = gpu_name(), self.options.gpu
        here = "cpu" if self.options.device == "cpu" or gpu == "none" else "cuda"
        if here != self.device or (here == "cuda" and named not in (None, gpu)):
            wanted = self.device + (f" ({named})" if named and self.device == "cuda" else "")
            raise WorkerEnvironmentError(
                f"this worker would run the network on {here}, its GPU is {gpu!r}; the run is on {wanted}: give driver "
                "and workers the same kind of device, or set inference.device (and inference.gpu, if the driver has "
                "no GPU)"
            )


def options_of(network: Network) -> PredictOptions:
    """The options of a predictor that a run file names.

    The precision ``auto`` becomes the device's, and ``fastest`` what was measured, once it was.
    """
    from pipeline.inference.options import PredictOptions

    table = network.config
    options = PredictOptions(
        batch_size=table.batch_size,
        device=table.device,
        gpu=table.gpu,
        compile=table.compile,
        threads=table.threads,
        augmentation=table.augmentation,
        augmentation_rule=table.augmentation_rule,
        heads=tuple(head.name for head in network.heads),
        channels=next((head.affinities for head in network.heads if head.offsets), NEAREST),
    )
    if network.fastest is not None:
        return replace(options, precision=network.fastest.precision)
    if table.precision != "auto":
        return replace(options, precision=table.precision)
    return replace(options, precision="bfloat16" if options.resolved_device() == "cuda" else "float32")
