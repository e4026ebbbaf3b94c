"""The blocks of a pyramid against a plain loop over numpy arrays."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.geometry import Vec
from pipeline.segmentation.pyramid import majority, mean, most_frequent

SIDES = st.tuples(*[st.integers(1, 7)] * 3)
STARTS = st.tuples(*[st.integers(-5, 5)] * 3).map(lambda start: Vec(*start))
STEPS = st.sampled_from([Vec(2, 2, 2), Vec(1, 2, 2), Vec(2, 1, 1), Vec(1, 1, 1)])


def blocks(array: np.ndarray, factor: Vec, start: Vec, of_block) -> np.ndarray:
    """``of_block`` of the voxels of each block, by a loop over the blocks in global coordinates."""
    first = start // factor
    shape = (start + array.shape).ceil_div(factor) - first
    result = np.zeros(shape, array.dtype)
    for index in product(*map(range, shape)):
        low = ((first + index) * factor - start).maximum(0)
        high = ((first + index) * factor + factor - start).minimum(array.shape)
        result[index] = of_block(array[tuple(map(slice, low, high))].ravel())
    return result


def most(voxels: np.ndarray) -> int:
    ids, counts = np.unique(voxels[voxels != 0], return_counts=True)
    return 0 if not len(ids) else int(ids[counts == counts.max()].min())


def commonest(voxels: np.ndarray) -> int:
    return int(np.bincount(voxels).argmax())


def rounded(voxels: np.ndarray) -> int:
    return int(np.rint(np.float64(voxels.astype(np.int64).sum()) / len(voxels)))


@given(
    SIDES, STARTS, STEPS, st.integers(0, 2**32), st.sampled_from([np.uint8, np.uint32, np.uint64]), st.integers(2, 6)
)
def test_labels_are_the_majority_of_each_block(shape, start, factor, seed, dtype, ids) -> None:
    """Ties go to the smaller id, and 0 counts only where a block has nothing else, at every size and offset."""
    labels = np.random.default_rng(seed).integers(0, ids, shape).astype(dtype)
    assert np.array_equal(majority(labels, factor, start), blocks(labels, factor, start, most))


@given(SIDES, STARTS, STEPS, st.integers(0, 2**32), st.integers(2, 6))
def test_zero_counts_in_a_block_of_classes(shape, start, factor, seed, classes) -> None:
    """The class that most voxels of a block have is that of the block, 0 among them, of several the smallest."""
    found = np.random.default_rng(seed).integers(0, classes, shape).astype(np.uint8)
    assert np.array_equal(most_frequent(found, factor, start), blocks(found, factor, start, commonest))


@given(SIDES, STARTS, STEPS, st.integers(0, 2**32), st.sampled_from([np.uint8, np.int16, np.uint32]))
def test_images_are_the_mean_of_each_block_halves_to_even(shape, start, factor, seed, dtype) -> None:
    """``np.rint`` of an exact quotient rounds halves to the even number, also of negative means."""
    low, high = max(-300, np.iinfo(dtype).min), min(300, np.iinfo(dtype).max)
    values = np.random.default_rng(seed).integers(low, high, shape, endpoint=True).astype(dtype)
    assert np.array_equal(mean(values, factor, start), blocks(values, factor, start, rounded))


@given(SIDES, STARTS, st.integers(0, 2**32))
def test_channels_are_averaged_one_by_one(shape, start, seed) -> None:
    """Each channel of (c, z, y, x) is what it is alone."""
    values = np.random.default_rng(seed).integers(0, 256, (3, *shape)).astype(np.uint8)
    together, factor = mean(values, Vec(2, 2, 2), start), Vec(2, 2, 2)
    assert all(np.array_equal(one, mean(values[k], factor, start)) for k, one in enumerate(together))


@pytest.mark.parametrize("id_", [2**63, 2**64 - 1])
def test_the_largest_ids_stay_exact(id_) -> None:
    """Ids above 2**63 are compared as unsigned numbers."""
    labels = np.array([[[id_, id_], [1, 1]]], np.uint64)
    assert majority(labels, Vec(1, 2, 2), Vec(0, 0, 0)).item() == 1
    labels[0, 1, 1] = id_
    assert majority(labels, Vec(1, 2, 2), Vec(0, 0, 0)).item() == id_


def test_a_thin_neurite_survives() -> None:
    """One labelled voxel of eight is enough."""
    labels = np.zeros((2, 2, 2), np.uint64)
    labels[1, 0, 1] = 7
    assert majority(labels, Vec(2, 2, 2), Vec(0, 0, 0)).item() == 7
