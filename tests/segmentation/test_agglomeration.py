"""Distributed agglomeration gives, for any chunks, the tree of a slow global loop."""

import h5py
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError, CorruptError
from pipeline.geometry import BoundingBox
from pipeline.grid import ChunkGrid
from pipeline.segmentation.agglomeration import MERGE, Linkage, NodeResult, agglomerate_node
from pipeline.segmentation.merge_tree import CutRules
from pipeline.segmentation.region_graph import RegionGraph, build_region_graph
from pipeline.segmentation.supervoxels import default_rules, extract_supervoxels
from tests.segmentation.distributed import (
    Case,
    random_case,
    run,
    run_fragments,
    slow_contacts,
    slow_tree,
    stored_in_file,
)

SHAPES = st.tuples(*[st.integers(1, 10)] * 3)
LINKAGES = st.sampled_from(
    [Linkage("mean", 0.5), Linkage("quantile", 0.5), Linkage("quantile", 0.75), Linkage("quantile", 0.0)]
)
CASES = st.fixed_dictionaries(
    {
        "block": st.integers(1, 3),
        "kinds": st.integers(1, 6),
        "values": st.sampled_from([1, 2, 3, 6, 256]),
        "empty": st.sampled_from([0.0, 0.15, 0.5]),
    }
)
RULES = CutRules(0.6, 9, 0.3)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), SHAPES, SHAPES, CASES, LINKAGES, st.sampled_from([0.0, 0.1, 0.5]), st.booleans())
def test_any_chunks_give_the_tree_of_a_slow_global_loop(seed, shape, chunk_shape, options, linkage, stop, connected):
    """Any chunks give the tree of a slow loop over all contacts, byte for byte, also where scores are equal."""
    case = random_case(np.random.default_rng(seed), shape, **options)
    found = run(case, chunk_shape, linkage, stop, RULES, connected=connected)
    slow = slow_tree(slow_contacts(case.supervoxels, case.affinities), linkage, stop)
    assert found.tree.tobytes() == np.array(slow, MERGE).tobytes()
    np.testing.assert_array_equal(found.supervoxels, case.supervoxels)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32), st.tuples(*[st.integers(3, 12)] * 3), LINKAGES, st.sampled_from([2, 4, 256]))
@example(0, (12, 12, 12), Linkage("mean", 0.5), 2)
def test_larger_volumes_give_the_same_bytes_in_any_chunks(seed, chunk_shape, linkage, values):
    """Any chunks give the same tree and segments if regions wait through several levels for their contacts."""
    case = random_case(np.random.default_rng(seed), (24, 24, 24), block=2, kinds=9, values=values, empty=0.1)
    whole = run(case, case.roi.shape, linkage, 0.1, RULES)
    parts = run(case, chunk_shape, linkage, 0.1, RULES)
    assert len(whole.tree) > 100
    assert whole.tree.tobytes() == parts.tree.tobytes()
    np.testing.assert_array_equal(whole.segments, parts.segments)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), LINKAGES)
def test_scores_never_rise_on_the_way_up(seed, linkage):
    """A merge never has a higher score than the merges that made its two regions."""
    case = random_case(np.random.default_rng(seed), (10, 10, 10), block=1, kinds=9, values=256, empty=0.1)
    tree = run(case, (4, 5, 6), linkage, 0.0, RULES).tree
    made_at = {}
    for a, b, score in tree.tolist():
        assert score <= min(made_at.get(a, np.inf), made_at.get(b, np.inf))
        made_at[a] = score
    assert len(made_at) > 10


def test_merges_of_a_node_are_best_first_and_nothing_is_left_at_the_root():
    case = random_case(np.random.default_rng(5), (12, 12, 12), block=2, kinds=9, values=3, empty=0.0)
    nodes = run(case, (4, 4, 4), Linkage("mean", 0.5), 0.2, RULES).nodes
    for node in nodes.values():
        keys = list(zip(node.merges["score"], node.merges["b"], node.merges["a"], strict=True))
        assert keys == sorted(keys, reverse=True)
    root = nodes[2, (0, 0, 0)] if (2, (0, 0, 0)) in nodes else nodes[max(nodes)]
    for array in (root.rest.regions, root.rest.edges, root.rest.ports):
        assert not len(array)


@pytest.mark.parametrize("linkage", [Linkage("mean", 0.5), Linkage("quantile", 0.5)], ids=["mean", "median"])
def test_graphs_and_results_come_back_from_a_file_byte_for_byte(linkage):
    case = random_case(np.random.default_rng(7), (8, 8, 8), block=2, kinds=9, values=256, empty=0.1)
    outcome = run(case, (4, 4, 4), linkage, 0.2, RULES)
    for value in (*outcome.graphs.values(), *outcome.nodes.values()):
        kind = RegionGraph if isinstance(value, RegionGraph) else NodeResult
        found, expected = stored_in_file(kind, value).to_arrays(), value.to_arrays()
        assert {name: (a.dtype, a.shape, a.tobytes()) for name, a in found.items()} == {
            name: (a.dtype, a.shape, a.tobytes()) for name, a in expected.items()
        }


