"""The voxels of a finished run at which its network is sure, and agrees with the labels of the run.

A voxel is sure if its label is not 0 and, for each of its three affinities a = 255 p that lead to a labelled voxel,

    |2 p - 1| >= sure                         the network is sure of this affinity
    (p > 1/2) == (the labels' affinity)       it says what a training on these labels would teach

The labels' affinities are those of the training itself: objects are eroded where they touch, so that walls are sure
where the network sees a wall. The mask at a voxel depends on the voxels within the halo alone, so it does not depend on
the chunks in which it is written.

Without affinities of nearest neighbours, the same two conditions hold for other heads:

    foreground, contours      the run makes objects, label 0 is background
    membranes                 the run makes neurons; what a training does not know of their labels is not kept
    classes                   the run makes a class map; p is the probability of the class on the map

By agreement, p is that of every copy of the test-time augmentation, and the first condition is another:

    max p - min p <= 1 - sure                 the copies differ by so little
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from pipeline.errors import ConfigError
from pipeline.geometry import BoundingBox, Vec
from pipeline.models.heads import AFFINITIES, EXTREMES, FOREGROUND
from pipeline.runs.run import Run
from pipeline.segmentation.far_contacts import NEAREST
from pipeline.stages import opened
from pipeline.training.callbacks import card_channels
from pipeline.training.target_classes import Classes
from pipeline.training.target_kinds import Affinities, Contours, Foreground, Membranes
from pipeline.training.target_specs import AnyTarget, Pair, TargetSpec
from pipeline.volumes import create_volume, open_volume
from pipeline.volumes.base import VolumeSpec

Progress = Callable[[int, int], None]
"""Called with how many chunks are done, and how many there are."""
SureBy = Literal["probability", "agreement"]
PROBABILITY: SureBy = "probability"
AGREEMENT: SureBy = "agreement"
READ: dict[SureBy, tuple[str, ...]] = {PROBABILITY: ("",), AGREEMENT: EXTREMES}
"""How it is decided what is sure -> the volumes of each head that this needs."""
TINY = 1e-6
"""Binary numbers come only so near to 1 - sure."""
Sizes = tuple[float, float, float]
"""The size of a voxel in nm along z, y, x."""


def taught(target: TargetSpec, labels: np.ndarray, resolution_nm: Sizes) -> Pair:
    """What a training on labels (z, y, x) teaches a target, and where it is known, both (c, z, y, x)."""
    inside = target.erode(labels)
    if inside is None:
        return target.target(labels, resolution_nm)
    return target.target_of_eroded(labels, inside, resolution_nm)


def certain(stored: np.ndarray, wanted: np.ndarray, sure: float, by: SureBy) -> np.ndarray:
    """Where probabilities are sure, and say what is wanted, bool (c, z, y, x).

    stored: (volumes, c, z, y, x) uint8; the mean, or the least and the largest value of the copies. wanted: 0 or 1,
    (c, z, y, x).
    """
    doubled = 2 * stored.astype(np.int16) - 255
    right = ((doubled > 0) == (wanted > 0.5)).all(0)
    is_sure = np.abs(doubled[0]) >= 255 * sure if by == PROBABILITY else agreeing(stored, sure)
    return np.asarray(right & is_sure)


def agreeing(stored: np.ndarray, sure: float) -> np.ndarray:
    """Where copies differ by little: bool (c, z, y, x), of their least and largest values, (2, c, z, y, x) uint8."""
    least, largest = stored.astype(np.int16)
    return np.asarray(largest - least <= 255 * (1 - sure) + TINY)


@dataclass(frozen=True)
class SureEdges:
    """When a voxel of neurons is sure, by the affinities of nearest neighbours."""

    sure: float
    """Least |2 p - 1| of a voxel's affinities p."""
    target: Affinities
    """The training's affinities; their erosion says what is a wall."""
    by: SureBy = PROBABILITY

    kind: ClassVar[str] = "neurons"
    """The kind of result that the run makes."""

    @property
    def targets(self) -> tuple[Affinities, ...]:
        """The targets whose heads are read."""
        return (self.target,)

    def read(self, run: Run, box: BoundingBox) -> np.ndarray:
        """The affinities of nearest neighbours of a run in a box, (volumes, 3, z, y, x) uint8."""
        if self.by == PROBABILITY:
            return run.affinities.read(box)[None]
        return stored_head(run, AFFINITIES, box, self.by)[:, : len(NEAREST)]

    def halo(self, resolution_nm: Sizes) -> Vec:
        """Voxels around a box on which its mask depends: an affinity's partner, and the erosion of both."""
        erosion = 1 + self.target.label_erosion
        return Vec(1, 1, 1) + Vec(1, erosion, erosion)

    def mask(self, affinities: np.ndarray, labels: np.ndarray, resolution_nm: Sizes) -> np.ndarray:
        """1 at sure voxels, 0 elsewhere, (z, y, x) uint8; it holds in the box without its halo.

        affinities: of the nearest neighbours, (volumes, 3, z, y, x) uint8. labels: (z, y, x); 0 is not known.
        """
        nearest = self.target.model_copy(update={"offsets": NEAREST})
        wanted, known = nearest.target(labels.astype(np.int64), resolution_nm)
        good = certain(affinities, wanted, self.sure, self.by) | (known == 0)
        return np.asarray(good.all(0) & (labels > 0), np.uint8)


