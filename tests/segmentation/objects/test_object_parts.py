"""The parts that make objects, each by itself: halo, plateaus, what goes up, what is stored, what is refused."""

import numpy as np
import pytest

from pipeline.errors import ConfigError, CorruptError
from pipeline.geometry import BoundingBox
from pipeline.grid import ChunkGrid
from pipeline.segmentation.objects.basin_graph import BasinGraph, build_basin_graph
from pipeline.segmentation.objects.landscape import extract_basins
from pipeline.segmentation.objects.object_graph import chunk_objects
from pipeline.segmentation.objects.rules import LandscapeRules, ObjectRules
from pipeline.segmentation.objects.union import NodeUnion, assign_node, unite
from tests.segmentation.distributed import stored_in_file
from tests.segmentation.objects.driver import Case, cut, random_case, run

BOX = BoundingBox.from_shape((12, 12, 12))
ALL = {"core": BOX, "roi": BOX, "bounds": BOX}


def smooth(shape=(24, 24, 24), seeds_within=0.9, seed=0, **options) -> Case:
    rng = np.random.default_rng(seed)
    return random_case(rng, shape, kind="smooth", within=None, seeds_within=seeds_within, **options)


def test_one_voxel_less_of_context_than_the_halo_is_refused():
    """A chunk that reads too little is told what it must read."""
    core = BOX.grow((-5, -5, -5))
    with pytest.raises(ConfigError, match="core and its halo"):
        extract(core.grow((4, 4, 4)), core)
    assert extract(core.grow((5, 5, 5)), core).ids.shape == core.shape


def extract(read_box: BoundingBox, core: BoundingBox, rules=LandscapeRules()):
    landscape = np.full(read_box.shape, 9, np.uint8)
    return extract_basins(landscape, None, None, read_box=read_box, core=core, roi=BOX, bounds=BOX, rules=rules)


def test_sections_that_stand_for_themselves_need_no_context_across_them():
    rules = LandscapeRules(per_section=True)
    assert rules.halo() == ((0, 5, 5), (0, 5, 5))
    assert rules.context() == ((0, 1, 1), (0, 0, 0))


def test_a_saturated_plateau_is_one_basin_where_seeds_may_lie():
    """A ball of the full height is one basin; where only half of it may be a seed, the other half has several."""
    ball = np.where(sum((np.indices(BOX.shape) - 5.5) ** 2) < 25, 255, 0).astype(np.uint8)
    whole = extract_basins(ball, None, None, read_box=BOX, rules=LandscapeRules(), **ALL)
    assert len(np.unique(whole.ids)) == 2
    half = np.indices(BOX.shape)[2] >= 6
    parts = extract_basins(ball, None, half, read_box=BOX, rules=LandscapeRules(), **ALL)
    assert len(np.unique(parts.ids[half])) == 2
    assert len(np.unique(parts.ids)) > 3


def test_passes_are_forests():
    """A chunk stores fewer passes than it has fragments, in either table."""
    case = smooth()
    graph = run(case, (12, 12, 12), ObjectRules(60, 150)).graphs
    for each in graph.values():
        assert 0 < len(each.edges) < len(each.regions)
        assert 0 < len(each.seed_edges) < len(each.regions)


@pytest.mark.parametrize("seeds_within", [None, 0.9])
def test_passes_that_wait_are_fewer_than_open_clusters(seeds_within):
    """What goes up from a node is open, or the end of a pass that waits; passes are fewer than open clusters."""
    case = smooth((32, 32, 32), seeds_within)
    unions = run(case, (8, 8, 8), ObjectRules(60, 150)).unions
    waiting = 0
    for union in unions.values():
        opened = len(np.unique(union.up.port_regions))
        assert len(union.up.edges) <= opened
        assert len(union.up.regions) <= 2 * opened
        waiting += len(union.up.edges)
    assert waiting > 10


def test_at_the_root_nothing_waits():
    case = smooth()
    unions = run(case, (8, 8, 8), ObjectRules(60, 150)).unions
    root = unions[max(unions)]
    for array in (root.up.regions, root.up.edges, root.up.ports):
        assert not len(array)
    assert len(root.objects)


