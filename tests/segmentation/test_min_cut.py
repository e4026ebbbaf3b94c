"""The cut between two sets of supervoxels is the smallest, the nearest to the sources, and spares ties."""

from itertools import product

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.segmentation.min_cut import LARGEST, source_side


def by_trying(count, edges, weights, sources, sinks):
    """Of all sides with the sources and without the sinks, that of the smallest cut with the fewest supervoxels."""
    best = None
    for bits in product([False, True], repeat=count):
        side = np.array(bits)
        if side[sources].all() and not side[sinks].any():
            cost = (weights[side[edges[:, 0]] != side[edges[:, 1]]].sum(), side.sum())
            best = min(best, (*cost, bits)) if best else (*cost, bits)
    return np.array(best[2])


@st.composite
def graphs(draw):
    count = draw(st.integers(2, 7))
    pairs = [(a, b) for a in range(count) for b in range(a + 1, count)]
    edges = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=12))
    weights = draw(st.lists(st.integers(0, 4), min_size=len(edges), max_size=len(edges)))
    ends = draw(st.permutations(range(count)))
    one, two = draw(st.integers(1, count - 1)), draw(st.integers(1, count - 1))
    sources, sinks = ends[:one], ends[one : one + two]
    return count, np.array(edges, int).reshape(-1, 2), np.array(weights, np.int64), np.array(sources), np.array(sinks)


NO_TIES = np.empty((0, 2), int)


@settings(max_examples=150)
@given(graphs())
def test_the_cut_is_the_smallest_and_the_nearest_to_the_sources(graph):
    """The side is that of an exhaustive search; among equal cuts it has the fewest supervoxels."""
    count, edges, weights, sources, sinks = graph
    found = source_side(count, edges, weights, NO_TIES, sources, sinks)
    assert found.tolist() == by_trying(count, edges, weights, sources, sinks).tolist()


def line(weights):
    return np.stack([np.arange(len(weights)), np.arange(len(weights)) + 1], axis=1), np.array(weights, np.int64)


def test_a_tie_holds_where_a_contact_can_be_cut():
    """Supervoxels 1 and 2 barely touch, but are tied: the weaker one of the other contacts is cut."""
    edges, weights = line([50, 1, 60])
    ends = np.array([0]), np.array([3])
    assert source_side(4, edges, weights, NO_TIES, *ends).tolist() == [True, True, False, False]
    assert source_side(4, edges, weights, np.array([[1, 2]]), *ends).tolist() == [True, False, False, False]


def test_a_tie_is_cut_where_nothing_else_joins_the_sides():
    """If ties alone lead from the sources to the sinks, the cut goes through a tie, and through no contact."""
    edges, weights = line([50, 1, 60])
    ties = np.array([[0, 3]])
    assert source_side(4, edges, weights, ties, np.array([0]), np.array([3])).tolist() == [True, True, False, False]


def test_weights_of_any_size_keep_their_order():
    """Sums of affinities far above int32 are compared with all bits that the solver has."""
    edges, weights = line([LARGEST * 64, LARGEST * 32, LARGEST * 64])
    assert source_side(4, edges, weights, NO_TIES, np.array([0]), np.array([3])).tolist() == [True, True, False, False]


def test_what_no_contact_joins_to_the_sources_is_on_the_other_side():
    found = source_side(3, np.empty((0, 2), int), np.empty(0, np.int64), NO_TIES, np.array([1]), np.array([0]))
    assert found.tolist() == [False, True, False]
