"""The region graph agrees with a loop over all voxels, and the graphs of all chunks add up to the whole."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError, CorruptError
from pipeline.geometry import BoundingBox
from pipeline.grid import ChunkGrid
from pipeline.segmentation.region_graph import RegionGraph, build_region_graph
from tests.segmentation.distributed import chunk_graph, cut_at_faces, random_case, slow_contacts

SHAPES = st.tuples(*[st.integers(1, 9)] * 3)


def graphs_of(case, chunk_shape, connected=True):
    grid = ChunkGrid(case.bounds, case.roi, chunk_shape)
    fragments, joins = cut_at_faces(case, grid, connected=connected)
    return fragments, [chunk_graph(case, chunk, fragments, joins, histograms=True) for chunk in grid]


def contacts_of(graph):
    """(smaller id, larger id) -> the affinities between them, counted."""
    found = {}
    for i, (a, b) in enumerate(graph.regions[graph.edges].tolist()):
        row = slice(graph.offsets[i], graph.offsets[i + 1])
        found[a, b] = Counter(dict(zip(graph.values[row].tolist(), graph.value_counts[row].tolist(), strict=True)))
    return found


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), SHAPES, SHAPES, st.booleans())
def test_chunks_count_every_affinity_once(seed, shape, chunk_shape, connected):
    """The graphs of all chunks together count each affinity and each voxel exactly once."""
    case = random_case(np.random.default_rng(seed), shape, block=2, kinds=4, values=5, empty=0.2)
    fragments, graphs = graphs_of(case, chunk_shape, connected)
    total = {}
    for graph in graphs:
        for pair, values in contacts_of(graph).items():
            total[pair] = total.get(pair, Counter()) + values
    slow = {pair: Counter(values) for pair, values in slow_contacts(fragments, case.affinities).items()}
    assert total == slow
    sizes = Counter()
    for graph in graphs:
        sizes.update(dict(zip(graph.regions.tolist(), graph.sizes.tolist(), strict=True)))
    ids, counts = np.unique(fragments[fragments > 0], return_counts=True)
    assert +sizes == dict(zip(ids.tolist(), counts.tolist(), strict=True))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), SHAPES, SHAPES)
def test_sums_and_counts_are_those_of_the_histograms(seed, shape, chunk_shape):
    case = random_case(np.random.default_rng(seed), shape, block=2, kinds=4, values=5, empty=0.2)
    for graph in graphs_of(case, chunk_shape)[1]:
        for values, count, total in zip(contacts_of(graph).values(), graph.counts, graph.sums, strict=True):
            assert values.total() == count
            assert sum(value * n for value, n in values.items()) == total


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), SHAPES, SHAPES)
def test_ports_are_the_fragments_that_others_may_know(seed, shape, chunk_shape):
    """The ports of a chunk are its fragments at faces to later chunks, and the fragments of earlier chunks."""
    case = random_case(np.random.default_rng(seed), shape, block=2, kinds=4, values=5, empty=0.2)
    fragments, graphs = graphs_of(case, chunk_shape)
    for graph in graphs:
        core = fragments[BoundingBox(graph.start, graph.stop).slices(case.roi.start)]
        expected = {}
        for axis in range(3):
            if graph.stop[axis] < case.roi.stop[axis]:
                for i in np.unique(np.take(core, -1, axis)):
                    expected[int(i)] = expected.get(int(i), 0) | 1 << axis
        for i in set(graph.regions.tolist()) - set(core.ravel().tolist()):
            expected[i] = 8
        expected.pop(0, None)
        assert dict(zip(graph.ports.tolist(), graph.port_faces.tolist(), strict=True)) == expected
        np.testing.assert_array_equal(graph.regions[graph.port_regions], graph.ports)


def test_large_ids_and_long_rows_are_no_trouble():
    """A graph of 84000 regions with ids beyond 2^63 has every voxel and every affinity."""
    rng = np.random.default_rng(3)
    shape = (3, 40, 700)
    ids = rng.permutation(np.prod(shape)).reshape(shape).astype(np.uint64) + np.uint64(2**63)
    box = BoundingBox.from_shape(shape)
    affinities = rng.integers(0, 256, (3, *shape)).astype(np.uint8)
    joins = np.empty((0, 2), np.int64)
    graph = build_region_graph(ids, affinities, joins, core=box, roi=box, bounds=box, histograms=True)
    np.testing.assert_array_equal(graph.regions, np.sort(ids.ravel()))
    assert (graph.sizes == 1).all()
    assert (graph.counts == 1).all()
    assert graph.sums.sum() == affinities[0, 1:].sum() + affinities[1, :, 1:].sum() + affinities[2, :, :, 1:].sum()


def small(**changes):
    box = BoundingBox((2, 0, 0), (4, 2, 2))
    given = {
        "ids": np.arange(1, 13, dtype=np.uint64).reshape(3, 2, 2),
        "affinities": np.zeros((3, 2, 2, 2), np.uint8),
        "joins": np.empty((0, 2), np.int64),
        "core": box,
        "roi": BoundingBox((0, 0, 0), (4, 2, 2)),
        "bounds": BoundingBox((0, 0, 0), (4, 2, 2)),
        **changes,
    }
    return build_region_graph(given.pop("ids"), given.pop("affinities"), given.pop("joins"), **given)


@pytest.mark.parametrize(
    ("error", "words", "changes"),
    [
        (ConfigError, "read them from 1..4", {"ids": np.ones((2, 2, 2), np.uint64)}),
        (ConfigError, "must be uint64", {"ids": np.ones((3, 2, 2), np.int32)}),
        (ConfigError, "must be uint8", {"affinities": np.zeros((3, 2, 2, 2))}),
        (ConfigError, "region of interest", {"core": BoundingBox((2, 0, 0), (5, 2, 2))}),
        (ConfigError, "must be cut at chunk faces", {"ids": np.ones((3, 2, 2), np.uint64)}),
        (CorruptError, "does not lie on one of its low faces", {"joins": np.array([[12, 0]])}),
        (CorruptError, "does not lie on one of its low faces", {"joins": np.array([[8, 1]])}),
        (CorruptError, "without a fragment", {"joins": np.array([[8, 0]]), "ids": np.zeros((3, 2, 2), np.uint64)}),
    ],
)
def test_what_does_not_fit_is_refused(error, words, changes):
    with pytest.raises(error, match=words):
        small(**changes)


def test_a_join_names_both_fragments():
    graph = small(joins=np.array([[8, 0], [9, 0], [8, 0]]))
    np.testing.assert_array_equal(graph.regions[graph.joins], [[1, 5], [2, 6]])


def test_a_graph_with_a_missing_array_is_corrupt():
    arrays = small().to_arrays()
    del arrays["sums"]
    with pytest.raises(CorruptError, match="sums"):
        RegionGraph.from_arrays(arrays)