def real_case(shared_data, size):
    with h5py.File(shared_data / "fib25_train2_affinities.h5") as file:
        affinities = file["affinities"][:, 185 : 185 + size[0], : size[1], : size[2]]
    box = BoundingBox.from_shape(size)
    return Case(box, box, np.empty(0), affinities)


def run_real(case, chunk_shape, linkage):
    rules = default_rules((8, 8, 8))
    grid = ChunkGrid(case.bounds, case.roi, chunk_shape, rules.halo())
    fragments, joins = np.zeros(case.roi.shape, np.uint64), {}
    for chunk in grid:
        part = extract_supervoxels(
            case.affinities[:, *chunk.read_box.slices()],
            None,
            read_box=chunk.read_box,
            core=chunk.core,
            roi=case.roi,
            bounds=case.bounds,
            rules=rules,
        )
        fragments[chunk.core.slices()], joins[chunk.index] = part.ids, part.joins
    return run_fragments(case, grid, fragments, joins, linkage, 0.1, CutRules(0.5, 300, 0.2))


@pytest.mark.slow
@pytest.mark.parametrize("linkage", [Linkage("mean", 0.5), Linkage("quantile", 0.5)], ids=["mean", "median"])
def test_real_tissue_gives_the_same_bytes_in_any_chunks(shared_data, linkage):
    """Any chunks of real tissue give the same tree, supervoxels and segments, byte for byte."""
    case = real_case(shared_data, (60, 150, 150))
    found = [run_real(case, shape, linkage) for shape in [(60, 150, 150), (32, 32, 32), (25, 83, 47)]]
    assert len(found[0].tree) > 1500
    for other in found[1:]:
        assert other.tree.tobytes() == found[0].tree.tobytes()
        assert other.supervoxels.tobytes() == found[0].supervoxels.tobytes()
        assert other.segments.tobytes() == found[0].segments.tobytes()


def test_closed_regions_do_not_go_up(shared_data):
    """Regions whose contacts are all known stay in their chunk, so fewer than 3/4 of the regions go up."""
    case = real_case(shared_data, (48, 96, 96))
    outcome = run_real(case, (48, 48, 48), Linkage("mean", 0.5))
    whole = sum(len(graph.regions) for graph in outcome.graphs.values())
    up = sum(len(node.rest.regions) for (level, _), node in outcome.nodes.items() if level == 0)
    assert 0 < up < 0.75 * whole


def two_halves():
    """Chunks of one voxel each, side by side along x."""
    roi = BoundingBox((0, 0, 0), (1, 1, 2))
    graphs = []
    for x in (0, 1):
        core = BoundingBox((0, 0, x), (1, 1, x + 1))
        ids = np.array([[[1, 2]]], np.uint64)[:, :, max(0, x - 1) : x + 1]
        affinities = np.full((3, 1, 1, 1), 200, np.uint8)
        graphs.append(build_region_graph(ids, affinities, np.empty((0, 2), np.int64), core=core, roi=roi, bounds=roi))
    return roi, graphs


def test_two_voxels_in_two_chunks_merge_in_their_parent():
    roi, graphs = two_halves()
    leaves = [agglomerate_node([graph], roi=roi, linkage=Linkage("mean", 0.5), stop_score=0.1) for graph in graphs]
    assert [len(leaf.merges) for leaf in leaves] == [0, 0]
    root = agglomerate_node([leaf.rest for leaf in leaves], roi=roi, linkage=Linkage("mean", 0.5), stop_score=0.1)
    assert root.merges.tolist() == [(1, 2, 200 / 255)]


def test_a_child_too_few_is_refused():
    """A node is refused if it has no children or if they do not tile its box."""
    roi, graphs = two_halves()
    with pytest.raises(ConfigError, match="must tile"):
        agglomerate_node([graphs[0], graphs[0]], roi=roi, linkage=Linkage("mean", 0.5), stop_score=0.1)
    with pytest.raises(ConfigError, match="at least one"):
        agglomerate_node([], roi=roi, linkage=Linkage("mean", 0.5), stop_score=0.1)


def test_quantiles_need_histograms():
    roi, graphs = two_halves()
    with pytest.raises(ConfigError, match="with histograms"):
        agglomerate_node(graphs, roi=roi, linkage=Linkage("quantile", 0.5), stop_score=0.1)


@pytest.mark.parametrize("options", [{"kind": "max"}, {"kind": "quantile", "quantile": 1.5}])
def test_unknown_linkages_are_refused(options):
    with pytest.raises(ConfigError):
        Linkage(**{"kind": "mean", "quantile": 0.5, **options})


def test_a_result_with_a_missing_array_is_corrupt():
    roi, graphs = two_halves()
    arrays = agglomerate_node(graphs, roi=roi, linkage=Linkage("mean", 0.5), stop_score=0.1).to_arrays()
    for name in ("merges", "rest_sums"):
        with pytest.raises(CorruptError, match=name.removeprefix("rest_")):
            NodeResult.from_arrays({key: array for key, array in arrays.items() if key != name})
