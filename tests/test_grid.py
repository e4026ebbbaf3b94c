"""The chunk grid: cores tile the region, and the tree above them covers each chunk once."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.geometry import BoundingBox
from pipeline.grid import ChunkGrid


@st.composite
def grids(draw):
    start = draw(st.tuples(*[st.integers(-20, 20)] * 3))
    bounds = BoundingBox.from_shape(draw(st.tuples(*[st.integers(1, 24)] * 3)), start)
    low = [draw(st.integers(a, b - 1)) for a, b in zip(bounds.start, bounds.stop, strict=True)]
    high = [draw(st.integers(a + 1, b)) for a, b in zip(low, bounds.stop, strict=True)]
    shape = draw(st.tuples(*[st.integers(1, 12)] * 3))
    halo = draw(st.tuples(*[st.integers(0, 3)] * 3))
    return ChunkGrid(bounds, BoundingBox(tuple(low), tuple(high)), shape, (halo, halo))


@settings(max_examples=60, deadline=None)
@given(grids())
def test_cores_tile_the_region_and_nothing_else(grid):
    """The cores of all chunks cover each voxel of the region exactly once, and no voxel outside it."""
    hits = np.zeros(grid.bounds.shape, int)
    for chunk in grid:
        hits[chunk.core.slices(grid.bounds.start)] += 1
        assert chunk.read_box.contains(chunk.core)
        assert grid.roi.contains(chunk.read_box)
    expected = np.zeros_like(hits)
    expected[grid.roi.slices(grid.bounds.start)] = 1
    assert (hits == expected).all()


@settings(max_examples=60, deadline=None)
@given(grids())
def test_positions_and_indices_are_inverse(grid):
    """A chunk's position in the grid and its index determine each other; the ledger stores the position."""
    indices = list(grid.indices())
    assert [grid.position(index) for index in indices] == list(range(len(grid)))
    assert [grid.index_at(n) for n in range(len(grid))] == indices


@settings(max_examples=60, deadline=None)
@given(grids())
def test_each_level_covers_the_one_below_exactly_once(grid):
    """Each node of a level is the child of exactly one node of the level above, so agglomeration visits it once."""
    levels = grid.levels()
    assert len(levels[-1]) == 1
    for below, above in pairwise(levels):
        children = [child.index for chunk in above for child in below.children(chunk)]
        assert sorted(children) == sorted(below.indices())
        for chunk in above:
            assert sum(child.core.voxels for child in below.children(chunk)) == chunk.core.voxels


@given(grids())
def test_the_grid_does_not_depend_on_the_region_of_interest(grid):
    """A region of interest cuts the dataset at the same voxels as the grid over the whole dataset."""
    whole = ChunkGrid(grid.bounds, grid.bounds, grid.shape)
    for chunk in grid:
        assert whole.chunk(chunk.index).core.contains(chunk.core)


def test_a_chunk_outside_the_grid_is_refused():
    grid = ChunkGrid(BoundingBox((0, 0, 0), (8, 8, 8)), BoundingBox((0, 0, 0), (8, 8, 8)), (4, 4, 4))
    with pytest.raises(ConfigError, match="not in the grid"):
        grid.chunk((2, 0, 0))


def test_an_empty_region_is_refused():
    box = BoundingBox((0, 0, 0), (8, 8, 8))
    with pytest.raises(ConfigError, match="region of interest"):
        ChunkGrid(box, BoundingBox((4, 4, 4), (4, 8, 8)), (4, 4, 4))
