"""Boxes of a lattice over a run's region, each described by what the network says there and by what the image shows.

    said    what the network says: for each channel, the shares of four parts of its range, and its mean
    seen    what the raw image looks like: grey values, gradients at three scales, and 4 x 4 x 4 means of the patch

Every description is computed from the voxels of its box alone, box by box: memory is flat, and nothing depends on
chunks, workers, or other boxes. How unsure a network is in a box is the mean of 1 - |2 p - 1| over the probabilities p
that its heads say there: affinities, membranes, foreground, classes. Heads of other values are not used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from pipeline.errors import ConfigError
from pipeline.geometry import BoundingBox, Vec
from pipeline.runs.run import Run
from pipeline.stages import opened
from pipeline.stages.blend_heads import BlendHeads
from pipeline.volumes import open_volume
from pipeline.volumes.coarser import CoarserVolume, mask_on

Progress = Callable[[int, int], None]
"""Called with how many boxes are done, and how many there are."""
LEVELS = np.arange(256)
UNSURE = (255 - np.abs(2 * LEVELS - 255)) / 255
"""For each stored probability, 1 - |2 p - 1|."""
COARSE = 4
"""Parts of a patch along each axis whose means are taken."""
PATCH = 16
"""Parts along each axis of the patch that an autoencoder sees."""
SCALES = (1, 2, 4)
"""Distances in voxels over which gradients are taken."""
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
TISSUE = 0.5
"""Boxes with a smaller share of unmasked voxels are no candidates."""


def _entropy() -> np.ndarray:
    share = np.clip(LEVELS / 255, 1e-12, 1 - 1e-12)
    return np.asarray(-share * np.log2(share) - (1 - share) * np.log2(1 - share)).round(9)


ENTROPY = _entropy()
"""For each stored probability, its entropy in bits."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """Boxes with their descriptions, in C order of their places."""

    boxes: tuple[BoundingBox, ...]
    unsure: np.ndarray
    """(n,) float64, 0 to 1."""
    entropy: np.ndarray
    """(n,) float64, mean entropy of a probability in bits."""
    said: np.ndarray
    """(n, features) float64: what the network says."""
    seen: np.ndarray
    """(n, features) float64: what the image shows."""
    patches: np.ndarray | None = None
    """(n, 16, 16, 16) float64: means of the parts of a patch, if they were asked for."""


def lattice(region: BoundingBox, shape: Vec) -> Iterator[BoundingBox]:
    """The whole boxes of this shape in a region, beginning at its first voxel."""
    z, y, x = map(range, region.shape // shape)
    for place in product(z, y, x):
        yield BoundingBox.from_shape(shape, region.start + shape * place)


def boxes_of(run: Run, shape: Vec, labelled: Sequence[BoundingBox] = ()) -> list[BoundingBox]:
    """The candidates of a run: whole boxes in its region, of tissue, that overlap no labelled box."""
    mask = _mask(run)
    return [
        box
        for box in lattice(run.layout.roi, shape)
        if all(box.intersect(other).empty for other in labelled)
        and (mask is None or (mask.read(box) > 0).mean() >= TISSUE)
    ]


def _mask(run: Run) -> CoarserVolume | None:
    url = run.inputs.mask_url
    return None if url is None else mask_on(open_volume(url), run.inputs.spec)


@dataclass(frozen=True)
class Probabilities:
    """The stored heads of a run whose values are probabilities."""

    urls: tuple[str, ...]
    """Their volumes, in the order of the network's channels."""
    fingerprint: str
    """Of the stage that writes them."""

    @classmethod
    def of(cls, run: Run) -> Probabilities:
        """Those of a run of a network; ``ConfigError`` if it stores none."""
        stage = run.stage(BlendHeads.name)
        assert isinstance(stage, BlendHeads)
        stored = stage.predicted.heads
        heads = [head.name for head in stored if head.mapping in ("probability", "classes")]
        if not heads:
            raise ConfigError(
                f"{run.source} stores {', '.join(head.name for head in stored)}; how unsure a network is follows "
                "from probabilities: name such a head in inference.heads"
            )
        return cls(tuple(map(run.layout.volume_url, heads)), stage.fingerprint)

    def read(self, box: BoundingBox) -> np.ndarray:
        """All channels of a box, (c, z, y, x) uint8."""
        parts = [opened.source(url).read(box) for url in self.urls]
        return np.concatenate([part.reshape(-1, *box.shape) for part in parts])


