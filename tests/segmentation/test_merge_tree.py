"""Cutting the tree node by node agrees with a slow reading of the rules, and remaps replace every id."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError, CorruptError
from pipeline.segmentation.agglomeration import MERGE, Linkage
from pipeline.segmentation.merge_tree import CutRules, assign_node, canonical, cut_global, cut_node, fragment_clusters
from pipeline.segmentation.remap import apply_remap
from tests.segmentation.distributed import random_case, run, slow_segments

SHAPES = st.tuples(*[st.integers(1, 10)] * 3)
RULES = st.builds(
    CutRules,
    threshold=st.sampled_from([0.2, 0.4, 0.5, 0.8, 1.1]),
    min_size=st.sampled_from([0, 1, 5, 20, 10**6]),
    min_size_threshold=st.sampled_from([0.0, 0.1, 0.3, 0.45]),
)


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 2**32),
    SHAPES,
    SHAPES,
    st.sampled_from([Linkage("mean", 0.5), Linkage("quantile", 0.5)]),
    RULES,
    st.sampled_from([1, 3, 256]),
    st.booleans(),
)
def test_any_chunks_give_the_segments_of_a_slow_reading(seed, shape, chunk_shape, linkage, rules, values, connected):
    """Any chunks give the segments of a slow reading of the cut rules."""
    case = random_case(np.random.default_rng(seed), shape, block=2, kinds=6, values=values, empty=0.15)
    found = run(case, chunk_shape, linkage, 0.1, rules, connected=connected)
    ids, sizes = np.unique(case.supervoxels[case.supervoxels > 0], return_counts=True)
    slow = slow_segments(found.tree.tolist(), dict(zip(ids.tolist(), sizes.tolist(), strict=True)), rules)
    expected = np.array([slow[i] for i in ids.tolist()], np.uint64)
    np.testing.assert_array_equal(cut_global(found.tree, ids, sizes, rules), expected)
    np.testing.assert_array_equal(found.segments, apply_remap(case.supervoxels, ids, expected))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([Linkage("mean", 0.5), Linkage("quantile", 0.5)]))
def test_a_lower_threshold_only_merges_more(seed, linkage):
    """A lower threshold merges segments and never divides one."""
    case = random_case(np.random.default_rng(seed), (8, 8, 8), block=2, kinds=9, values=256, empty=0.1)
    tree = run(case, (4, 4, 4), linkage, 0.0, CutRules(1.0, 0, 1.0)).tree
    ids, sizes = np.unique(case.supervoxels[case.supervoxels > 0], return_counts=True)
    fine = cut_global(tree, ids, sizes, CutRules(0.7, 0, 1.0))
    coarse = cut_global(tree, ids, sizes, CutRules(0.4, 0, 1.0))
    for segment in np.unique(fine):
        assert len(np.unique(coarse[fine == segment])) == 1


def test_the_canonical_order_is_that_of_one_run_and_its_columns_are_attributes():
    merges = np.array([(1, 2, 0.5), (3, 9, 0.5), (2, 9, 0.5), (4, 5, 0.75)], MERGE)
    tree = canonical(merges)
    assert tree.tolist() == [(4, 5, 0.75), (3, 9, 0.5), (2, 9, 0.5), (1, 2, 0.5)]
    assert tree.a.tolist() == [4, 3, 2, 1]
    assert canonical(merges[::-1]).tobytes() == tree.tobytes()


def test_a_small_piece_follows_its_next_merge_and_a_large_one_does_not():
    """The rule on four supervoxels: 3 is small and joins 2; 1 and 2 are large and stay apart, 2 goes on for both."""
    tree = np.array([(2, 3, 0.3), (1, 2, 0.25), (1, 4, 0.2)], MERGE)
    ids, sizes = np.arange(1, 5, dtype=np.uint64), np.array([50, 90, 5, 4])
    assert cut_global(tree, ids, sizes, CutRules(0.5, 10, 0.1)).tolist() == [1, 2, 2, 2]
    assert cut_global(tree, ids, sizes, CutRules(0.5, 10, 0.22)).tolist() == [1, 2, 2, 4]
    assert cut_global(tree, ids, sizes, CutRules(0.5, 0, 1.0)).tolist() == [1, 2, 3, 4]


def test_a_tree_of_another_run_is_refused():
    tree = np.array([(2, 7, 0.3)], MERGE)
    with pytest.raises(CorruptError, match="region 7"):
        cut_global(tree, np.arange(1, 5, dtype=np.uint64), np.ones(4, np.int64), CutRules(0.5, 0, 1.0))


def test_a_node_below_the_root_needs_its_parent():
    case = random_case(np.random.default_rng(1), (4, 4, 4), block=1, kinds=3, values=3, empty=0.0)
    outcome = run(case, (2, 4, 4), Linkage("mean", 0.5), 0.1, CutRules(0.5, 0, 1.0))
    index = next(index for level, index in outcome.nodes if level == 0)
    cut = cut_node(outcome.nodes[0, index], [fragment_clusters(outcome.graphs[index])], CutRules(0.5, 0, 1.0))
    with pytest.raises(CorruptError, match="without a parent"):
        assign_node(cut)


def test_rules_that_are_no_numbers_are_refused():
    with pytest.raises(ConfigError, match="must be numbers"):
        CutRules(float("nan"), 0, 1.0)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), SHAPES, st.integers(1, 50))
def test_remap_replaces_every_id_and_keeps_zero(seed, shape, most):
    rng = np.random.default_rng(seed)
    keys = rng.choice(2**62, most, replace=False).astype(np.uint64) + np.uint64(1)
    values = rng.integers(0, 2**63, most).astype(np.uint64)
    choice = rng.integers(-1, most, shape)
    ids = np.where(choice < 0, np.uint64(0), keys[choice])
    np.testing.assert_array_equal(apply_remap(ids, keys, values), np.where(choice < 0, np.uint64(0), values[choice]))


def test_remap_names_an_id_that_the_table_lacks():
    with pytest.raises(CorruptError, match="id 7 "):
        apply_remap(np.array([[[1, 7]]], np.uint64), np.array([1], np.uint64), np.array([5], np.uint64))


@pytest.mark.parametrize("shape", [(0, 3, 3), (2, 0, 2), (2, 2, 0)])
def test_remap_of_nothing_is_nothing(shape):
    assert apply_remap(np.zeros(shape, np.uint64), np.zeros(0, np.uint64), np.zeros(0, np.uint64)).shape == shape
