"""Sizes add up over any parts, and their classes are monotone and narrow."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.segmentation.sizes import CLASSES, NAMED, Sizes, class_of

SIZES = st.lists(st.integers(0, 10**6), max_size=60)


@settings(max_examples=60, deadline=None)
@given(SIZES, st.integers(1, 5))
def test_parts_add_up_to_the_whole(sizes, parts):
    """Any split gives the same classes and the same largest segments, in the same order."""
    ids, sizes = np.arange(1, len(sizes) + 1, dtype=np.uint64) * np.uint64(7), np.array(sizes, np.int64)
    whole = Sizes.of(ids, sizes)
    summed = Sizes.sum([Sizes.of(ids[part::parts], sizes[part::parts]) for part in range(parts)])
    stored = Sizes.from_arrays(summed.to_arrays())
    for found in (summed, stored):
        for name in ("counts", "voxels", "largest"):
            np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))
    assert (whole.count, whole.total) == ((sizes > 0).sum(), sizes.sum())
    order = sorted(zip((-sizes).tolist(), ids.tolist(), strict=True))[:NAMED]
    assert whole.largest.tolist() == [[name, -size] for size, name in order if size]


def test_classes_are_monotone_and_three_in_a_hundred_wide():
    sizes = np.unique(
        np.concatenate([np.arange(5000), 2 ** np.arange(63) - 1, 2 ** np.arange(63), 2 ** np.arange(63) + 1])
    )
    place = class_of(sizes)
    assert (np.diff(place) >= 0).all()
    assert (place[:64] == np.arange(64)).all()
    assert place.max() < CLASSES
    assert class_of(np.array([2**63 - 1])).max() < CLASSES
    for one in np.unique(place):
        inside = sizes[place == one].astype(float)
        assert inside.max() <= inside.min() * (1 + 1 / 32)


def test_nothing_has_no_sizes():
    nothing = Sizes.of(np.empty(0, np.uint64), np.empty(0, np.int64))
    assert (nothing.count, nothing.total, nothing.quantile(0.5), nothing.half_of_the_volume()) == (0, 0, 0, 0)
    assert nothing.below(64) == 0


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 300), min_size=1, max_size=30), st.lists(st.integers(1, 300), max_size=6), st.data())
def test_segments_are_replaced_by_others(sizes, new, data):
    """Counts and voxels are those of the new segments; those that are named as the largest are the largest."""
    ids, sizes = np.arange(1, len(sizes) + 1, dtype=np.uint64), np.array(sizes, np.int64)
    gone = np.array(data.draw(st.lists(st.booleans(), min_size=len(ids), max_size=len(ids))))
    new_ids, new = np.arange(101, 101 + len(new), dtype=np.uint64), np.array(new, np.int64)
    found = Sizes.of(ids, sizes).replaced((ids[gone], sizes[gone]), (new_ids, new))
    expected = Sizes.of(np.concatenate([ids[~gone], new_ids]), np.concatenate([sizes[~gone], new]))
    np.testing.assert_array_equal(found.counts, expected.counts)
    np.testing.assert_array_equal(found.voxels, expected.voxels)
    assert found.largest.tolist() == expected.largest.tolist()[: len(found.largest)]
    if len(ids) <= NAMED:
        assert len(found.largest) == len(expected.largest)


def test_a_new_segment_that_others_may_exceed_is_not_named():
    """Once some of the named segments are gone, an unnamed one may be larger than a small new one."""
    sizes = 10 * np.arange(1, NAMED + 3)
    before = Sizes.of(np.arange(1, NAMED + 3, dtype=np.uint64), sizes)
    largest = np.array([NAMED + 1, NAMED + 2], np.uint64), sizes[-2:]
    after = before.replaced(largest, (np.array([100, 101], np.uint64), np.array([5, 1000])))
    assert after.largest[:, 0].tolist() == [101, *range(NAMED, 2, -1)]
