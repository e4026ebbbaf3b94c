"""Affinities of distant voxels take part in agglomeration, and chunks change nothing of it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.geometry import BoundingBox, Vec
from pipeline.grid import ChunkGrid
from pipeline.segmentation.agglomeration import Linkage
from pipeline.segmentation.contacts import scan
from pipeline.segmentation.far_contacts import NEAREST, reach_of, scan_offsets
from pipeline.segmentation.merge_tree import CutRules
from pipeline.segmentation.region_graph import build_region_graph
from tests.segmentation.distributed import (
    chunk_graph,
    random_case,
    run,
    slow_contacts,
    slow_segments,
    slow_tree,
)

FAR = st.lists(
    st.sampled_from([Vec(-2, 0, 0), Vec(-3, 0, 0), Vec(0, -2, 0), Vec(0, -4, 0), Vec(0, 0, -2), Vec(0, 0, -3)]),
    min_size=1,
    max_size=4,
    unique=True,
)
SHAPES = st.tuples(*[st.integers(1, 9)] * 3)
LINKAGES = st.sampled_from([Linkage("mean", 0.5), Linkage("quantile", 0.3)])


def case_of(seed, shape, far):
    rng = np.random.default_rng(seed)
    return random_case(rng, shape, block=2, kinds=4, values=4, empty=0.2, offsets=(*NEAREST, *far))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), SHAPES, SHAPES, FAR, LINKAGES)
def test_any_chunks_give_the_tree_of_a_slow_global_loop(seed, shape, chunk_shape, far, linkage):
    """Merge tree and segments are those of a loop over all pairs of voxels, in chunks as long as the offsets."""
    case = case_of(seed, shape, far)
    chunk = Vec(*chunk_shape).maximum(reach_of(case.offsets))
    rules = CutRules(threshold=0.5, min_size=0, min_size_threshold=0.1)
    found = run(case, chunk, linkage, 0.1, rules)
    tree = slow_tree(slow_contacts(case.supervoxels, case.affinities, case.offsets), linkage, 0.1)
    assert [(int(m.a), int(m.b), float(m.score)) for m in found.tree] == tree
    ids, sizes = np.unique(case.supervoxels[case.supervoxels > 0], return_counts=True)
    expected = slow_segments(tree, dict(zip(ids.tolist(), sizes.tolist(), strict=True)), rules)
    np.testing.assert_array_equal(found.supervoxels, case.supervoxels)
    lookup = np.vectorize(lambda i: expected.get(i, 0), otypes=[np.uint64])
    np.testing.assert_array_equal(found.segments, lookup(case.supervoxels))


def test_fragments_that_do_not_touch_have_a_contact():
    """An offset of three voxels connects two fragments with a gap between them."""
    ids = np.zeros((1, 1, 4), np.uint64)
    ids[..., 0], ids[..., 3] = 1, 4
    affinities = np.full((4, 1, 1, 4), 7, np.uint8)
    box = BoundingBox.from_shape(ids.shape)
    where = {"core": box, "roi": box, "bounds": box}
    near = build_region_graph(ids, affinities[:3], np.empty((0, 2), np.int64), **where)
    far = build_region_graph(ids, affinities, np.empty((0, 2), np.int64), offsets=(*NEAREST, Vec(0, 0, -3)), **where)
    assert len(near.edges) == 0
    assert (far.edges.tolist(), far.counts.tolist(), far.sums.tolist()) == ([[0, 1]], [1], [7])


def test_without_far_offsets_the_fast_pass_counts_the_same():
    """The general pass over nearest neighbours alone finds what the fast one finds."""
    case = case_of(5, (7, 8, 9), [Vec(0, 0, -2)])
    low, goes_on = Vec(0, 0, 0), np.zeros(3, bool)
    near = np.ascontiguousarray(case.affinities[:3])
    fast = scan(case.supervoxels, near, low, goes_on, True)
    general = scan_offsets(case.supervoxels, near, NEAREST, low, goes_on, True)
    assert pairs(fast) == pairs(general)


def pairs(contacts):
    ends = np.sort(contacts.ids[contacts.edges], axis=1).tolist()
    return {tuple(e): (int(c), int(s)) for e, c, s in zip(ends, contacts.counts, contacts.sums, strict=True)}


@pytest.mark.parametrize("odd", [Vec(0, -2, -2), Vec(0, 2, 0), Vec(0, 0, 0), Vec(0, 0, -1)])
def test_offsets_along_no_axis_are_refused(odd):
    """An offset that leads forward, along two axes, or twice to the same voxel is refused with the rule."""
    case = case_of(1, (4, 4, 4), [odd])
    (whole,) = ChunkGrid(case.roi, case.roi, case.roi.shape)
    with pytest.raises(ConfigError, match="each must lead back along one axis, once"):
        chunk_graph(case, whole, case.supervoxels, {whole.index: np.empty((0, 2), np.int64)}, histograms=False)
