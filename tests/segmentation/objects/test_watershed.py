"""Objects are what the field's programs find: connected components, and the watershed by flooding."""

from collections import defaultdict

import cc3d
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.measure import label
from skimage.segmentation import watershed

from pipeline.segmentation.objects.rules import LandscapeRules, ObjectRules
from tests.segmentation.objects.driver import Case, components, inside_of, random_case, run, slow_seeds

SMALL = st.tuples(*[st.integers(1, 6)] * 3)
CHUNKS = st.tuples(*[st.integers(2, 8)] * 3)
WHERE = st.sampled_from([None, 0.5, 0.9])
RULES = st.builds(LandscapeRules, per_section=st.booleans(), connectivity=st.sampled_from([6, 26]))
THRESHOLDS = st.sampled_from([(0, 0), (30, 120), (60, 150), (79, 119), (20, 200)])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), CHUNKS, st.sampled_from(["few", "smooth"]), WHERE, RULES, st.integers(0, 9))
def test_with_one_threshold_objects_are_connected_components(seed, chunk_shape, kind, within, rules, min_size):
    """Where ``seed`` is ``mask``, objects are the components that scipy finds, without those that are too small."""
    case = random_case(
        np.random.default_rng(seed), (14, 15, 16), kind=kind, within=within, seeds_within=None, rules=rules
    )
    wanted = components(case, inside_of(case, 110))
    wanted[(np.bincount(wanted.ravel()) < min_size)[wanted]] = 0
    found = run(case, chunk_shape, ObjectRules(110, 110, min_size=min_size)).labels
    assert same_partition(found, wanted)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), CHUNKS, st.floats(0.03, 0.3), st.sampled_from([6, 26]), st.integers(0, 5))
def test_sparse_components_are_those_of_scikit_image(seed, chunk_shape, share, connectivity, min_size):
    """Where most pieces go on over edges and corners, also those of chunks, scikit-image finds the same ones."""
    rules = LandscapeRules(connectivity=connectivity)
    case = random_case(np.random.default_rng(seed), (13, 14, 15), kind="few", within=share, seeds_within=None)
    case.rules, case.landscape[:] = rules, 200
    wanted = label(case.within, connectivity={6: 1, 26: 3}[connectivity])
    wanted[(np.bincount(wanted.ravel()) < min_size)[wanted]] = 0
    assert same_partition(run(case, chunk_shape, ObjectRules(110, 110, min_size=min_size)).labels, wanted)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.tuples(*[st.integers(1, 16)] * 3), CHUNKS, st.floats(0.03, 0.9), RULES, WHERE)
def test_components_and_their_sizes_are_those_of_cc3d(seed, shape, chunk_shape, share, rules, within):
    """In volumes of any shape, chunks and density cc3d finds the same components, with the same numbers of voxels."""
    rng = np.random.default_rng(seed)
    case = random_case(rng, shape, kind="few", within=within, seeds_within=None, rules=rules)
    case.landscape[:] = np.where(rng.random(shape) < share, 200, 40)
    outcome = run(case, chunk_shape, ObjectRules(110, 110))
    wanted = of_cc3d(inside_of(case, 110), rules)
    assert same_partition(outcome.labels, wanted)
    sizes = cc3d.statistics(wanted, no_slice_conversion=True)["voxel_counts"][1:]
    assert sorted(outcome.objects[:, 1].tolist()) == sorted(sizes[sizes > 0].tolist())


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), CHUNKS, st.floats(0.03, 0.5), st.sampled_from([6, 26]), st.integers(1, 12))
def test_pieces_that_are_large_enough_are_those_that_cc3d_keeps(seed, chunk_shape, share, connectivity, min_size):
    """A mask with a least size holds the voxels that ``cc3d.dust`` leaves of the voxels above the threshold."""
    rng, rules = np.random.default_rng(seed), LandscapeRules(connectivity=connectivity)
    case = random_case(rng, (13, 14, 15), kind="few", within=share, seeds_within=None, rules=rules)
    inside = inside_of(case, 79).astype(np.uint8)
    found = run(case, chunk_shape, ObjectRules(79, 79, min_size=min_size)).labels
    np.testing.assert_array_equal(found > 0, cc3d.dust(inside, threshold=min_size, connectivity=connectivity) > 0)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), SMALL, CHUNKS, WHERE)
def test_if_each_summit_is_a_seed_objects_are_those_of_flooding(seed, shape, chunk_shape, within):
    """Of distinct heights all summits of which are seeds, scikit-image's watershed is the same in every voxel."""
    case = random_case(np.random.default_rng(seed), shape, kind="distinct", within=within, seeds_within=None)
    inside = inside_of(case, 20)
    heights = np.where(inside, case.landscape, 0)
    case.seeds_within = inside & (heights == ndimage.maximum_filter(heights, footprint=cross()))
    found, flooded, _ = both(case, chunk_shape, ObjectRules(20, 20))
    np.testing.assert_array_equal(found, flooded)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), SMALL, CHUNKS, st.sampled_from(["few", "smooth", "distinct"]), WHERE, WHERE, THRESHOLDS)
