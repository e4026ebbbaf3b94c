"""Random patches of labelled volumes, read from the volumes as they are needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.errors import ConfigError, VolumeError
from pipeline.geometry import BoundingBox, Vec
from pipeline.synthetic.tissue import make_tissue
from pipeline.training.augmentation import augment, draw_factor, resample
from pipeline.training.config import LabelledVolume, TrainConfig
from pipeline.training.specs import AnyTarget, Pair, make_targets
from pipeline.volumes import open_volume
from pipeline.volumes.base import Volume

KNOWN_SHARE = 0.3
"""A patch with fewer known voxels than this is drawn again."""
DRAWS = 100


@dataclass(frozen=True)
class Source:
    """An image with labels, and the box of it that is used."""

    image: Volume
    labels: Volume
    box: BoundingBox

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

    def read(self, box: BoundingBox) -> tuple[np.ndarray, np.ndarray]:
        """Raw image as float32, and labels as int64; both (z, y, x)."""
        raw = self.image.read(box).astype(np.float32)
        return raw, self.labels.read(box).astype(np.int64)


def open_source(config: LabelledVolume) -> Source:
    """Open an image and its labels; ``VolumeError`` if they are not uint8 and integers of the same voxels."""
    image, labels = open_volume(config.image), open_volume(config.labels)
    if image.spec.dtype != np.uint8:
        raise VolumeError(f"{image.url} is {image.spec.dtype}; images to train on must be uint8: convert it")
    if labels.spec.dtype.kind not in "iu":
        raise VolumeError(f"{labels.url} is {labels.spec.dtype}; labels must be integers: convert them")
    bounds = image.spec.bounds
    box = BoundingBox(config.start or bounds.start, config.stop or bounds.stop)
    for volume in (image, labels):
        if not volume.spec.bounds.contains(box):
            raise VolumeError(f"{volume.url} covers {volume.spec.bounds}, not {box}: correct start and stop")
    return Source(image, labels, box)


def open_sources(config: TrainConfig, check: bool = True) -> tuple[list[Source], Source]:
    """Everything to train on, and what to validate on."""
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
        if any(p > n for p, n in zip(config.patch_shape, source.box.shape, strict=True)):
            raise ConfigError(
                f"patch_shape is {list(config.patch_shape)}; {source.image.url} offers "
                f"{list(source.box.shape)} voxels: choose a smaller patch or a larger box"
            )


@dataclass(frozen=True)
class Moved:
    """What moves with the image when a patch is changed: labels, labels eroded before, and where anything is asked."""

    labels: np.ndarray
    eroded: tuple[np.ndarray | None, ...]
    """For each target, what its ``erode`` gave."""
    asked: np.ndarray | None = None
    """0 where nothing is asked; everywhere asked if left out."""

    @property
    def arrays(self) -> list[np.ndarray]:
        """All arrays that there are."""
        asked = np.ones(self.labels.shape, np.uint8) if self.asked is None else self.asked
        return [self.labels, *(array for array in self.eroded if array is not None), asked]

    def after(self, arrays: list[np.ndarray]) -> Moved:
        """The same, of arrays that were moved; a voxel that came from nowhere has label 0 and is not asked."""
        labels, *rest, asked = arrays
        found = iter(rest)
        return Moved(labels * asked, tuple(None if old is None else next(found) * asked for old in self.eroded), asked)

    def targets(self, specs: Sequence[AnyTarget], resolution_nm: Sequence[float]) -> Pair:
        """Targets and weights."""
        targets, weights = make_targets(specs, self.labels, resolution_nm, self.eroded)
        return targets, weights if self.asked is None else weights * self.asked


class Sampler:
    """Draws training patches; patch number n of a seed is always the same."""

    def __init__(self, sources: list[Source], config: TrainConfig) -> None:
        self.sources = sources
        self.config = config
        self.targets = config.channels
        voxels = np.array([source.box.voxels for source in sources], float)
        self._shares = voxels / voxels.sum()

    def draw(self, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Image (1, z, y, x) float32, normalised; targets and weights (c, z, y, x) float32."""
        rng = np.random.default_rng([self.config.seed, number])
        raw, labels, source = self._patch(rng)
        change = self.config.augmentation
        if not source.square:
            change = change.model_copy(update={"transpose": False})
        top = np.float32(255)
        moved = Moved(labels, tuple(target.erode(labels) for target in self.targets))
        image, arrays = augment(raw / top, moved.arrays, change, source.isotropic, rng)
        targets, weights = moved.after(arrays).targets(self.targets, source.resolution_nm)
        n = self.config.normalisation
        return ((image * top - n.offset) / n.scale)[None].astype(np.float32), targets, weights

    def _patch(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, Source]:
        for _ in range(DRAWS):
            source = self.sources[rng.choice(len(self.sources), p=self._shares)]
            raw, labels = source.read(self._box(source, rng))
            if (labels > 0).mean() >= KNOWN_SHARE:
                return *resample(raw, labels, self.config.patch_shape), source
        raise VolumeError(
            f"{DRAWS} patches in a row had less than {KNOWN_SHARE:.0%} labelled voxels; give a box with more labels"
        )

    def _box(self, source: Source, rng: np.random.Generator) -> BoundingBox:
        """A random box of the source, larger or smaller than the patch by the factor of the rescaling."""
        factor = draw_factor(self.config.augmentation, rng)
        shape = [min(round(p * factor), n) for p, n in zip(self.config.patch_shape, source.box.shape, strict=True)]
        room = [n - s for n, s in zip(source.box.shape, shape, strict=True)]
        start = [a + int(rng.integers(r + 1)) for a, r in zip(source.box.start, room, strict=True)]
        return BoundingBox.from_shape(tuple(shape), tuple(start))  # type: ignore[arg-type]
