import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.training.targets import erode_in_plane, foreground
from tests.training.targets.usual import contours, membranes

HUGE = 2**63 - 3
"""Ids this large are not exact in float64."""


def two_cells(shape=(3, 6, 8)):
    labels = np.full(shape, 4)
    labels[..., shape[-1] // 2 :] = 9
    return labels


def meets_by_loops(labels, reach, sizes, in_plane):
    """A voxel of another cell within reach, by definition."""
    found = np.zeros(labels.shape, bool)
    places = np.argwhere(labels != 0)
    for v in places:
        apart = (places - v) * sizes
        near = (apart**2).sum(1) <= reach**2
        if in_plane:
            near &= (places[:, :-2] == v[:-2]).all(1)
        found[tuple(v)] = (labels[tuple(places[near].T)] != labels[tuple(v)]).any()
    return found


@pytest.mark.parametrize(
    ("reach", "sizes", "in_plane"),
    [(1, (1, 1, 1), True), (2, (1, 1, 1), False), (8, (30, 4, 4), True), (30, (30, 8, 8), False)],
)
def test_membranes_are_those_of_the_definition(reach, sizes, in_plane):
    labels = np.random.default_rng(0).integers(0, 2, (4, 7, 8)).cumsum(-1) // 3
    target, mask = membranes(labels, reach=reach, resolution=sizes, in_plane=in_plane)
    assert target.dtype == mask.dtype == np.float32
    assert np.array_equal(target[0] > 0, meets_by_loops(labels, reach, sizes, in_plane))


def test_what_may_touch_an_unknown_cell_is_not_asked():
    """Voxels that may touch an unlabelled cell are outside of the mask of the membrane target."""
    labels = np.array([[1, 1, 1, 0, 0, 2, 2, 3, 3]])
    target, mask = membranes(labels)
    assert target.tolist() == [[[0, 0, 0, 0, 0, 0, 1, 1, 0]]]
    assert mask.tolist() == [[[1, 1, 0, 0, 0, 0, 1, 1, 1]]]


def test_zero_may_be_membrane_or_background():
    labels = np.array([[1, 1, 0, 2, 2]])
    drawn, mask = membranes(labels, zero="membrane")
    assert drawn.tolist() == [[[0, 0, 1, 0, 0]]]
    assert mask.all()
    drawn, mask = membranes(labels, zero="background")
    assert drawn.tolist() == [[[0, 1, 1, 1, 0]]]
    assert mask.all()


def test_a_section_has_no_membrane_with_the_next_one_unless_asked():
    labels = np.array([[[1, 1]], [[2, 2]]])
    assert not membranes(labels)[0].any()
    assert membranes(labels, in_plane=False)[0].all()


def test_a_reach_below_one_voxel_is_refused():
    with pytest.raises(ConfigError, match="at least one voxel"):
        membranes(two_cells(), reach=5, resolution=(40, 8, 8))


def test_huge_ids_are_told_apart():
    """Membranes, contours and erosion tell ids apart that float64 would round to the same number."""
    labels = np.where(two_cells() == 4, HUGE, HUGE + 1).astype(np.uint64)
    assert np.array_equal(membranes(labels)[0], membranes(two_cells())[0])
    assert np.array_equal(contours(labels, background=False), contours(two_cells(), background=False))
    assert np.array_equal(erode_in_plane(labels) > 0, erode_in_plane(two_cells()) > 0)


def test_contours_between_objects_ignore_the_background():
    labels = two_cells()
    labels[:, :2] = 0
    assert contours(labels)[0, 0, 1].any()
    assert not contours(labels, background=False)[0, 0, :1].any()
    assert not contours(labels, dilation=0, background=False).any()


def test_foreground_is_any_object():
    assert foreground(np.array([[0, 3], [HUGE, 0]])).tolist() == [[[0, 1], [1, 0]]]


def test_erosion_leaves_the_labels_themselves_alone():
    labels = two_cells()
    before = labels.copy()
    assert (erode_in_plane(labels)[:, :, 3:5] == 0).all()
    assert (labels == before).all()
