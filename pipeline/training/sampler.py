"""Random patches of labelled volumes, read from the volumes as they are needed.

Only the boxes of patches are read, so volumes may be larger than memory. Where reading small boxes is slow (object
stores, large storage chunks), ``sampling: {chunk_shape: ...}`` reads a larger box once, for the next
``patches_per_chunk`` patches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.errors import ConfigError, VolumeError
from pipeline.evaluation.contingency import labelled_voxels
from pipeline.geometry import BoundingBox, Triple, Vec, as_vec
from pipeline.synthetic.tissue import make_tissue
from pipeline.training.augmentation import augment, draw_factor, nearest, resample
from pipeline.training.config import LabelledVolume, TrainConfig
from pipeline.training.sampling import PatchRules, slabs_of
from pipeline.training.target_specs import AnyTarget, Pair, make_targets
from pipeline.volumes import open_volume
from pipeline.volumes.base import Volume
from pipeline.volumes.coarser import same_size

DRAWS = 1000
WHITE = np.float32(255)


@dataclass(frozen=True)
class Source:
    """An image with labels, and the box of it that is used."""

    image: Volume
    labels: Volume
    box: BoundingBox
    mask: Volume | None = None
    """0 where voxels are masked; no voxel is masked if it is None."""
    held: tuple[np.ndarray, np.ndarray, np.ndarray | None] | None = None
    """Image, labels and mask of the box, if they are in memory."""

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
        """Raw image (z, y, x) float32."""
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

    def _part(self, which: int, volume: Volume, box: BoundingBox) -> np.ndarray:
        held = None if self.held is None else self.held[which]
        return one_channel(volume.read(box)) if held is None else held[box.slices(self.box.start)]


def one_channel(array: np.ndarray) -> np.ndarray:
    """(z, y, x) of an array (z, y, x) or (1, z, y, x)."""
    return array[0] if array.ndim == 4 else array


def open_source(config: LabelledVolume) -> Source:
    """Open an image and its labels; ``VolumeError`` if they are not uint8 and integers of the same voxels."""
    image, labels = open_volume(config.image), open_volume(config.labels)
    if image.spec.dtype != np.uint8:
        raise VolumeError(f"{image.url} is {image.spec.dtype}; images to train on must be uint8: convert it")
    if labels.spec.dtype.kind not in "iu":
        raise VolumeError(f"{labels.url} is {labels.spec.dtype}; labels must be integers: convert them")
    for volume, what in ((image, "images to train on"), (labels, "labels")):
        if volume.spec.channels not in (None, 1):
            raise VolumeError(f"{volume.url} has {volume.spec.channels} channels; {what} have one: take one of them")
    bounds = image.spec.bounds
    box = BoundingBox(config.start or bounds.start, config.stop or bounds.stop)
    mask = None if config.mask is None else open_volume(config.mask)
    for volume in (image, labels, *([] if mask is None else [mask])):
        if not volume.spec.bounds.contains(box):
            raise VolumeError(f"{volume.url} covers {volume.spec.bounds}, not {box}: correct start and stop")
        if not same_size(volume.spec.resolution_nm, image.spec.resolution_nm):
            raise VolumeError(
                f"{volume.url} has voxels of {list(volume.spec.resolution_nm)} nm, {image.url} of "
                f"{list(image.spec.resolution_nm)} nm; they must be equal: choose another mip (#mip=1)"
            )
    return Source(image, labels, box, mask)


def open_sources(config: TrainConfig, check: bool = True) -> tuple[list[Source], Source]:
    """The sources to train on, and the source to validate on."""
    sources = [open_source(volume) for volume in config.volumes]
    validation = None if config.validation is None else open_source(config.validation)
    if config.synthetic is not None:
        made = config.synthetic
        seeds = range(made.seed, made.seed + made.volumes + 1)
        tissues = [synthetic_source(made.shape, seed) for seed in seeds]
        sources += tissues[:-1]
        validation = validation or tissues[-1]
    assert validation is not None
    if check:
        _check_patch(config, sources)
    return sources, validation


def synthetic_source(shape: Vec, seed: int) -> Source:
    """Made-up tissue in memory."""
    from pipeline.volumes import create_volume
    from pipeline.volumes.base import VolumeSpec

    tissue = make_tissue(shape, seed=seed)
    box = BoundingBox.from_shape(shape)
    volumes = []
    for kind, array in (("image", tissue.image), ("labels", tissue.labels)):
        url = f"memory://tissue-{'-'.join(map(str, shape))}-{seed}-{kind}"
        volume = create_volume(url, VolumeSpec(box, tissue.resolution_nm, array.dtype), overwrite=True)
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


@dataclass(frozen=True)
class Moved:
    """The arrays that move with the image when a patch is changed: labels, eroded labels, and the mask."""

    labels: np.ndarray
    eroded: tuple[np.ndarray | None, ...]
    """For each target, the result of its ``erode``."""
    mask: np.ndarray | None = None
    """0 at masked voxels; no voxel is masked if left out."""

    @classmethod
    def whole(cls, labels: np.ndarray, mask: np.ndarray | None, specs: Sequence[AnyTarget]) -> Moved:
        """The arrays of labels as they were read; masked voxels get label 0, not known."""
        eroded = tuple(spec.erode(labels) for spec in specs)
        moved = cls(labels, eroded, mask)
        return moved if mask is None else moved.after(moved.arrays)

    @property
    def arrays(self) -> list[np.ndarray]:
        """All arrays that are not None."""
        mask = np.ones(self.labels.shape, np.uint8) if self.mask is None else self.mask
        return [self.labels, *(array for array in self.eroded if array is not None), mask]

    def after(self, arrays: list[np.ndarray]) -> Moved:
        """The same for arrays that were moved; voxels from outside the patch get label 0 and are masked."""
        labels, *rest, mask = arrays
        found = iter(rest)
        return Moved(labels * mask, tuple(None if old is None else next(found) * mask for old in self.eroded), mask)

    def targets(self, specs: Sequence[AnyTarget], resolution_nm: Sequence[float]) -> Pair:
        """Targets and weights."""
        targets, weights = make_targets(specs, self.labels, resolution_nm, self.eroded)
        return targets, weights if self.mask is None else weights * self.mask


@dataclass(frozen=True)
class Patch:
    """The arrays that were read, in the shape of a patch with its margin."""

    raw: np.ndarray
    labels: np.ndarray
    mask: np.ndarray | None
    source: Source


class Sampler:
    """Draws training patches; patch number n of a seed is always the same."""

    def __init__(self, sources: list[Source], config: TrainConfig) -> None:
        self.sources = sources
        self.config = config
        self.targets = config.channels
        self.rules = PatchRules(config.sampling, self.targets)
        self._parts = parts_of(sources, config)
        self._chunk: tuple[tuple[int, int], Source] | None = None

    def draw(self, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Image (1, z, y, x) float32, normalised; targets and weights (c, z, y, x) float32."""
        image, moved, source = self.changed(number)
        targets, weights = moved.targets(self.targets, source.resolution_nm)
        n = self.config.normalisation
        return ((image * WHITE - n.offset) / n.scale)[None].astype(np.float32), targets, weights

    def changed(self, number: int) -> tuple[np.ndarray, Moved, Source]:
        """A patch after all changes: image (z, y, x) from 0 to 1, the arrays that moved with it, and its source."""
        rng = np.random.default_rng([self.config.seed, number])
        sources = self._sources_of(number)
        patch = self._patch(sources, rng)
        change = self.config.augmentation
        if not patch.source.square:
            change = change.model_copy(update={"transpose": False})
        if change.copy_paste and rng.random() < change.copy_paste:
            patch = pasted(patch, self._patch(sources, rng), rng)
        moved = Moved.whole(patch.labels, patch.mask, self.targets)
        image, arrays = augment(patch.raw / WHITE, moved.arrays, change, patch.source.isotropic, rng)
        image, *arrays = (centre(array, self.config.patch_shape) for array in (image, *arrays))
        if change.mixup and rng.random() < change.mixup:
            other = centre(self._patch(sources, rng).raw, self.config.patch_shape) / WHITE
            image = image + np.float32(rng.uniform(0.1, 0.3)) * (other - image)
        return image, moved.after(arrays), patch.source

    def _patch(self, sources: list[Source], rng: np.random.Generator) -> Patch:
        shares = None if len(sources) == 1 and sources[0].held else shares_of(sources)
        for _ in range(DRAWS):
            source = sources[rng.choice(len(sources), p=shares)]
            box, shape = self._box(source, rng)
            labels, mask = source.read_labels(box), source.read_mask(box)
            if not self.rules.refuse(labels, mask, rng):
                raw, labels = resample(source.read_image(box), labels, shape)
                return Patch(raw, labels, None if mask is None else nearest(mask, shape), source)
        raise VolumeError(
            f"{DRAWS} patches in a row had {self.rules}; give a box with more labels, or ask for less in sampling"
        )

    def _box(self, source: Source, rng: np.random.Generator) -> tuple[BoundingBox, Vec]:
        """A random box, larger or smaller than patch and margin by the factor of the rescaling; and their shape."""
        change, patch = self.config.augmentation, self.config.patch_shape
        factor = draw_factor(change, rng)
        factors = (1.0 if change.rescale_in_plane else factor, factor, factor)
        margins = ((source.box.shape - patch) // 2).minimum(change.margin) * (0, 1, 1)
        whole = patch + margins * 2
        shape = Vec(*(round(w * f) for w, f in zip(whole, factors, strict=True))).minimum(source.box.shape)
        return _random_box(source.box, shape, rng), whole

    def _sources_of(self, number: int) -> list[Source]:
        """The sources of the process that draws patch ``number``; or the part in memory that it is drawn from."""
        process = number // self.config.batch_size % len(self._parts)
        if self.config.sampling.chunk_shape is None:
            return self._parts[process]
        which = number // self.config.sampling.patches_per_chunk, process
        if self._chunk is None or self._chunk[0] != which:
            self._chunk = None  # free it before the next one is read
            self._chunk = which, self._held(which, self.config.sampling.chunk_shape)
        return [self._chunk[1]]

    def _held(self, which: tuple[int, int], shape: Vec) -> Source:
        """A random part of a source in memory, with enough labels for patches to be drawn from it."""
        number, process = which
        rng = np.random.default_rng([self.config.seed, number, 1, *([process] if process else [])])
        sources = self._parts[process]
        for _ in range(DRAWS):
            source = sources[rng.choice(len(sources), p=shares_of(sources))]
            box = _random_box(source.box, shape.minimum(source.box.shape), rng)
            if not self.rules.lacking(source.read_labels(box), source.read_mask(box)):
                return source.hold(box)
        raise VolumeError(f"{DRAWS} chunks in a row had {self.rules}; give a larger chunk_shape, or ask for less")


def parts_of(sources: list[Source], config: TrainConfig) -> list[list[Source]]:
    """For each process its slabs of all sources, with ``sampling.apart``; else the sources, once for all processes."""
    if not config.sampling.apart:
        return [sources]
    slabs = [slabs_of(s.box, config.processes, config.patch_shape, s.image.url) for s in sources]
    return [
        [replace(source, box=box) for source, box in zip(sources, boxes, strict=True)]
        for boxes in zip(*slabs, strict=True)
    ]


def shares_of(sources: Sequence[Source]) -> np.ndarray:
    """The share of the voxels of all sources that each has."""
    voxels = np.array([source.box.voxels for source in sources], float)
    return np.asarray(voxels / voxels.sum())


def pasted(patch: Patch, other: Patch, rng: np.random.Generator) -> Patch:
    """The patch with one object of another at the same place, under a new label; unchanged if it has none."""
    ids = np.unique(other.labels[other.labels > 0])
    if not len(ids) or patch.raw.shape != other.raw.shape:
        return patch
    there = other.labels == rng.choice(ids)
    labels = np.where(there, patch.labels.max() + 1, patch.labels)
    return replace(patch, raw=np.where(there, other.raw, patch.raw), labels=labels)


def centre(array: np.ndarray, shape: Triple) -> np.ndarray:
    """The middle of an array (z, y, x), of this shape."""
    start = (as_vec(array.shape, "array shape") - shape) // 2
    return array[BoundingBox.from_shape(shape, start).slices()]


def _random_box(part: BoundingBox, shape: Vec, rng: np.random.Generator) -> BoundingBox:
    """A box of ``shape`` anywhere in ``part``."""
    shift = Vec(*(int(rng.integers(room + 1)) for room in part.shape - shape))
    return BoundingBox.from_shape(shape, part.start + shift)
