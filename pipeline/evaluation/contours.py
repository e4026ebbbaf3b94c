"""Scores of contours on pictures, as the Berkeley benchmark takes them: ODS, OIS and average precision.

1. At each threshold the predicted contours are thinned to one pixel             ``thinned``
2. They are matched one to one with the pixels that an annotator drew, within    ``matched``
   0.0075 of the picture's diagonal, so that as many as possible have a partner
3. Precision: the share of predicted pixels that have a partner with any annotator; recall: the share of all pixels
   of all annotators that have one
4. ODS: the best F of one threshold for all pictures; OIS: of the best threshold of each picture; AP: the area under
   the curve of precision over recall

The benchmark's own code matches by the least total distance, with a cost for pixels without partner; the number of
partners, on which alone these scores depend, is here the largest possible, which is exact and has no parameter.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import maximum_bipartite_matching
from scipy.spatial import KDTree
from skimage.morphology import thin

TOLERANCE = 0.0075
"""The largest distance of partners, as a share of the picture's diagonal."""
THRESHOLDS = 99
RECALLS = np.linspace(0, 1, 101)
"""Where the curve of precision over recall is read."""
Counts = tuple[int, int, int, int]
"""Predicted pixels with a partner, predicted pixels, true pixels with a partner, true pixels."""


@dataclass(frozen=True)
class ContourScores:
    """The scores of contours on some pictures."""

    ods: float
    """The best F of one threshold for all pictures."""
    ois: float
    """F with the best threshold of each picture."""
    ap: float
    """Average precision."""
    threshold: float
    """The threshold of ``ods``."""


def contour_scores(
    pictures: Iterable[tuple[np.ndarray, Sequence[np.ndarray]]],
    *,
    tolerance: float = TOLERANCE,
    thresholds: int = THRESHOLDS,
) -> ContourScores:
    """The scores of pictures, each probabilities (y, x) and, of every annotator, what is contour (y, x), bool."""
    steps = np.arange(1, thresholds + 1) / (thresholds + 1)
    counts = np.array([[hits(p >= t, truths, tolerance) for t in steps] for p, truths in pictures])  # (n, t, 4)
    of_thresholds = counts.sum(0)
    scores = f_score(of_thresholds)
    best = counts[np.arange(len(counts)), f_score(counts).argmax(1)]
    return ContourScores(
        ods=float(scores.max()),
        ois=float(f_score(best.sum(0))),
        ap=average_precision(*precision_recall(of_thresholds)),
        threshold=float(steps[scores.argmax()]),
    )


def hits(predicted: np.ndarray, truths: Sequence[np.ndarray], tolerance: float = TOLERANCE) -> Counts:
    """The counts of a picture (y, x), which is thinned first; truths, one of each annotator, are lines already."""
    lines = thinned(predicted)
    reach = tolerance * float(np.hypot(*predicted.shape))
    pairs = [matched(lines, truth, reach) for truth in truths]
    found = np.any([ours for ours, _ in pairs], axis=0) if pairs else np.zeros(0, bool)
    partners, true = (int(sum(f(theirs) for _, theirs in pairs)) for f in (np.sum, np.size))
    return int(np.sum(found)), int(lines.sum()), partners, true


def thinned(contours: np.ndarray) -> np.ndarray:
    """Lines of one pixel, bool (y, x)."""
    return np.asarray(thin(np.asarray(contours, bool)))


def matched(ours: np.ndarray, theirs: np.ndarray, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """For each true pixel of two pictures (y, x), in the order of rows, whether it has a partner in the other.

    The largest one-to-one matching of pixels that are at most ``reach`` pixels apart.
    """
    places = [np.argwhere(picture) for picture in (ours, theirs)]
    if not all(len(each) for each in places):
        return np.zeros(len(places[0]), bool), np.zeros(len(places[1]), bool)
    near = KDTree(places[0]).query_ball_tree(KDTree(places[1]), reach + 1e-9)
    rows = np.repeat(np.arange(len(near)), [len(each) for each in near])
    columns = np.concatenate([np.asarray(each, int) for each in near])
    graph = coo_array((np.ones(len(rows), bool), (rows, columns)), shape=(len(places[0]), len(places[1]))).tocsr()
    partner = maximum_bipartite_matching(graph, perm_type="column")
    has = np.zeros(len(places[1]), bool)
    has[partner[partner >= 0]] = True
    return partner >= 0, has


def precision_recall(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall of counts (..., 4), those of ``hits``; a share of nothing is 1 if all is right, else 0."""
    shares = []
    for found, whole in (counts[..., 0], counts[..., 1]), (counts[..., 2], counts[..., 3]):
        shares.append(np.where(whole > 0, found / np.maximum(whole, 1), counts[..., 1] + counts[..., 3] == 0))
    return shares[0].astype(float), shares[1].astype(float)


def f_score(counts: np.ndarray) -> np.ndarray:
    """The harmonic mean of precision and recall of counts (..., 4); 0 if both are 0."""
    precision, recall = precision_recall(counts)
    return 2 * precision * recall / np.maximum(precision + recall, 1e-12)  # type: ignore[no-any-return]


def average_precision(precision: np.ndarray, recall: np.ndarray) -> float:
    """The mean of precision over recalls from 0 to 1, linear between thresholds; 0 beyond the recalls that occur.

    As published: a prediction of zeros and ones has one recall, and next to no area.
    """
    recalls = np.unique(recall)
    best = [precision[recall == each].max() for each in recalls]
    return float(np.interp(RECALLS, recalls, best, left=0.0, right=0.0).mean())
