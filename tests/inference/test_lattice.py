"""The patch lattice agrees with its definition, spelled out voxel by voxel."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import BoundsError, ConfigError
from pipeline.geometry import BoundingBox
from pipeline.inference.lattice import PatchLattice
from tests.inference.boxes import boxes_in, lattices, patient


def indices(lattice):
    return list(product(*(range(n) for n in lattice.counts)))


@patient
@given(lattices())
def test_patches_cover_the_dataset_and_stay_inside_it(lattice):
    covered = np.zeros(lattice.bounds.shape, bool)
    for index in indices(lattice):
        box = lattice.box(index)
        assert box.shape == lattice.patch_shape
        inside = box.intersect(lattice.bounds)
        larger = [n >= p for n, p in zip(lattice.bounds.shape, lattice.patch_shape, strict=True)]
        kept = [a == b for a, b in zip(inside.shape, box.shape, strict=True)]
        assert all(k or not n for k, n in zip(kept, larger, strict=True))
        covered[inside.slices(lattice.bounds.start)] = True
    assert covered.all()
    assert len(lattice) == len(indices(lattice))


@patient
@given(lattices())
def test_a_patch_begins_a_stride_after_the_one_before_except_the_last(lattice):
    for axis, n in enumerate(lattice.counts):
        places = [lattice.position(axis, i) for i in range(n)]
        steps = np.diff(places)
        assert (steps[:-1] == lattice.stride[axis]).all()
        assert all(0 < step <= lattice.stride[axis] for step in steps[-1:])
        end = places[-1] + lattice.patch_shape[axis]
        assert end == max(lattice.bounds.stop[axis], places[0] + lattice.patch_shape[axis])


@patient
@given(st.data())
def test_touching_lists_exactly_the_patches_that_meet_the_core_in_lattice_order(data):
    lattice = data.draw(lattices())
    core = data.draw(boxes_in(lattice.bounds))
    assert lattice.touching(core) == [i for i in indices(lattice) if not lattice.box(i).intersect(core).empty]


@patient
@given(st.data())
def test_the_support_is_the_box_around_the_touching_patches_inside_the_bounds(data):
    lattice = data.draw(lattices())
    core = data.draw(boxes_in(lattice.bounds))
    boxes = [lattice.box(i).intersect(lattice.bounds) for i in lattice.touching(core)]
    support = lattice.support(core)
    assert support.start == tuple(min(b.start[a] for b in boxes) for a in range(3))
    assert support.stop == tuple(max(b.stop[a] for b in boxes) for a in range(3))
    assert support.contains(core)


@patient
@given(st.data())
def test_patches_along_an_axis_are_found_by_where_they_begin_and_by_what_they_touch(data):
    lattice = data.draw(lattices())
    axis = data.draw(st.integers(0, 2))
    start, stop = sorted(data.draw(st.tuples(st.integers(-20, 60), st.integers(-20, 60))))
    begins = [lattice.position(axis, i) for i in range(lattice.counts[axis])]
    within = [i for i, begin in enumerate(begins) if start <= begin < stop]
    assert list(lattice.beginning(axis, start, stop)) == within
    touching = [i for i, begin in enumerate(begins) if begin < stop and start < begin + lattice.patch_shape[axis]]
    assert start == stop or list(lattice.on_axis(axis, start, stop)) == touching


def test_a_small_image_is_reflected_at_its_end_up_to_the_patch():
    lattice = PatchLattice(BoundingBox.from_shape((1, 2, 9)), (2, 5, 4), (0, 0, 0))
    image = np.arange(18).reshape(1, 2, 9)
    padded = lattice.pad(image)
    assert padded.shape == (2, 5, 9)
    np.testing.assert_array_equal(padded[0], image[0][[0, 1, 0, 1, 0]])
    np.testing.assert_array_equal(padded[0], padded[1])


@pytest.mark.parametrize(
    ("patch", "overlap"), [((0, 4, 4), (0, 0, 0)), ((4, 4, 4), (0, 4, 0)), ((4, 4, 4), (0, 0, -1))]
)
def test_impossible_patches_and_overlaps_are_refused(patch, overlap):
    with pytest.raises(ConfigError, match=r"must be at least|every side"):
        PatchLattice(BoundingBox.from_shape((9, 9, 9)), patch, overlap)


def test_an_empty_dataset_is_refused():
    with pytest.raises(ConfigError, match="must hold a voxel"):
        PatchLattice(BoundingBox.from_shape((9, 0, 9)), (4, 4, 4), (0, 0, 0))


def test_cores_outside_the_dataset_and_patches_outside_the_lattice_are_refused():
    lattice = PatchLattice(BoundingBox.from_shape((9, 9, 9)), (4, 4, 4), (0, 0, 0))
    for core in (BoundingBox((0, 0, 0), (9, 9, 10)), BoundingBox((1, 1, 1), (1, 2, 2))):
        with pytest.raises(BoundsError, match="non-empty part"):
            lattice.touching(core)
    with pytest.raises(BoundsError, match="not in the lattice"):
        lattice.box((0, 0, 3))