@dataclass(frozen=True)
class SureVoxels:
    """When a voxel is sure, by heads of one probability each: foreground and contours, or membranes."""

    sure: float
    """Least |2 p - 1| of a voxel's probabilities p."""
    targets: tuple[Foreground | Contours | Membranes, ...]
    """The targets whose heads are read."""
    by: SureBy = PROBABILITY

    @property
    def kind(self) -> str:
        """The kind of result that the run makes."""
        return "objects" if any(target.what == FOREGROUND for target in self.targets) else "neurons"

    def read(self, run: Run, box: BoundingBox) -> np.ndarray:
        """The heads of these targets in a box, (volumes, targets, z, y, x) uint8."""
        return np.concatenate([stored_head(run, target.what, box, self.by) for target in self.targets], 1)

    def halo(self, resolution_nm: Sizes) -> Vec:
        """Voxels around a box on which its mask depends: the reach of each target."""
        reaches = [reach_of(target, resolution_nm) for target in self.targets]
        return Vec(*(max(along) for along in zip(*reaches, strict=True)))

    def mask(self, heads: np.ndarray, labels: np.ndarray, resolution_nm: Sizes) -> np.ndarray:
        """1 at sure voxels, 0 elsewhere, (z, y, x) uint8; it holds in the box without its halo.

        heads: of the targets, (volumes, targets, z, y, x) uint8. labels: (z, y, x); the targets say what 0 means.
        """
        pairs = [taught(target, labels.astype(np.int64), resolution_nm) for target in self.targets]
        wanted, known = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
        return np.asarray((certain(heads, wanted, self.sure, self.by) & (known > 0)).all(0), np.uint8)


@dataclass(frozen=True)
class SureClasses:
    """When a voxel of a class map is sure."""

    sure: float
    """Least 2 p - 1 of the probability p of a voxel's class; copies agree if every class has nearly one p in all."""
    target: Classes
    """The training's classes."""
    by: SureBy = PROBABILITY

    kind: ClassVar[str] = "classes"
    """The kind of result that the run makes."""

    @property
    def targets(self) -> tuple[Classes, ...]:
        """The targets whose heads are read."""
        return (self.target,)

    def read(self, run: Run, box: BoundingBox) -> np.ndarray:
        """The probabilities of a run in a box, (volumes, classes, z, y, x) uint8."""
        return stored_head(run, self.target.what, box, self.by)

    def halo(self, resolution_nm: Sizes) -> Vec:
        """Voxels around a box on which its mask depends: the erosion of classes that touch."""
        return Vec(0, self.target.label_erosion, self.target.label_erosion)

    def mask(self, probabilities: np.ndarray, labels: np.ndarray, resolution_nm: Sizes) -> np.ndarray:
        """1 at sure voxels, 0 elsewhere, (z, y, x) uint8; it holds in the box without its halo.

        probabilities: of each class, (volumes, classes, z, y, x) uint8. labels: the class map, (z, y, x).
        """
        wanted, known = taught(self.target, labels.astype(np.int64), resolution_nm)
        number = wanted.astype(np.int64)
        of_class = np.take_along_axis(probabilities, number[None], 1)
        if self.by == PROBABILITY:
            found = certain(of_class, np.ones_like(wanted), self.sure, self.by)[0]
        else:
            others = np.where(np.arange(self.target.count)[:, None, None, None] == number, 0, probabilities[1])
            found = agreeing(probabilities, self.sure).all(0) & (of_class[0, 0] > others.max(0))
        return np.asarray(found & (known[0] > 0), np.uint8)


