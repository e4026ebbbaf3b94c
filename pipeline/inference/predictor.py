"""Predict the uint8 heads of a core from the image of its support: a pure function of image, weights and options.

1. the patches of the dataset's lattice that touch the core       lattice.py; of a chunk of a run, its own: shares.py
2. without constant patches, which are outside the tissue         Predictor._has_image
3. normalise batches, run the network, undo variants              Predictor._values, outputs.py
4. weight, round, sum                                             blend.py, fixed_point.py
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from itertools import product as cartesian
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import ConfigError, ModelError
from pipeline.geometry import ZERO, BoundingBox, Triple, Vec, as_vec
from pipeline.inference.augmentation import Augmentation, channels_needed, variants
from pipeline.inference.blend import Blender
from pipeline.inference.fixed_point import FixedPoint
from pipeline.inference.lattice import PatchLattice, Ranges
from pipeline.inference.options import FASTEST, PredictOptions
from pipeline.inference.outputs import head_values
from pipeline.inference.probe import probe_patches
from pipeline.inference.runtime import forward_state
from pipeline.models.folding import folded
from pipeline.models.heads import AFFINITIES, chosen_heads, outside_of, split_channels, volumes_of

if TYPE_CHECKING:
    from pipeline.models.spec import LoadedModel

__all__ = ["PredictOptions", "Predictor", "measure"]

Reader = Callable[[BoundingBox], np.ndarray]
Progress = Callable[[int, int], None]
"""Called with the number of patches done and the number of all."""


class Predictor:
    """A network on its device, ready for any number of chunks; one thread at a time."""

    def __init__(self, loaded: LoadedModel, options: PredictOptions) -> None:
        if options.precision == FASTEST:
            raise ConfigError(
                "inference precision is fastest, and which one that is has not been measured; the driver of a run "
                "measures it (`petaseg run`): elsewhere choose float32 or bfloat16"
            )
        self.card = loaded.card
        self.options = options
        self.device = torch.device(options.resolved_device())
        self.memory_format = torch.channels_last_3d if options.channels_last else torch.contiguous_format
        if AFFINITIES in options.heads and options.channels > len(self.card.offsets):
            raise ConfigError(
                f"inference channels is {options.channels}; the network has {len(self.card.offsets)} affinities: "
                "ask for no more"
            )
        self.heads = tuple(
            replace(head, affinities=options.channels) for head in chosen_heads(loaded.card, options.heads)
        )
        self.volumes = volumes_of(self.heads, options.augmentation_rule)
        self.outside = outside_of(head for _, head in self.volumes)
        self._outside = _column(self.outside, self.device) if any(self.outside) else None
        narrow, self.channels = self._narrowed(loaded.module)
        self.network = self._placed(narrow)
        self._augmentations: dict[Vec, Augmentation] = {}

    @property
    def stored_channels(self) -> int:
        """Channels of all volumes together."""
        return sum(head.stored_channels for _, head in self.volumes)

    @property
    def batch_size(self) -> int:
        """Patches per forward pass: the option on a GPU, 1 on a CPU (``runtime.py`` explains why)."""
        return self.options.batch_size if self.device.type == "cuda" else 1

    def predict(
        self,
        image: np.ndarray | Reader,
        *,
        core: BoundingBox,
        lattice: PatchLattice,
        on_patches: Progress = lambda done, total: None,
    ) -> tuple[np.ndarray, dict[str, float]]:
        """The heads of ``core``, (channels, z, y, x) uint8, and the counters ``patches`` and ``skipped``.

        The channels are those of ``self.volumes``, one after the other: ``split`` parts them.

        ``image`` holds the voxels of ``lattice.support(core)``, (z, y, x) or (c, z, y, x) with the channels that the
        network takes, or is a function that reads a box. ``on_patches`` is called with the patches done, and all of
        the core, after each batch.
        Raises ``ConfigError`` for an image of another shape, ``ModelError`` if the network breaks its card.
        """
        patches = lattice.ranges(core)
        sums, counters = self.sums(image, patches=patches, box=core, lattice=lattice, on_patches=on_patches)
        return FixedPoint.of(lattice).to_uint8(sums, self.outside), counters

    def split(self, block: np.ndarray) -> dict[str, np.ndarray]:
        """The volumes of a block (channels, z, y, x) by name; those of one channel are (z, y, x)."""
        return split_channels(block, self.volumes)

    def sums(
        self,
        image: np.ndarray | Reader,
        *,
        patches: Ranges,
        box: BoundingBox,
        lattice: PatchLattice,
        on_patches: Progress = lambda done, total: None,
    ) -> tuple[np.ndarray, dict[str, float]]:
        """What these patches contribute to a box, whole numbers (channels, z, y, x): ``FixedPoint`` has their scale.

        ``image``, ``on_patches`` and errors as in ``predict``; the support is ``lattice.around(patches)``.
        """
        support, chosen = lattice.around(patches), list(cartesian(*patches))
        voxels = lattice.pad(_voxels(image, support, self.card.image_channels))
        with_image = [index for index in chosen if self._has_image(voxels, lattice.box(index), support)]
        done = len(chosen) - len(with_image)
        with forward_state(self.options):
            blender = Blender(box, lattice, self.stored_channels, self.device)
            on_device = self._upload(voxels)
            for batch in _batches(with_image, self.batch_size):
                boxes = ((..., *lattice.box(index).slices(support.start)) for index in batch)
                for index, values in zip(batch, self._values([on_device[each] for each in boxes]), strict=True):
                    blender.add(index, values if self._outside is None else values - self._outside)
                done += len(batch)
                on_patches(done, len(chosen))
            sums = self._download(blender.sums())
        return sums, {"patches": len(with_image), "skipped": len(chosen) - len(with_image)}

    def digest(self, patch_shape: Vec) -> str:
        """What this process computes: BLAKE2b-128 over the network's output for one full batch of fixed patches.

        Processes of equal digest run the same arithmetic on the shapes of a run, whatever their machines are called.
        It is taken before blending and rounding, of which nothing else depends on the machine: these are single
        products and quotients, which IEEE 754 rounds alike everywhere, and sums of whole numbers. The variants of an
        augmentation have one shape, so one forward pass is enough.
        """
        found = hashlib.blake2b(digest_size=16)
        augmentation = self._augmentation(patch_shape)
        with forward_state(self.options):
            patches = [self._upload(patch) for patch in self._probes(patch_shape)]
            for values in self._run(self._normalised(patches), augmentation):  # (values, z, y, x) float32
                found.update(values.cpu().numpy().data)
        return found.hexdigest()

    def _probes(self, patch_shape: Vec) -> np.ndarray:
        """A full batch of fixed patches, (batch_size, c, z, y, x) uint8."""
        channels = self.card.image_channels
        probes = probe_patches(self.batch_size * channels, patch_shape)
        return probes.reshape(self.batch_size, channels, *patch_shape)

    def _has_image(self, voxels: np.ndarray, box: BoundingBox, support: BoundingBox) -> bool:
        patch = voxels[(..., *box.slices(support.start))]
        return bool(patch.min() != patch.max())

    def _values(self, patches: Sequence[Tensor]) -> Iterator[Tensor]:
        """The heads of each patch, (channels, z, y, x) float32, over all variants."""
        shape = as_vec(patches[0].shape[-3:])
        augmentation = self._augmentation(shape)
        images = self._normalised(patches)  # (b, c, z, y, x)
        totals = [augmentation.empty(self.device) for _ in patches]
        for which, variant in enumerate(augmentation.variants):
            outputs = self._run(variant.turn(images), augmentation)
            for total, output in zip(totals, outputs, strict=False):  # outputs beyond ``totals`` are padding
                augmentation.add(total, output, which)
        return (augmentation.result(total) for total in totals)

    def _normalised(self, patches: Sequence[Tensor]) -> Tensor:
        """A full batch of network inputs, (batch_size, c, z, y, x) float32; missing patches are zeros."""
        shape = self.batch_size, self.card.image_channels, *patches[0].shape[-3:]
        batch = torch.zeros(shape, device=self.device)
        for slot, patch in zip(batch, patches, strict=False):
            slot.copy_(patch)
            slot.sub_(self.card.normalisation.offset).div_(self.card.normalisation.scale)
        return batch

    def _run(self, images: Tensor, augmentation: Augmentation) -> Iterator[Tensor]:
        """One forward pass: (b, c, z, y, x) -> b times (values of all heads, z, y, x) float32, after the activation.

        The activation is computed on each patch by itself, for the same reason as on a CPU the network is.
        """
        logits = self.network(images.contiguous(memory_format=self.memory_format))  # (b, c, z, y, x)
        expected = (len(images), self.channels, *images.shape[2:])
        if tuple(logits.shape) != expected:
            raise ModelError(
                f"the network turned {tuple(images.shape)} into {tuple(logits.shape)}; its card promises {expected}: "
                "correct the card's offsets, its other channels or its patch shape"
            )
        return (self._activated(patch, augmentation.values) for patch in logits)

    def _activated(self, logits: Tensor, used: Sequence[int]) -> Tensor:
        """The values of all heads, one after the other, of one patch; ``used``: how many of each head's are needed."""
        parts = []
        for head, count in zip(self.heads, used, strict=True):
            last = head.first + (count if head.offsets else head.channels)
            parts.append(head_values(head, logits[head.first : last].to(torch.float32).contiguous()))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _narrowed(self, module: torch.nn.Module) -> tuple[torch.nn.Module, int]:
        """The network and its channels: only those that are used, if it can leave out the others."""
        narrowed: Callable[[int], torch.nn.Module] | None = getattr(module, "narrowed", None)
        if narrowed is None:
            return module, self.card.channels
        used = channels_needed(variants(self.options.augmentation), self.heads)
        return narrowed(used), used

    def _placed(self, module: torch.nn.Module) -> torch.nn.Module:
        """The network as it runs: norms folded, on its device, in the memory format and precision of the options."""
        on_cpu = module.to("cpu").eval()  # where sums of weights have an order; a GPU's cumulative sums have none
        network = folded(on_cpu).requires_grad_(False).to(self.device)
        if self.options.precision == "bfloat16" and getattr(module, "whole_in_bfloat16", False):
            network = network.to(torch.bfloat16)
        for tensor in (*network.parameters(), *network.buffers()):
            if tensor.ndim == 5:  # kernels of 2D networks have four axes, for which this format does not exist
                tensor.data = tensor.data.contiguous(memory_format=self.memory_format)
        return torch.compile(network, dynamic=False) if self.options.compile else network  # type: ignore[return-value]

    def _upload(self, voxels: np.ndarray) -> Tensor:
        """Copy the whole support to the device once, (..., z, y, x); patches are cut and normalised there."""
        plain = voxels if voxels.dtype in (np.uint8, np.float32) else voxels.astype(np.float32)
        tensor = torch.from_numpy(np.require(plain, requirements=["C", "W"]))  # torch warns about read-only arrays
        if self.device.type == "cuda":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor

    def _download(self, block: Tensor) -> np.ndarray:
        if self.device.type == "cpu":
            return block.numpy()
        host = torch.empty(block.shape, dtype=block.dtype, pin_memory=True)
        host.copy_(block, non_blocking=True)
        torch.cuda.synchronize(self.device)
        return host.numpy()

    def _augmentation(self, patch_shape: Vec) -> Augmentation:
        if patch_shape not in self._augmentations:
            options = self.options
            self._augmentations[patch_shape] = Augmentation(
                options.augmentation, self.heads, patch_shape, options.augmentation_rule
            )
        return self._augmentations[patch_shape]