def test_objects_and_flooding_agree_where_the_forest_is_unique(seed, shape, chunk_shape, kind, within, seeds, levels):
    """Each voxel gets a seed that some spanning forest gives it; where that is one seed, scikit-image finds it too."""
    case = random_case(np.random.default_rng(seed), shape, kind=kind, within=within, seeds_within=seeds)
    found, flooded, markers = both(case, chunk_shape, ObjectRules(*levels))
    for voxel, choice in possible_seeds(case, markers, levels[0]).items():
        assert found[voxel] in choice
        assert flooded[voxel] in choice


@pytest.mark.parametrize("kind", ["smooth", "distinct"])
def test_the_comparison_with_flooding_has_unique_voxels_and_ties(kind):
    """Of the voxels that are compared, most have one possible seed, and some have several."""
    counts = defaultdict(int)
    for seed in range(20):
        case = random_case(np.random.default_rng(seed), (6, 6, 6), kind=kind, within=None, seeds_within=0.9)
        _, _, markers = both(case, (4, 4, 4), ObjectRules(30, 150))
        for choice in possible_seeds(case, markers, 30).values():
            counts[min(len(choice), 2)] += 1
    assert counts[1] > counts[2] > 20


def of_cc3d(where: np.ndarray, rules: LandscapeRules) -> np.ndarray:
    """The components that cc3d finds, int (z, y, x); of each section by itself if the rules say so."""
    if not rules.per_section:
        return cc3d.connected_components(where, connectivity=rules.connectivity, out_dtype=np.uint32).astype(int)
    found, count = np.zeros(where.shape, int), 0
    for labels, section in zip(found, where, strict=True):
        pieces = cc3d.connected_components(section, connectivity={6: 4, 26: 8}[rules.connectivity]).astype(int)
        labels[:] = np.where(pieces > 0, pieces + count, 0)
        count += int(pieces.max())
    return found


def cross() -> np.ndarray:
    return ndimage.generate_binary_structure(3, 1)


def same_partition(found: np.ndarray, wanted: np.ndarray) -> bool:
    """Whether two volumes of labels differ in the names of the labels only; 0 is 0 in both."""
    pairs = np.unique(np.stack([found.ravel(), wanted.ravel().astype(np.uint64)]), axis=1)
    one_to_one = all(len(np.unique(column)) == pairs.shape[1] for column in pairs)
    return one_to_one and bool(((pairs[0] == 0) == (pairs[1] == 0)).all())


def both(case: Case, chunk_shape, rules: ObjectRules):
    """Labels as numbers of the seeds, by petaseg and by scikit-image, and the seeds."""
    markers = slow_seeds(case, inside_of(case, rules.mask), rules)
    labels = run(case, chunk_shape, rules).labels
    found = np.zeros(labels.shape, int)
    for name in np.unique(labels[labels > 0]):
        (number,) = np.unique(markers[(labels == name) & (markers > 0)])
        found[labels == name] = number
    flooded = watershed(-case.landscape.astype(int), markers, mask=inside_of(case, rules.mask), connectivity=1)
    return found, flooded, markers


def possible_seeds(case: Case, markers: np.ndarray, mask: int) -> dict:
    """Voxel -> the numbers of the seeds that any maximum spanning forest gives it; {0} without a seed.

    Level by level, from the highest: pieces without a seed that pairs of this height connect may each get any seed
    that such a pair connects any of them with.
    """
    choice = {tuple(v): {int(markers[tuple(v)])} - {0} for v in np.argwhere(inside_of(case, mask)).tolist()}
    piece = {voxel: voxel for voxel in choice}
    pairs = defaultdict(list)
    for axis in case.rules.axes:
        for voxel in choice:
            before = tuple(v - (a == axis) for a, v in enumerate(voxel))
            if before in choice:
                pairs[int(min(case.landscape[voxel], case.landscape[before]))].append((voxel, before))
    for height in sorted(pairs, reverse=True):
        meet(choice, piece, pairs[height])
    return {voxel: seeds or {0} for voxel, seeds in choice.items()}


def meet(choice: dict, piece: dict, pairs: list) -> None:
    """One level: ``piece`` names that of each voxel without a seed."""
    offered = defaultdict(set)
    for one, other in pairs:
        if not choice[one] and not choice[other] and piece[one] != piece[other]:
            old, new = piece[one], piece[other]
            piece.update({voxel: new for voxel in piece if piece[voxel] == old})
    for one, other in (*pairs, *(pair[::-1] for pair in pairs)):
        if not choice[one]:
            offered[piece[one]] |= choice[other]
    for voxel in piece:
        if not choice[voxel]:
            choice[voxel] = set(offered[piece[voxel]])
