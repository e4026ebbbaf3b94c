"""Images with their labels and masks, opened and checked for a training."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pipeline.errors import ConfigError, VolumeError
from pipeline.evaluation.contingency import labelled_voxels
from pipeline.geometry import BoundingBox, Vec
from pipeline.synthetic.tissue import make_tissue
from pipeline.training.config import LabelledVolume, Synthetic, TrainConfig
from pipeline.training.made_stacks import make_stack
from pipeline.training.section_maps import MAPS
from pipeline.volumes import open_volume
from pipeline.volumes.base import Volume
from pipeline.volumes.coarser import CoarserVolume, mask_on, same_size
from pipeline.volumes.image_rules import check_image
from pipeline.volumes.presence import require_stored
from pipeline.volumes.resemblance import refuse_image_as_labels


@dataclass(frozen=True)
class Source:
    """An image with labels, and the box of it that is used."""

    image: Volume
    labels: Volume
    box: BoundingBox
    mask: CoarserVolume | None = None
    """0 where voxels are masked; no voxel is masked if it is None."""
    held: tuple[np.ndarray, np.ndarray, np.ndarray | None] | None = None
    """Image, labels and mask of the box, if they are in memory."""
    oversampling: float = 1.0
    """Patches are drawn from it as if it had so many times its voxels."""

    @property
    def resolution_nm(self) -> tuple[float, float, float]:
        """Size of a voxel (z, y, x)."""
        return self.image.spec.resolution_nm

    @property
    def isotropic(self) -> bool:
        """True if voxels are (nearly) cubes, so that axes may be swapped."""
        nm = self.resolution_nm
        return max(nm) < 1.2 * min(nm)

    @property
    def square(self) -> bool:
        """True if voxels are (nearly) squares in the plane, so that y and x may be swapped."""
        nm = self.resolution_nm[1:]
        return max(nm) < 1.2 * min(nm)

    def read_image(self, box: BoundingBox) -> np.ndarray:
        """Raw image (z, y, x) float32; (c, z, y, x) if it has several channels."""
        return self._part(0, self.image, box).astype(np.float32)

    def read_labels(self, box: BoundingBox) -> np.ndarray:
        """Labels (z, y, x) int64; what truth marks as not to be scored is 0, not known."""
        labels = self._part(1, self.labels, box)
        return np.where(labelled_voxels(labels), labels, 0).astype(np.int64)

    def read_mask(self, box: BoundingBox) -> np.ndarray | None:
        """1 at unmasked voxels, 0 elsewhere, (z, y, x) uint8; ``None`` without a mask volume."""
        return None if self.mask is None else (self._part(2, self.mask, box) > 0).astype(np.uint8)

    def read(self, box: BoundingBox) -> tuple[np.ndarray, np.ndarray]:
        """Image and labels."""
        return self.read_image(box), self.read_labels(box)

    def hold(self, box: BoundingBox) -> Source:
        """A part of this source, read into memory."""
        mask = None if self.mask is None else self._part(2, self.mask, box)
        return replace(self, box=box, held=(self._part(0, self.image, box), self._part(1, self.labels, box), mask))

    def _part(self, which: int, volume: Volume | CoarserVolume, box: BoundingBox) -> np.ndarray:
        held = None if self.held is None else self.held[which]
        return one_channel(volume.read(box)) if held is None else held[(..., *box.slices(self.box.start))]


def one_channel(array: np.ndarray) -> np.ndarray:
    """The array without an axis of channels that has one entry only: (z, y, x) of (1, z, y, x)."""
    return array[0] if array.ndim == 4 and len(array) == 1 else array


def open_source(config: LabelledVolume, channels: int = 1, network: str = "this network") -> Source:
    """Open an image, its labels and its mask; ``VolumeError`` if they do not fit each other, or the network.

    channels: of the image that the network takes; ``network`` is its name.
    """
    image, labels = open_volume(config.image), open_volume(config.labels)
    mask = None if config.mask is None else open_volume(config.mask)
    for volume in filter(None, (image, labels, mask)):
        require_stored(volume)
    check_image(image, channels, network)
    _check_labels(labels, image)
    bounds = image.spec.bounds
    box = BoundingBox(config.start or bounds.start, config.stop or bounds.stop)
    for volume in (image, labels):
        if not volume.spec.bounds.contains(box):
            raise VolumeError(f"{volume.url} covers {volume.spec.bounds}, not {box}: correct start and stop")
    known = None if mask is None else mask_on(mask, image.spec)
    return Source(image, labels, box, known, oversampling=config.oversampling)


def _check_labels(labels: Volume, image: Volume) -> None:
    """Refuse labels that are no integers of one channel, on voxels of the image's size."""
    if labels.spec.dtype.kind not in "iu":
        raise VolumeError(f"{labels.url} is {labels.spec.dtype}; labels must be integers: convert them")
    if labels.spec.channels not in (None, 1):
        raise VolumeError(
            f"{labels.url} has {labels.spec.channels} channels; labels have one: take one of them by adding #channel=0"
        )
    if not same_size(labels.spec.resolution_nm, image.spec.resolution_nm):
        raise VolumeError(
            f"{labels.url} has voxels of {list(labels.spec.resolution_nm)} nm, {image.url} of "
            f"{list(image.spec.resolution_nm)} nm; they must be equal: choose another mip (#mip=1)"
        )
    refuse_image_as_labels(labels)


