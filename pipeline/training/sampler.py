"""Random patches of labelled volumes, read from the volumes as they are needed.

Only the boxes of patches are read, so volumes may be larger than memory. Where reading small boxes is slow (object
stores, large storage chunks), ``sampling: {chunk_shape: ...}`` reads a larger box once, for the next
``patches_per_chunk`` patches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.errors import VolumeError
from pipeline.geometry import BoundingBox, Triple, Vec, as_vec
from pipeline.training.augmentation import augment, draw_factor, nearest, resample
from pipeline.training.config import TrainConfig
from pipeline.training.sampling import PatchRules, slabs_of
from pipeline.training.sources import Source
from pipeline.training.target_specs import AnyTarget, Pair, make_targets

DRAWS = 1000
WHITE = np.float32(255)


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
        """The arrays of labels as they were read."""
        return cls(labels, tuple(spec.erode(labels) for spec in specs), mask)

    @property
    def arrays(self) -> list[np.ndarray]:
        """All arrays that are not None."""
        mask = np.ones(self.labels.shape, np.uint8) if self.mask is None else self.mask
        return [self.labels, *(array for array in self.eroded if array is not None), mask]

    def after(self, arrays: list[np.ndarray]) -> Moved:
        """The same for arrays that were moved; voxels from outside the patch have label 0 and are masked."""
        labels, *rest, mask = arrays
        found = iter(rest)
        return Moved(labels, tuple(None if old is None else next(found) for old in self.eroded), mask)

    def targets(self, specs: Sequence[AnyTarget], resolution_nm: Sequence[float]) -> Pair:
        """Targets and weights; masked voxels have weight 0, and label 0 but for targets that look around."""
        if self.mask is None:
            return make_targets(specs, self.labels, resolution_nm, self.eroded)
        masks = [1 if spec.looks_around else self.mask for spec in specs]
        eroded = [None if old is None else old * mask for old, mask in zip(self.eroded, masks, strict=True)]
        made = [
            spec.make(self.labels * mask, resolution_nm, inside)
            for spec, mask, inside in zip(specs, masks, eroded, strict=True)
        ]
        targets, weights = (np.concatenate(parts) for parts in zip(*made, strict=True))
        return targets, weights * self.mask


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
        """Image (c, z, y, x) float32, normalised, c = 1 for grey; targets and weights (c, z, y, x) float32."""
        image, moved, source = self.changed(number)
        targets, weights = moved.targets(self.targets, source.resolution_nm)
        n = self.config.normalisation
        return with_channels((image * WHITE - n.offset) / n.scale).astype(np.float32), targets, weights

    def changed(self, number: int) -> tuple[np.ndarray, Moved, Source]:
        """A patch after all changes: image from 0 to 1, the arrays that moved with it, and its source.

        The image is (z, y, x), or (c, z, y, x) if it has several channels.
        """
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
    """The share of the voxels of all sources that each has, oversampled ones with more."""
    voxels = np.array([source.box.voxels * source.oversampling for source in sources], float)
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
    """The middle of an array (..., z, y, x), of this shape."""
    start = (as_vec(array.shape[-3:], "array shape") - shape) // 2
    return array[(..., *BoundingBox.from_shape(shape, start).slices())]


def with_channels(image: np.ndarray) -> np.ndarray:
    """An image (z, y, x) as (1, z, y, x); one that has channels as it is."""
    return image[None] if image.ndim == 3 else image


def _random_box(part: BoundingBox, shape: Vec, rng: np.random.Generator) -> BoundingBox:
    """A box of ``shape`` anywhere in ``part``."""
    shift = Vec(*(int(rng.integers(room + 1)) for room in part.shape - shape))
    return BoundingBox.from_shape(shape, part.start + shift)
