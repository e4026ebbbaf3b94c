"""Which boxes to label: unsure ones, and unlike each other in two ways (two streams, Lin et al. 2020).

1. by what the image shows, all boxes are put into clusters                        about the root of the number wanted
2. by what the network says, the boxes of each cluster are put into groups
3. clusters take turns, and in a cluster its groups; each gives its most unsure box that was not given yet

The clusters are those of k-means from fixed first centres: the middle box, and then always the box that is farthest
from all centres so far. So the choice is a function of the descriptions alone, without a seed.
"""

from __future__ import annotations

import math
import warnings
from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.cluster.vq import kmeans2

from pipeline.few_labels.candidates import COARSE, Candidates

COMPONENTS = 8
"""Principal components that stand for the coarse means of a patch."""
ROUNDS = 20
"""Rounds of k-means."""


@dataclass(frozen=True)
class Choice:
    """A box to label."""

    number: int
    """Its number among the candidates."""
    cluster: int
    """By what the image shows."""
    group: int
    """In the cluster, by what the network says."""


def choose(candidates: Candidates, wanted: int) -> list[Choice]:
    """The boxes to label, in the order in which they are proposed; ``wanted`` is at most the number of candidates."""
    clusters = math.ceil(math.sqrt(wanted))
    cluster_of = k_means(code_of(candidates), clusters)
    said = standardised(candidates.said)
    queues: dict[int, dict[int, deque[int]]] = {}
    for cluster in range(clusters):
        members = np.flatnonzero(cluster_of == cluster)
        if len(members):
            groups = k_means(said[members], math.ceil(wanted / clusters))
            queues[cluster] = by_group(members, groups, candidates.unsure)
    return in_turns(queues, candidates.unsure, wanted)


def code_of(candidates: Candidates) -> np.ndarray:
    """What the images show, (n, numbers): codes of an autoencoder if there are patches, else pooled features."""
    if candidates.patches is None:
        return image_code(candidates.seen)
    from pipeline.training.patch_codes import patch_codes  # it imports torch

    return standardised(patch_codes(candidates.patches))


def by_group(members: np.ndarray, groups: np.ndarray, unsure: np.ndarray) -> dict[int, deque[int]]:
    """The members of each group, the most unsure first; of equal ones the first."""
    found: defaultdict[int, deque[int]] = defaultdict(deque)
    for place in np.argsort(-unsure[members], kind="stable"):
        found[int(groups[place])].append(int(members[place]))
    return dict(found)


def in_turns(queues: dict[int, dict[int, deque[int]]], unsure: np.ndarray, wanted: int) -> list[Choice]:
    """Take from the clusters in turn, and in each from its groups in turn; the most unsure begins."""

    def best_first(names: Iterable[int], first: dict[int, int]) -> list[int]:
        return sorted(names, key=lambda name: (-unsure[first[name]], first[name]))

    heads = {cluster: {group: queue[0] for group, queue in groups.items()} for cluster, groups in queues.items()}
    turns = {cluster: deque(best_first(groups, heads[cluster])) for cluster, groups in queues.items()}
    order = deque(best_first(queues, {cluster: heads[cluster][groups[0]] for cluster, groups in turns.items()}))
    chosen: list[Choice] = []
    while len(chosen) < wanted and order:
        cluster = order.popleft()
        group = turns[cluster].popleft()
        queue = queues[cluster][group]
        chosen.append(Choice(queue.popleft(), cluster, group))
        if queue:
            turns[cluster].append(group)
        if turns[cluster]:
            order.append(cluster)
    return chosen


def image_code(seen: np.ndarray) -> np.ndarray:
    """The code of what the images show: statistics as they are, coarse means as their principal components."""
    coarse = COARSE**3
    patches = seen[:, -coarse:] - seen[:, -coarse:].mean(0)
    patches = patches - patches.mean(1, keepdims=True)  # the mean is among the statistics
    _, _, axes = np.linalg.svd(patches, full_matrices=False)
    parts = patches @ axes[:COMPONENTS].T
    scale = np.sqrt((parts**2).sum() / len(parts)) or 1.0
    return np.hstack([standardised(seen[:, :-coarse]), parts / scale * np.sqrt(COMPONENTS)])


def standardised(values: np.ndarray) -> np.ndarray:
    """Each column with mean 0 and standard deviation 1; a column of equal values is 0."""
    spread = values.std(0)
    return np.asarray((values - values.mean(0)) / np.where(spread > 1e-12, spread, np.inf))


def k_means(points: np.ndarray, count: int) -> np.ndarray:
    """The cluster of each point, from 0; fewer than ``count`` clusters where points are equal."""
    centres = spread_out(points, min(count, len(points)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a cluster may lose its last point
        _, found = kmeans2(points, points[centres], iter=ROUNDS, minit="matrix")
    return np.asarray(found)


def spread_out(points: np.ndarray, count: int) -> list[int]:
    """The point nearest to the mean, and then always the one that is farthest from all so far."""
    chosen = [int(np.argmin(((points - points.mean(0)) ** 2).sum(1)))]
    distance = ((points - points[chosen[0]]) ** 2).sum(1)
    while len(chosen) < count:
        chosen.append(int(np.argmax(distance)))
        distance = np.minimum(distance, ((points - points[chosen[-1]]) ** 2).sum(1))
    return chosen