def test_other_rules_need_no_other_basins():
    """The same basin graphs serve every mask, seed and size; each node is stored as plain arrays."""
    case = smooth()
    few, many = (run(case, (12, 12, 12), rules) for rules in (ObjectRules(60, 60), ObjectRules(120, 200, 3, 5)))
    for index, graph in few.graphs.items():
        for name, array in graph.to_arrays().items():
            np.testing.assert_array_equal(array, many.graphs[index].to_arrays()[name])
    assert len(few.objects) < len(many.objects)


def test_graphs_and_unions_survive_a_file():
    case = smooth()
    outcome = run(case, (12, 12, 12), ObjectRules(60, 150))
    for kind, value in ((BasinGraph, outcome.graphs), (NodeUnion, outcome.unions)):
        one = next(iter(value.values()))
        again = stored_in_file(kind, one).to_arrays()
        for name, array in one.to_arrays().items():
            np.testing.assert_array_equal(array, again[name])


def test_a_basin_graph_without_an_array_is_refused():
    with pytest.raises(CorruptError, match="ranks"):
        BasinGraph.from_arrays({"edges": np.empty((0, 2), np.int32)})


def test_a_node_that_lacks_its_parent_is_refused():
    case = smooth()
    union = run(case, (12, 12, 12), ObjectRules(60, 150)).unions
    first = next(iter(union.values()))
    with pytest.raises(CorruptError, match="without a parent"):
        assign_node(first)


def test_children_that_do_not_tile_a_box_are_refused():
    case, rules = smooth(), ObjectRules(60, 150)
    graphs = list(run(case, (12, 12, 12), rules).graphs.values())
    with pytest.raises(ConfigError, match="must tile a box"):
        unite([chunk_objects(graph, rules) for graph in graphs[:3]], roi=case.roi, rules=rules)


def test_fragments_that_go_on_in_a_neighbour_are_refused():
    """Basins that are not cut at chunk faces are told from those that are."""
    ids, landscape = np.ones((3, 3, 3), np.uint64), np.full((3, 3, 3), 9, np.uint8)
    core = BoundingBox((1, 0, 0), (3, 3, 3))
    roi = BoundingBox.from_shape((3, 3, 3))
    with pytest.raises(ConfigError, match="goes on beyond a low face"):
        build_basin_graph(
            ids, landscape, None, np.empty((0, 2), np.int64), core=core, roi=roi, bounds=roi, rules=LandscapeRules()
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"landscape": np.zeros(BOX.shape, np.float32)}, "must be uint8"),
        ({"landscape": np.zeros((3, 3, 3), np.uint8)}, r"must be uint8 \(12, 12, 12\)"),
        ({"within": np.zeros(BOX.shape, np.uint8)}, "within is uint8 .*must be bool"),
        ({"seeds_within": np.zeros((3, 3, 3), np.bool_)}, r"seeds_within is .*must be bool \(12, 12, 12\)"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change, message):
    arrays = {"landscape": np.zeros(BOX.shape, np.uint8), "within": None, "seeds_within": None, **change}
    with pytest.raises(ConfigError, match=message):
        extract_basins(**arrays, read_box=BOX, rules=LandscapeRules(), **ALL)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LandscapeRules(floor=255), "floor is 255; it must be a whole number from 0 to 254"),
        (lambda: ObjectRules(mask=-1, seed=9), "mask is -1"),
        (lambda: ObjectRules(mask=90, seed=80), "seed is 80; it must be a whole number from 90 to 254"),
        (lambda: ObjectRules(90, 90, min_seed=-1), "min_seed is -1"),
        (lambda: ObjectRules(90, 90, min_size=1.5), "min_size is 1.5"),
        (lambda: ObjectRules(90, 90, seedless="no"), "seedless is 'no'; it must be 'drop' or 'keep'"),
        (lambda: ObjectRules(30, 90).check_floor(40), "mask is 30, but basins were extracted above a floor of 40"),
    ],
)
def test_rules_that_make_no_sense_are_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_a_fragment_outside_the_core_is_seen_one_voxel_deep():
    """The graph of a chunk without its context is refused."""
    case = smooth()
    grid = ChunkGrid(case.bounds, case.roi, (12, 12, 12), case.rules.halo())
    fragments, joins = cut(case, grid)
    chunk = list(grid)[-1]
    part = chunk.core.slices(case.roi.start)
    boxes = {"core": chunk.core, "roi": case.roi, "bounds": case.bounds}
    with pytest.raises(ConfigError, match="the core and its context"):
        build_basin_graph(
            fragments[part], case.landscape[part], None, joins[chunk.index], rules=LandscapeRules(), **boxes
        )
