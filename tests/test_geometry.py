"""Boxes are half-open, in z, y, x, and refuse wrong coordinates."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import BoundsError, ConfigError
from pipeline.geometry import BoundingBox, as_vec, linear_index

side = st.integers(-50, 50)


@st.composite
def boxes(draw):
    start = draw(st.tuples(side, side, side))
    shape = draw(st.tuples(*[st.integers(0, 30)] * 3))
    return BoundingBox.from_shape(shape, start)


@given(boxes(), boxes())
def test_the_intersection_holds_exactly_the_common_voxels(a, b):
    """The intersection of two boxes holds exactly their common voxels; it may be empty, as at the dataset's border."""
    both = a.intersect(b)
    per_axis = [
        len(set(range(*ra)) & set(range(*rb)))
        for ra, rb in zip(zip(a.start, a.stop, strict=True), zip(b.start, b.stop, strict=True), strict=True)
    ]
    assert both.voxels == per_axis[0] * per_axis[1] * per_axis[2]
    assert a.contains(both)
    assert b.contains(both)


@given(boxes(), st.tuples(*[st.integers(0, 5)] * 3))
def test_growing_adds_voxels_on_both_sides(box, halo):
    grown = box.grow(halo)
    assert grown.shape == tuple(n + 2 * h for n, h in zip(box.shape, halo, strict=True))
    assert grown.contains(box)


def test_a_box_that_is_inside_out_is_refused_with_its_numbers():
    with pytest.raises(BoundsError, match=r"5\.\.2"):
        BoundingBox((5, 0, 0), (2, 4, 4))


@pytest.mark.parametrize("value", [[1, 2], [1, 2, 3.5], "abc", 7, None])
def test_a_vector_must_be_three_whole_numbers(value):
    with pytest.raises((ConfigError, ValueError)):
        as_vec(value, "shape")


def test_the_linear_index_counts_in_the_full_bounds():
    """The linear index counts within the bounds of the dataset, so supervoxel ids do not depend on chunk or region."""
    bounds = BoundingBox((10, 20, 30), (14, 25, 36))
    assert linear_index((10, 20, 30), bounds) == 0
    assert linear_index((13, 24, 35), bounds) == bounds.voxels - 1
    assert linear_index((11, 20, 30), bounds) == 5 * 6
