import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import sparse
from skimage import measure

from pipeline.training.config import NEAREST_AND_LONG_RANGE
from pipeline.training.targets import affinities, edge_padded_affinities, erode

SHAPES = arrays.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=6)
LABELS = arrays.arrays(np.int64, SHAPES, elements=st.integers(0, 3))
OFFSETS = st.lists(st.tuples(*[st.integers(-7, 7)] * 3), min_size=1, max_size=4)


def affinities_by_loops(labels, offsets, eroded):
    """The definition, voxel by voxel: targets and mask."""
    targets, mask = np.zeros((2, len(offsets), *labels.shape), np.float32)
    for k, offset in enumerate(offsets):
        for v in np.ndindex(labels.shape):
            w = tuple(int(a + b) for a, b in zip(v, offset, strict=True))
            if all(0 <= a < n for a, n in zip(w, labels.shape, strict=True)):
                targets[k][v] = eroded[v] == eroded[w] != 0
                mask[k][v] = labels[v] != 0 and labels[w] != 0
    return targets, mask


@settings(max_examples=60, deadline=None)
@given(labels=LABELS, offsets=OFFSETS)
def test_targets_and_mask_are_those_of_the_definition(labels, offsets):
    """Affinities and their mask equal those of a loop over all voxels, with and without erosion."""
    for eroded in (None, erode(labels)):
        expected = affinities_by_loops(labels, offsets, labels if eroded is None else eroded)
        for found, wanted in zip(affinities(labels, offsets, eroded), expected, strict=True):
            assert found.dtype == np.float32
            assert (found == wanted).all()


def test_the_default_offsets_are_those_of_the_definition():
    """All twelve default offsets give the affinities and masks of the definition, also those of long range."""
    labels = np.random.default_rng(0).integers(0, 3, (20, 5, 19))
    expected = affinities_by_loops(labels, NEAREST_AND_LONG_RANGE, labels)
    for found, wanted in zip(affinities(labels, NEAREST_AND_LONG_RANGE), expected, strict=True):
        assert (found == wanted).all()


def test_one_object_is_one_with_itself_everywhere():
    """In a volume filled by one object, every affinity inside of the mask is 1."""
    targets, mask = affinities(np.full((4, 5, 6), 7), [(-1, 0, 0), (0, 2, -1)])
    assert (targets == mask).all()
    assert mask[0].sum() == 3 * 5 * 6
    assert mask[1].sum() == 4 * 3 * 5


def test_an_offset_longer_than_the_patch_asks_nothing():
    """An offset longer than the patch has affinities and a mask of zeros."""
    targets, mask = affinities(np.ones((2, 3, 4), int), [(-2, 0, 0), (0, 0, 9)])
    assert not targets.any()
    assert not mask.any()


@settings(max_examples=60, deadline=None)
@given(labels=LABELS)
def test_erosion_empties_voxels_that_touch_another_label(labels):
    """Erosion empties exactly the voxels with a 6-neighbour of another label, and no others at the border."""
    before = labels.copy()
    eroded = erode(labels)
    assert (labels == before).all()
    for v in np.ndindex(labels.shape):
        near = [tuple(np.add(v, step)) for step in np.vstack([np.eye(3, dtype=int), -np.eye(3, dtype=int)])]
        inside = [w for w in near if all(0 <= a < n for a, n in zip(w, labels.shape, strict=True))]
        alike = all(labels[w] == labels[v] for w in inside)
        assert eroded[v] == (labels[v] if alike else 0)


def test_a_contact_becomes_a_wall_that_is_asked_about():
    """Voxels eroded between two touching objects have affinity 0 and stay inside of the mask."""
    labels = np.ones((1, 1, 6), int)
    labels[..., 3:] = 2
    targets, mask = affinities(labels, [(0, 0, -1)], erode(labels))
    assert targets[0, 0, 0].tolist() == [0, 1, 0, 0, 0, 1]
    assert mask[0, 0, 0].tolist() == [0, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("offset", [(-1, 0, 0), (0, -3, 0), (2, -1, 4)])
def test_turned_labels_have_turned_targets(offset):
    """The affinities of flipped labels are the flipped affinities for the opposite offset."""
    labels = np.random.default_rng(1).integers(0, 3, (5, 6, 7))
    opposite = tuple(-o for o in offset)
    flipped = affinities(labels[::-1, ::-1, ::-1], [offset])
    for found, wanted in zip(flipped, affinities(labels, [opposite]), strict=True):
        assert (found[0] == wanted[0, ::-1, ::-1, ::-1]).all()


@settings(max_examples=30, deadline=None)
@given(labels=LABELS)
def test_nearest_affinities_hold_the_whole_segmentation(labels):
    """Joining voxels along true nearest affinities gives the 6-connected parts of the objects."""
    nearest = [(-1, 0, 0), (0, -1, 0), (0, 0, -1)]
    targets, _ = affinities(labels, nearest)
    numbers = np.arange(labels.size).reshape(labels.shape)
    joined = [numbers[targets[k] > 0] for k in range(3)]
    partners = [part - np.prod(labels.shape[k + 1 :], dtype=int) for k, part in enumerate(joined)]
    rows, columns = np.concatenate(joined), np.concatenate(partners)
    graph = sparse.coo_matrix((np.ones(len(rows)), (rows, columns)), shape=(labels.size,) * 2)
    _, parts = sparse.csgraph.connected_components(graph, directed=False)
    expected = measure.label(labels, connectivity=1)
    pairs = np.unique(np.stack([parts.reshape(labels.shape)[labels > 0], expected[labels > 0]]), axis=1)
    assert len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]


def test_an_object_that_fills_the_patch_has_only_ones():
    """In a patch filled by one object, every edge-padded affinity is 1."""
    ones = edge_padded_affinities(np.full((4, 5, 6), 7), (1, 3, 3))
    assert ones.shape == (3, 4, 5, 6)
    assert (ones == 1).all()
