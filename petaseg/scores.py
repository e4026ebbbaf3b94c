"""Scores of results against ground truth: neurons, masks, objects, classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from typing import TYPE_CHECKING, Literal, TypeAlias, overload

import numpy as np

from petaseg.checks import Array, checked_resolution
from pipeline.errors import ConfigError, VolumeError
from pipeline.volumes import Volume, VolumeSpec, open_volume

if TYPE_CHECKING:
    from pipeline.evaluation.compare_classes import ClassScores
    from pipeline.evaluation.compare_masks import MaskScores
    from pipeline.evaluation.compare_objects import ObjectScores
    from pipeline.evaluation.confidences import Confidences
    from pipeline.evaluation.scores import Scores

Labels: TypeAlias = "Array | str | PathLike[str]"


@overload
def evaluate(labels: Labels, truth: Labels, *, as_: Literal["neurons"] = ...) -> Scores: ...


@overload
def evaluate(
    labels: Labels,
    truth: Labels,
    *,
    as_: Literal["mask"],
    threshold: float | None = ...,
    cap_nm: float | None = ...,
    resolution: Sequence[float] | None = ...,
    sections: bool = ...,
    minus_one_is_background: bool = ...,
) -> MaskScores: ...


@overload
def evaluate(
    labels: Labels,
    truth: Labels,
    *,
    as_: Literal["objects"],
    confidence: str | PathLike[str] | Mapping[int, float] | None = ...,
    size_limits: tuple[int, int] | None = ...,
    sections: bool = ...,
    minus_one_is_background: bool = ...,
) -> ObjectScores: ...


@overload
def evaluate(
    labels: Labels, truth: Labels, *, as_: Literal["classes"], minus_one_is_background: bool = ...
) -> ClassScores: ...


def evaluate(
    labels: Labels,
    truth: Labels,
    *,
    as_: str = "neurons",
    threshold: float | None = None,
    cap_nm: float | None = None,
    resolution: Sequence[float] | None = None,
    confidence: str | PathLike[str] | Mapping[int, float] | None = None,
    size_limits: tuple[int, int] | None = None,
    sections: bool = False,
    minus_one_is_background: bool = False,
) -> Scores | MaskScores | ObjectScores | ClassScores:
    """Scores of neurons (VOI, adapted Rand error), of a mask (IoU, Dice, average precision, distances), of objects
    (average precision, precision, recall, F1, by size) or of a map of classes (IoU of each, mean IoU, accuracy).

    Args:
        labels: the result: integers (z, y, x), 0 = none, or for a mask also probabilities, uint8 or floating point; an
            array, an open volume or the path of one.
        truth: the ground truth, integers likewise; -1 to -3 and what they are without a sign are not scored, nor, for
            neurons, is 0; for a mask, for objects and for classes 0 is the background.
        as_: ``neurons``, ``mask``, ``objects`` or ``classes``, which are numbers from 0 to 255.
        threshold: mask: the foreground are probabilities of at least this; 0.5 if left out.
        cap_nm: mask: longer distances count as this; without it, they are measured up to any length.
        resolution: mask: nanometres per voxel, z, y, x, of two arrays; their distances are not measured without it.
        confidence: objects: how sure each predicted object is, by id, or the path of a table; sizes if left out.
        size_limits: objects: voxels of the largest small and medium object; (5000, 15000) if left out.
        sections: mask, objects: also score every section as a picture of its own.
        minus_one_is_background: not neurons: -1 and the largest uint32 and uint64 are background, and scored.

    Two volumes are compared block by block, in memory that does not grow with them, over the voxels that both have; an
    array must cover the same voxels as the other argument.
    Raises ``VolumeError`` for volumes of another type or shape, or without a voxel to score; ``ConfigError`` for a
    setting that does not fit ``as_``.
    """
    from pipeline.evaluation.kinds import MASK, NEURONS, Settings, compare_as, pair_of

    table = _table(confidence)
    settings = Settings(threshold, cap_nm, table, size_limits, sections, minus_one_is_background)
    settings.require_fit(as_)
    _require_resolution_of_a_mask(as_, resolution)
    predicted, true = _opened(labels), _opened(truth)
    if as_ == NEURONS:
        return _neurons(predicted, true)
    sized = resolution is not None or isinstance(predicted, Volume) or isinstance(true, Volume)
    if cap_nm is not None and not sized:
        raise ConfigError(f"cap_nm is {cap_nm:g}, and arrays do not say how large voxels are: resolution=(40, 4, 4)")
    volumes = _as_volumes(true, predicted, resolution)
    return compare_as(as_, pair_of(as_, *volumes, None, settings), settings, distances=as_ == MASK and sized)


def _neurons(predicted: Array, true: Array) -> Scores:
    from pipeline.evaluation.compare import compare_volumes
    from pipeline.evaluation.contingency import Contingency
    from pipeline.evaluation.scores import score

    if isinstance(predicted, Volume) and isinstance(true, Volume):
        return compare_volumes(true.url, predicted.url).scores
    return score(Contingency.from_labels(np.asarray(true), np.asarray(predicted)))


def _table(confidence: str | PathLike[str] | Mapping[int, float] | None) -> str | Confidences | None:
    """The confidences of objects as the settings take them."""
    from pipeline.evaluation.confidences import Confidences

    if isinstance(confidence, Mapping):
        return Confidences("confidence", confidence)
    return None if confidence is None else fspath(confidence)


def _require_resolution_of_a_mask(as_: str, resolution: Sequence[float] | None) -> None:
    if resolution is not None and as_ != "mask":
        raise ConfigError(f"resolution is for the distances of a mask, and this is scored as {as_}: leave it out")


def _as_volumes(true: Array, predicted: Array, resolution: Sequence[float] | None) -> tuple[Volume, Volume]:
    """Both arguments as volumes; an array takes the place and the voxel size of the volume that it is compared with."""
    volumes = [each for each in (true, predicted) if isinstance(each, Volume)]
    if volumes and resolution is not None:
        raise ConfigError(f"resolution is given, and {volumes[0].url} has one of its own: leave it out")
    first = _as_volume("truth", true, volumes[0].spec if volumes else None, resolution)
    return first, _as_volume("labels", predicted, first.spec, None)


def _as_volume(name: str, array: Array, like: VolumeSpec | None, resolution: Sequence[float] | None) -> Volume:
    from pipeline.geometry import BoundingBox
    from pipeline.volumes.memory import MemoryVolume
    from pipeline.volumes.zeros_and_ones import without_bool

    if isinstance(array, Volume):
        return array
    voxels = np.asarray(array)
    if voxels.ndim != 3 or not voxels.size or (like is not None and voxels.shape != tuple(like.bounds.shape)):
        wanted = "three axes, (z, y, x), and a voxel" if like is None else f"the shape {tuple(like.bounds.shape)}"
        raise VolumeError(f"{name} has shape {voxels.shape}; it must have {wanted}: read the same box from both")
    z, y, x = voxels.shape
    bounds = BoundingBox.from_shape((z, y, x)) if like is None else like.bounds
    sides = like.resolution_nm if like is not None else checked_resolution(resolution or (1, 1, 1))
    return without_bool(MemoryVolume(name, VolumeSpec(bounds, sides, voxels.dtype), voxels, writable=False))


def _opened(labels: Labels) -> Array:
    return open_volume(fspath(labels)) if isinstance(labels, str | PathLike) else labels
