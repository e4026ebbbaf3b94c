"""Every patch is computed by one chunk, and what the chunks hand to each other adds up to the whole."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.geometry import BoundingBox
from pipeline.grid import ChunkGrid
from pipeline.inference.fixed_point import FixedPoint
from pipeline.inference.lattice import PatchLattice
from pipeline.inference.pieces import Pieces
from pipeline.inference.shares import PatchShares
from tests.inference.boxes import boxes_in, lattices, patient


@st.composite
def shares(draw, largest=24):
    lattice = draw(lattices(largest))
    roi = draw(boxes_in(lattice.bounds))
    chunk = tuple(draw(st.integers(max(1, n // 3), n + 2)) for n in roi.shape)
    return PatchShares(lattice, ChunkGrid(lattice.bounds, roi, chunk))


def covered(some, patches):
    """How many of these patches lie on each voxel of the region of interest."""
    counts = np.zeros(some.grid.roi.shape, int)
    for index in product(*patches):
        counts[some.lattice.box(index).intersect(some.grid.roi).slices(some.grid.roi.start)] += 1
    return counts


@patient
@given(shares())
def test_each_patch_that_touches_the_region_belongs_to_one_chunk(some):
    """It is the chunk that holds the first of its voxels in the region of interest."""
    grid, roi = some.grid, some.grid.roi
    own = [index for chunk in grid for index in product(*some.patches(chunk))]
    assert sorted(own) == some.lattice.touching(roi)
    assert len(own) == some.count
    for chunk in grid:
        for index in product(*some.patches(chunk)):
            first = some.lattice.box(index).intersect(roi).start
            assert grid.index_of(first) == chunk.index


@patient
@given(shares())
def test_finished_voxels_are_those_without_a_patch_of_another_chunk(some):
    every = covered(some, some.lattice.ranges(some.grid.roi))
    voxels = np.zeros(2, int)
    for chunk in some.grid:
        own = covered(some, some.patches(chunk))
        expected = (own > 0) & (own == every)
        found = np.zeros_like(expected)
        found[some.finished(chunk).slices(some.grid.roi.start)] = True
        np.testing.assert_array_equal(found, expected)
        assert some.reach(chunk).voxels == (own > 0).sum()
        voxels += expected.sum(), (own > 0).sum() - expected.sum()
    assert some.voxels() == tuple(voxels)


@patient
@given(shares())
def test_a_chunk_hands_a_piece_to_each_chunk_on_which_its_patches_lie(some):
    """The boxes of a piece cover the common voxels once; sources and targets are two views of the same pairs."""
    pairs = {(source.index, target.index) for source in some.grid for target in some.targets(source)}
    assert pairs == {(source.index, target.index) for target in some.grid for source in some.sources(target)}
    for source in some.grid:
        for target in some.targets(source):
            finished, others = some.pieces(source, target)
            common = some.reach(source).intersect(target.core)
            counts = np.zeros(common.shape, int)
            for box in (finished, *others):
                counts[box.slices(common.start)] += 1
            assert (counts == 1).all()
            assert len(others) <= 6
            assert not any(box.empty for box in others)


@patient
@given(shares(16), st.sampled_from([(0.0,), (0.0, 1.0)]), st.integers(0, 9))
def test_joined_pieces_are_the_bytes_of_all_patches(some, outside, seed):
    """Any chunks give the bytes that one sum over all patches gives, also where patches without image are left out."""
    rng, grid, roi = np.random.default_rng(seed), some.grid, some.grid.roi
    scale = FixedPoint.of(some.lattice)
    patches = {
        index: rng.integers(-scale.one // 64, scale.one // 64, (len(outside), *some.lattice.patch_shape))
        for index in some.lattice.touching(roi)
        if rng.random() > 0.4
    }

    def sums(box, indices):
        total = np.zeros((len(outside), *box.shape), np.int64)
        for index in indices:
            if index in patches:
                patch = some.lattice.box(index)
                common = patch.intersect(box)
                total[:, *common.slices(box.start)] += patches[index][:, *common.slices(patch.start)]
        return np.clip(total, -scale.one, scale.one).astype(scale.dtype)

    pieces = Pieces(some, outside)
    stored = {chunk.index: pieces.cut(sums(some.reach(chunk), product(*some.patches(chunk))), chunk) for chunk in grid}
    expected = scale.to_uint8(sums(roi, patches), outside)
    for target in grid:
        read = [(source, stored[source.index].pop(target.name, None)) for source in reversed(some.sources(target))]
        block = pieces.join(read, target)
        np.testing.assert_array_equal(block, expected[:, *target.core.slices(roi.start)])
    assert not any(stored.values())  # every piece was read, and once
    if len(patches) == some.count:
        assert pieces.bytes_stored >= sum(piece.nbytes for each in stored.values() for piece in each.values())


def test_a_chunk_hands_little_on_where_patches_are_not_computed_twice():
    """At chunks of 128 and patches of 64 that overlap by 16, each voxel is stored about twice."""
    bounds = BoundingBox.from_shape((4800, 4800, 4800))
    some = PatchShares(PatchLattice(bounds, (64, 64, 64), (16, 16, 16)), ChunkGrid(bounds, bounds, (128, 128, 128)))
    finished, others = some.voxels()
    assert 0.6 < finished / bounds.voxels < 0.7
    assert 0.7 < others / bounds.voxels < 0.8
    assert Pieces(some, (0.0,) * 3).bytes_stored == 3 * (finished + 2 * others)


def test_dividing_the_patches_of_a_petavoxel_is_immediate():
    bounds = BoundingBox.from_shape((100_000, 100_000, 100_000))
    lattice = PatchLattice(bounds, (64, 128, 128), (16, 32, 32))
    some = PatchShares(lattice, ChunkGrid(bounds, bounds, (480, 960, 960)))
    assert some.count == len(lattice)
    assert sum(some.voxels()) > bounds.voxels


def test_a_grid_over_other_bounds_is_refused():
    lattice = PatchLattice(BoundingBox.from_shape((9, 9, 9)), (4, 4, 4), (0, 0, 0))
    other = BoundingBox.from_shape((9, 9, 8))
    with pytest.raises(ConfigError, match="same bounds"):
        PatchShares(lattice, ChunkGrid(other, other, (4, 4, 4)))