def describe(
    run: Run,
    boxes: Sequence[BoundingBox],
    tell: Progress = lambda done, total: None,
    *,
    with_patches: bool = False,
) -> Candidates:
    """Read and describe every box of a run whose heads are finished; ``with_patches``: 33 KB of memory a box more."""
    probabilities = Probabilities.of(run)
    image, unsure, entropy, said, seen = opened.source(run.inputs.url), [], [], [], []
    patches = []
    for number, box in enumerate(boxes):
        counts = counts_of(probabilities.read(box))
        unsure.append(float(counts.sum(0) @ UNSURE / counts.sum()))
        entropy.append(float(counts.sum(0) @ ENTROPY / counts.sum()))
        said.append(what_is_said(counts))
        voxels = image.read(box)
        seen.append(what_is_seen(voxels))
        if with_patches:
            patches.append(coarse_means(grey_of(voxels), PATCH))
        tell(number + 1, len(boxes))
    facts = (np.array(unsure), np.array(entropy), np.array(said), np.array(seen))
    return Candidates(tuple(boxes), *facts, np.array(patches) if with_patches else None)


def counts_of(values: np.ndarray) -> np.ndarray:
    """How often each value occurs in each channel: (c, 256) int64, of (c, z, y, x) uint8."""
    return np.stack([np.bincount(channel.ravel(), minlength=256) for channel in values])


def what_is_said(counts: np.ndarray) -> np.ndarray:
    """For each channel the shares of four parts of the range, and the mean: (5 c,) from counts (c, 256)."""
    shares = counts.reshape(len(counts), 4, 64).sum(2) / counts.sum(1, keepdims=True)
    means = counts @ LEVELS / (255 * counts.sum(1))
    return np.concatenate([shares.ravel(), means])


def what_is_seen(image: np.ndarray) -> np.ndarray:
    """Grey values, gradients and coarse means of a patch: (80,) from (z, y, x), or (c, z, y, x) in colours."""
    grey = grey_of(image)
    values = [grey.mean(), grey.std(), *np.quantile(grey, QUANTILES)]
    gradients = [gradient(grey, axis, distance) for distance in SCALES for axis in range(3)]
    return np.array([*values, *gradients, *coarse_means(grey).ravel()]) / 255


def grey_of(image: np.ndarray) -> np.ndarray:
    """The grey values of a patch, float64 (z, y, x); of colours, their mean."""
    return image.astype(np.float64) if image.ndim == 3 else image.mean(0)


def gradient(grey: np.ndarray, axis: int, distance: int) -> float:
    """Mean absolute difference of voxels that are so far apart along an axis; 0 where the box is too thin."""
    if grey.shape[axis] <= distance:
        return 0.0
    ahead = np.take(grey, range(distance, grey.shape[axis]), axis)
    behind = np.take(grey, range(grey.shape[axis] - distance), axis)
    return float(np.abs(ahead - behind).mean())


def coarse_means(grey: np.ndarray, parts: int = COARSE) -> np.ndarray:
    """Means of 4 x 4 x 4 parts of a patch, as equal as its sides allow; a thin axis repeats its voxels."""
    for axis, side in enumerate(grey.shape):
        starts = np.arange(parts) * side // parts
        widths = np.maximum(np.diff([*starts, side]), 1)
        sums = np.add.reduceat(grey, np.minimum(starts, side - 1), axis)
        grey = sums / widths.reshape([-1 if a == axis else 1 for a in range(3)])
    return grey