def open_sources(config: TrainConfig, check: bool = True) -> tuple[list[Source], Source]:
    """The sources to train on, and the source to validate on."""
    channels, network = config.image_channels, f"{config.architecture} with these arguments"
    sources = [open_source(volume, channels, network) for volume in config.volumes]
    validation = None if config.validation is None else open_source(config.validation, channels, network)
    if config.synthetic is not None:
        made = made_sources(config.synthetic, channels, config.architecture)
        sources += made[:-1]
        validation = validation or made[-1]
    assert validation is not None
    if check:
        _check_patch(config, sources)
    return sources, validation


def made_sources(made: Synthetic, channels: int, architecture: str) -> list[Source]:
    """The made-up volumes to train on, and one more at the end; ``ConfigError`` if the network takes other images."""
    needed, what = (MAPS, "stacks of maps have") if made.what == "section_maps" else (1, "made-up tissue has")
    if channels != needed:
        raise ConfigError(
            f"in_channels is {channels} in the arguments of {architecture}; {what} {needed} (synthetic.what: "
            f"{made.what}): write in_channels: {needed} there, or name volumes instead"
        )
    make = stack_source if made.what == "section_maps" else synthetic_source
    return [make(made.shape, seed) for seed in range(made.seed, made.seed + made.volumes + 1)]


def synthetic_source(shape: Vec, seed: int) -> Source:
    """Made-up tissue in memory."""
    tissue = make_tissue(shape, seed=seed)
    return _in_memory(f"tissue-{'-'.join(map(str, shape))}-{seed}", tissue.image, tissue.labels, tissue.resolution_nm)


def stack_source(shape: Vec, seed: int) -> Source:
    """A made-up stack of maps in memory; its voxels count as 40 x 8 x 8 nm, whatever was drawn."""
    maps, labels = make_stack(shape, seed)
    return _in_memory(f"section-maps-{'-'.join(map(str, shape))}-{seed}", maps, labels, (40, 8, 8))


def _in_memory(name: str, image: np.ndarray, labels: np.ndarray, nm: tuple[int, int, int]) -> Source:
    """A source of arrays: image (z, y, x) or (c, z, y, x), labels (z, y, x)."""
    from pipeline.volumes import create_volume
    from pipeline.volumes.base import VolumeSpec

    box, volumes = BoundingBox.from_shape(labels.shape), []
    for kind, array in (("image", image), ("labels", labels)):
        channels = len(array) if array.ndim == 4 else None
        volume = create_volume(f"memory://{name}-{kind}", VolumeSpec(box, nm, array.dtype, channels), overwrite=True)
        volume.write(box, array)
        volumes.append(volume)
    return Source(volumes[0], volumes[1], box)


def _check_patch(config: TrainConfig, sources: list[Source]) -> None:
    for source in sources:
        if not config.patch_shape.at_most(source.box.shape):
            raise ConfigError(
                f"patch_shape is {list(config.patch_shape)}; {source.image.url} offers "
                f"{list(source.box.shape)} voxels: choose a smaller patch or a larger box"
            )