AnyRule = SureEdges | SureVoxels | SureClasses


def rule_of(targets: Sequence[AnyTarget], sure: float, by: SureBy) -> AnyRule:
    """The rule for a training of these targets; ``ConfigError`` if there is none."""
    if card_channels(targets)[0]:
        return SureEdges(sure, next(target for target in targets if isinstance(target, Affinities)), by)
    if len(targets) == 1 and isinstance(targets[0], Classes):
        return SureClasses(sure, targets[0], by)
    if all(target.holds_objects for target in targets):
        of_objects = tuple(target for target in targets if isinstance(target, Foreground | Contours))
        names = [target.what for target in targets]
        if FOREGROUND in names and not any(target.zero_is_unknown for target in targets):
            return SureVoxels(sure, of_objects, by)
        membranes = tuple(target for target in targets if isinstance(target, Membranes))
        if membranes and all(target.zero_is_unknown or target in membranes for target in targets):
            return SureVoxels(sure, membranes, by)
    raise ConfigError(
        f"the training predicts {', '.join(target.what for target in targets)}; self-training keeps affinities of the "
        "nearest neighbours, a foreground, membranes, or classes that the network is sure of: train affinities, "
        "[-1, 0, 0], [0, -1, 0], [0, 0, -1] first, or foreground beside targets for which label 0 is background, or "
        "membranes beside targets for which it is unknown, or classes alone"
    )


def reach_of(target: Foreground | Contours | Membranes, resolution_nm: Sizes) -> Vec:
    """Voxels along each axis on which the target of a voxel may depend."""
    if isinstance(target, Membranes):
        reach = target.reach_nm or max(resolution_nm[-2:])
        z, y, x = (1 + math.floor(reach / size) for size in resolution_nm)
        return Vec(0 if target.in_plane else z, y, x)
    width = target.label_erosion + (target.dilation if isinstance(target, Contours) else 0)
    return Vec(1, width + 2, width + 2)


def stored_head(run: Run, name: str, box: BoundingBox, by: SureBy) -> np.ndarray:
    """The stored numbers of a head of a run in a box, (volumes, c, z, y, x) uint8."""
    volumes = [opened.source(run.layout.volume_url(name + each)).read(box) for each in READ[by]]
    return np.stack(volumes).reshape(len(volumes), -1, *box.shape)


def write_sure_mask(run: Run, url: str, rule: AnyRule, tell: Progress = lambda done, total: None) -> float:
    """Write the mask of a finished run as a volume, chunk by chunk; returns the share of sure voxels of its region.

    A call that was interrupted is repeated as a whole: the same bytes are written.
    """
    layout = run.layout
    spec = VolumeSpec(layout.bounds, layout.resolution_nm, np.dtype(np.uint8), storage_chunk=layout.storage_chunk_shape)
    target, labels = create_volume(url, spec), open_volume(run.layout.volume_url(run.kind.volume))
    halo, sure = rule.halo(layout.resolution_nm), 0
    grid = layout.grid((halo, halo))
    for number, chunk in enumerate(grid):
        box = chunk.read_box
        mask = rule.mask(rule.read(run, box), labels.read(box), layout.resolution_nm)
        core = mask[chunk.core.slices(box.start)]
        target.write(chunk.core, core)
        sure += int(core.sum())
        tell(number + 1, len(grid))
    return sure / layout.roi.voxels
