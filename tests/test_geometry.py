"""Boxes and vectors are half-open, in z, y, x, and refuse wrong coordinates."""

import json
import pickle
from operator import add, floordiv, mod, mul, sub

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import BoundsError, ConfigError
from pipeline.geometry import BoundingBox, Vec, as_vec

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


vectors = st.builds(Vec, side, side, side)
positive = st.builds(Vec, *[st.integers(1, 9)] * 3)
OPERATORS = (add, sub, mul, floordiv, mod)


@given(vectors, positive)
def test_vectors_calculate_as_numpy_does(a, b):
    """Every operator agrees with numpy, axis by axis, with a vector, a plain tuple or an integer on either side."""
    for operate in OPERATORS:
        assert operate(a, b) == operate(a, tuple(b)) == tuple(operate(np.array(a), np.array(b)))
        assert operate(a, b.x) == tuple(operate(np.array(a), b.x))
        assert type(operate(a, b)) is type(operate(a, tuple(b))) is type(operate(a, b.x)) is Vec
    for operate in (add, sub, mul):
        assert operate(tuple(a), b) == operate(a, b)
        assert operate(a.x, b) == tuple(operate(a.x, np.array(b)))
    assert (-a, abs(a)) == (tuple(-np.array(a)), tuple(np.abs(a)))
    assert a.ceil_div(b) == tuple(np.ceil(np.array(a) / b).astype(int))
    assert a.minimum(b) == tuple(np.minimum(a, b))
    assert a.maximum(b.x) == tuple(np.maximum(a, b.x))


@given(vectors, vectors)
def test_vectors_are_compared_axis_by_axis(a, b):
    """``at_most``, ``below`` and ``indexes`` ask all axes; ``<`` stays the order of tuples."""
    assert a.at_most(b) == np.less_equal(a, b).all()
    assert a.below(b) == np.less(a, b).all()
    assert a.indexes(b) == all(0 <= i < n for i, n in zip(a, b, strict=True))
    assert (a < b) == (tuple(a) < tuple(b))


@given(vectors)
def test_a_vector_is_a_plain_tuple_in_all_else(a):
    """It equals its tuple, and hashes, prints, pickles and serialises as that does; fingerprints rest on it."""
    plain = (a.z, a.y, a.x)
    assert a == plain
    assert hash(a) == hash(plain)
    assert (str(a), repr(a), f"{a}") == (str(plain), repr(plain), f"{plain}")
    assert json.dumps(a) == json.dumps(plain)
    copied = pickle.loads(pickle.dumps(a))
    assert copied == a
    assert type(copied) is Vec
    assert np.zeros(abs(a).minimum(3)).shape == abs(a).minimum(3)


@pytest.mark.parametrize("other", [2.0, (1.0, 2.0, 3.0), (1,), (1, 2, 3, 4), "abc", None])
def test_vectors_refuse_what_is_no_vector(other):
    """Neither floats nor other lengths pass, and no operator joins or repeats tuples."""
    vec = Vec(1, 2, 3)
    for operate in (*OPERATORS, Vec.ceil_div, Vec.minimum, Vec.maximum, Vec.at_most, Vec.below):
        with pytest.raises(TypeError):
            operate(vec, other)


def test_a_vector_still_extends_the_shapes_of_others():
    """Libraries that put an axis before a shape get it."""
    assert (1, *Vec(2, 3, 4)) == (1,) + Vec(2, 3, 4) == (1, 2, 3, 4)  # noqa: RUF005
