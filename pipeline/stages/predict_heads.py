"""Image -> the network's heads, on a patch lattice that does not depend on the chunks.

Each head that the run stores is a volume of its own, named like the head; one pass of the network computes all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from pipeline.errors import ConfigError, WorkerEnvironmentError
from pipeline.geometry import Vec
from pipeline.grid import Chunk
from pipeline.models.heads import AFFINITIES, NEAREST, Head, volumes_of
from pipeline.needs import Needs
from pipeline.stages import opened
from pipeline.stages.base import DEVICE_LOCK, Products
from pipeline.stages.chain_stage import ChainStage, OutputVolume
from pipeline.stages.environment import Environment, compare, record
from pipeline.stages.layout import Layout
from pipeline.stages.setup import Network, Setup
from pipeline.stages.within import within
from pipeline.storage import ObjectStore
from pipeline.volumes import open_volume
from pipeline.volumes.location import detect_format, parse_location

if TYPE_CHECKING:
    from pipeline.inference.lattice import PatchLattice
    from pipeline.inference.predictor import PredictOptions


@dataclass(frozen=True)
class PredictHeads(ChainStage):
    """Image -> the heads of a network, uint8, each (z, y, x), or (c, z, y, x) if it has several channels.

    Channel k of affinities at voxel v is the edge from v to v - e_k; ``pipeline.models.heads`` tells what others say.
    """

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
    has_part = False

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
    def outputs(self) -> tuple[OutputVolume, ...]:
        """A volume for each head, with what its numbers mean in the metadata; and its extremes, if they are stored."""
        return tuple(_volume_of(*each) for each in volumes_of(self.heads, self.options.augmentation_rule))

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
        """The image under every patch that touches the core."""
        return opened.source(self.image_url).read(self.lattice().support(chunk.core))

    def compute(self, chunk: Chunk, inputs: np.ndarray) -> tuple[Products, dict[str, float]]:
        """Run the patches and blend them; ``WorkerEnvironmentError`` where the run's bytes would come out otherwise."""
        lattice, tell = self.lattice(), partial(within, self.name, chunk)
        tell(0, len(lattice.touching(chunk.core)))
        if self not in opened.agreed():
            self._check_device()
            compare(self._records(), self.fingerprint, self._environment())
        predictor = opened.predictor(self.model_card, self.options)
        tell(0, len(lattice.touching(chunk.core)))  # the network is loaded: only now patches take their usual time
        block, counters = predictor.predict(inputs, core=chunk.core, lattice=lattice, on_patches=tell)
        return predictor.split(block), counters

    def write(self, chunk: Chunk, products: Products) -> None:
        """Store the core; the first worker of a run records its environment before that."""
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


def _volume_of(name: str, head: Head) -> OutputVolume:
    channels = head.stored_channels if head.stored_channels > 1 else None
    return OutputVolume(name, "uint8", channels, head.attributes)


def options_of(network: Network) -> PredictOptions:
    """The options of a predictor that a run file names; ``auto`` precision becomes the device's."""
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
    if table.precision != "auto":
        return replace(options, precision=table.precision)
    return replace(options, precision="bfloat16" if options.resolved_device() == "cuda" else "float32")
