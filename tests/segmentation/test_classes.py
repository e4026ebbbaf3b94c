"""The most probable class and the counts of classes are those that numpy finds."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.segmentation.classes import count_classes, most_probable

SHAPE = (5, 6, 7)


@pytest.mark.parametrize(("count", "levels"), [(2, 2), (5, 3), (256, 256), (256, 2)])
@pytest.mark.parametrize("masked", [False, True])
def test_classes_and_counts_are_those_of_numpy(count: int, levels: int, masked: bool) -> None:
    """Of equal numbers the first wins, voxels outside of the tissue are 0, and they are counted in no class."""
    stored = np.random.default_rng(count).integers(0, levels, (count, *SHAPE)).astype(np.uint8)
    tissue = np.random.default_rng(0).random(SHAPE) < 0.5 if masked else None
    found, inside = most_probable(stored, tissue), np.ones(SHAPE, bool) if tissue is None else tissue
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, np.where(inside, stored.argmax(0), 0))
    counts = count_classes(found, tissue)
    np.testing.assert_array_equal(counts, np.bincount(stored.argmax(0)[inside], minlength=256))


def test_what_is_stored_stays_as_it_is() -> None:
    stored = np.arange(2 * 8, dtype=np.uint8).reshape(2, 2, 2, 2)
    before = stored.copy()
    most_probable(stored, None)
    np.testing.assert_array_equal(stored, before)