def measure(
    loaded: LoadedModel,
    options: PredictOptions,
    *,
    patch_shape: Triple | None = None,
    repeats: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Seconds per patch on this machine: the best of ``repeats`` batches of noise, after one to warm up."""
    predictor = Predictor(loaded, options)
    shape = as_vec(patch_shape or loaded.card.patch_shape, "patch_shape")
    bounds = BoundingBox.from_shape(shape * (predictor.batch_size, 1, 1))
    lattice = PatchLattice(bounds, shape, ZERO)
    channels = () if loaded.card.image_channels == 1 else (loaded.card.image_channels,)
    noise = np.random.default_rng(0).integers(0, 256, (*channels, *bounds.shape), dtype=np.uint8)
    seconds = []
    for _ in range(repeats + 1):
        began = clock()
        predictor.predict(noise, core=bounds, lattice=lattice)
        seconds.append(clock() - began)
    return min(seconds[1:]) / predictor.batch_size


def _voxels(image: np.ndarray | Reader, support: BoundingBox, channels: int) -> np.ndarray:
    """The voxels of the support, (z, y, x), or (c, z, y, x) if there are several channels."""
    voxels = np.asarray(image(support) if callable(image) else image)
    if voxels.ndim == 4 and len(voxels) == 1:
        voxels = voxels[0]
    expected = support.shape if channels == 1 else (channels, *support.shape)
    if voxels.shape != expected:
        raise ConfigError(
            f"the image has shape {voxels.shape}; the patches of this core need {tuple(expected)}, the voxels of "
            f"{support}: read lattice.support(core)"
        )
    return voxels


def _column(values: Sequence[float], device: torch.device) -> Tensor:
    """A value for each channel, (channels, 1, 1, 1)."""
    return torch.tensor(values, device=device)[:, None, None, None]


def _batches(indices: Sequence[Triple], size: int) -> Iterator[list[Triple]]:
    rest = iter(indices)
    while batch := list(islice(rest, size)):
        yield batch
