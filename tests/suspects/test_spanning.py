"""The trees inside of segments against plain loops over all edges."""

import numpy as np
import pytest

from pipeline.segmentation.spanning import cut_sides, joining_merges


def components(count: int, edges) -> np.ndarray:
    into = np.arange(count)
    for a, b in edges:
        into[into == into[b]] = into[a]
    return into


@pytest.mark.parametrize("seed", range(5))
def test_the_merge_that_joined_each_contact(seed):
    """A contact belongs to the first merge after which both ends are together, and merges know their sides' voxels."""
    rng = np.random.default_rng(seed)
    voxels = rng.integers(1, 100, 40)
    merges, pairs = rng.integers(0, 40, (50, 2)), rng.integers(0, 40, (200, 2))
    found, sides = joining_merges(voxels, merges, pairs)
    for (a, b), merge in zip(pairs, found, strict=True):
        together = [components(40, merges[:k])[[a, b]] for k in range(51)]
        first = next((k for k, (one, other) in enumerate(together) if one == other), None)
        assert merge == (-1 if first in (None, 0) else first - 1)
    for k, (a, b) in enumerate(merges):
        before = components(40, merges[:k])
        expected = [voxels[before == before[end]].sum() for end in (a, b)]
        assert sides[k].tolist() == expected


@pytest.mark.parametrize("seed", range(5))
def test_what_a_cut_parts(seed):
    """What an edge of a forest parts is what removing it parts: voxels, and contacts between the two sides."""
    rng = np.random.default_rng(seed)
    voxels = rng.integers(1, 100, 30)
    edges = np.array([(rng.integers(0, i), i) for i in range(1, 30) if i not in (9, 20)])
    tree = components(30, edges)
    pairs = rng.integers(0, 30, (150, 2))
    pairs = pairs[(tree[pairs[:, 0]] == tree[pairs[:, 1]]) & (pairs[:, 0] != pairs[:, 1])]
    counts, sums = rng.integers(1, 50, len(pairs)), rng.integers(1, 5000, len(pairs))
    sides, across = cut_sides(voxels, edges, pairs, counts, sums)
    for k, (a, b) in enumerate(edges):
        without = components(30, np.delete(edges, k, axis=0))
        assert sides[k].tolist() == sorted(int(voxels[without == without[end]].sum()) for end in (a, b))
        apart = without[pairs[:, 0]] != without[pairs[:, 1]]
        assert across[k].tolist() == [counts[apart].sum(), sums[apart].sum()]


def test_nothing_to_cut():
    """Supervoxels without any edge or contact give empty tables."""
    none = np.zeros((0, 2), np.int64)
    sides, across = cut_sides(np.ones(3, np.int64), none, none, none[:, 0], none[:, 0])
    assert sides.shape == across.shape == (0, 2)
    found, before = joining_merges(np.ones(3, np.int64), none, none)
    assert found.shape == (0,)
    assert before.shape == (0, 2)
