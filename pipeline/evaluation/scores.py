"""Scores of a segmentation, computed from a contingency table alone.

- Variation of information in bits (Meila 2007). ``voi_split`` is H(predicted | truth): the uncertainty about the
  segment when the true object is known, hence 0 unless objects are split. ``voi_merge`` is H(truth | predicted): 0
  unless segments hold several objects.
- Adapted Rand error (Arganda-Carreras et al. 2015, Front. Neuroanat. 9:142): 1 - F of precision and recall over pairs
  of distinct voxels. Precision: of the pairs within one segment, the part within one object (low after false
  merges). Recall: of the pairs within one object, the part within one segment (low after false splits).
- Neurons found: true objects of some size whose best segment overlaps them by more than half (IoU > 0.5). At most one
  segment can do so for an object, and a segment can do so for one object only.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from pipeline.errors import VolumeError
from pipeline.evaluation.contingency import Contingency

MIN_NEURON_VOXELS = 1000
FOUND_IOU = 0.5


@dataclass(frozen=True)
class Scores:
    """How well a segmentation agrees with ground truth."""

    voi_split: float
    """Bits; H(predicted | truth); 0 is best"""
    voi_merge: float
    """Bits; H(truth | predicted); 0 is best"""
    adapted_rand_error: float
    """0 is best, 1 worst"""
    precision: float
    """Of the adapted Rand score; low after false merges"""
    recall: float
    """Of the adapted Rand score; low after false splits"""
    neurons: int
    """True objects of at least the smallest size that is scored"""
    neurons_found: int
    """Neurons with a segment of IoU > 0.5"""
    segments: int
    """Predicted segments that touch labelled truth, without the unassigned segment"""
    voxels: int
    """Voxels scored"""

    @property
    def voi(self) -> float:
        """Total variation of information in bits."""
        return self.voi_split + self.voi_merge

    def __repr__(self) -> str:
        return (
            f"VOI {self.voi:.3f} bits (split {self.voi_split:.3f}, merge {self.voi_merge:.3f}), adapted Rand error "
            f"{self.adapted_rand_error:.3f}, {self.neurons_found} of {self.neurons} neurons found, "
            f"{self.segments:,} segments, {self.voxels:,} voxels"
        )

    def to_dict(self) -> dict[str, float]:
        """All scores by name, ``voi`` included, ready for JSON."""
        return {"voi": self.voi, **asdict(self)}


@dataclass(frozen=True)
class _Marginals:
    """Sizes of objects and segments, and for every pair of the table the index of both."""

    objects: np.ndarray
    segments: np.ndarray
    of_object: np.ndarray
    of_segment: np.ndarray


def score(table: Contingency, *, min_neuron_voxels: int = MIN_NEURON_VOXELS) -> Scores:
    """Compute all scores.

    Args:
        table: counts of the scored voxels.
        min_neuron_voxels: smallest true object that is counted among the neurons.

    Raises:
        VolumeError: the table is empty.
    """
    if not table.total:
        raise VolumeError("0 voxels with a true label: a score needs at least one; check the box and the labels")
    sizes = _marginals(table)
    split, merge = _voi(table, sizes)
    error, precision, recall = _adapted_rand(table, sizes)
    large = sizes.objects >= min_neuron_voxels
    return Scores(
        voi_split=split,
        voi_merge=merge,
        adapted_rand_error=error,
        precision=precision,
        recall=recall,
        neurons=int(large.sum()),
        neurons_found=int((large & (_best_iou(table, sizes) > FOUND_IOU)).sum()),
        segments=len(np.unique(table.predicted[table.predicted != 0])),
        voxels=table.total,
    )


def _marginals(table: Contingency) -> _Marginals:
    """Sums over rows and over columns."""
    _, of_object = np.unique(table.truth, return_inverse=True)
    _, of_segment = np.unique(table.predicted, return_inverse=True)
    objects = np.zeros(of_object.max() + 1, np.int64)
    segments = np.zeros(of_segment.max() + 1, np.int64)
    np.add.at(objects, of_object, table.voxels)
    np.add.at(segments, of_segment, table.voxels)
    return _Marginals(objects, segments, of_object, of_segment)


def _voi(table: Contingency, sizes: _Marginals) -> tuple[float, float]:
    """Conditional entropies in bits: (split, merge)."""
    share = table.voxels / table.total
    split = -(share * np.log2(table.voxels / sizes.objects[sizes.of_object])).sum()
    merge = -(share * np.log2(table.voxels / sizes.segments[sizes.of_segment])).sum()
    return abs(float(split)), abs(float(merge))  # abs: no minus zero


def _adapted_rand(table: Contingency, sizes: _Marginals) -> tuple[float, float, float]:
    """(error, precision, recall); without any pair in one object or segment, the error is 0."""
    both, in_objects, in_segments = (_pairs(counts) for counts in (table.voxels, sizes.objects, sizes.segments))
    precision = both / in_segments if in_segments else 1.0
    recall = both / in_objects if in_objects else 1.0
    error = 1 - 2 * both / (in_objects + in_segments) if in_objects + in_segments else 0.0
    return error, precision, recall


def _pairs(counts: np.ndarray) -> float:
    """The number of ordered pairs of distinct voxels within groups of these sizes."""
    counts = counts.astype(np.float64)
    return float((counts * (counts - 1)).sum())


def _best_iou(table: Contingency, sizes: _Marginals) -> np.ndarray:
    """Largest IoU of each true object with an assigned segment, (objects,)."""
    union = sizes.objects[sizes.of_object] + sizes.segments[sizes.of_segment] - table.voxels
    iou = np.where(table.predicted != 0, table.voxels / union, 0.0)
    best = np.zeros(len(sizes.objects))
    np.maximum.at(best, sizes.of_object, iou)
    return best
