"""Objects are the same in any chunks, and those of a slow global loop over voxels."""

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.segmentation.objects.rules import LandscapeRules, ObjectRules
from tests.segmentation.objects.driver import random_case, run, slow_objects

SHAPES = st.tuples(*[st.integers(1, 8)] * 3)
LARGER = st.tuples(*[st.integers(3, 14)] * 3)
CASES = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["few", "smooth"]),
        "within": st.sampled_from([None, 0.6, 0.9]),
        "seeds_within": st.sampled_from([None, 0.5, 0.9]),
        "rules": st.builds(LandscapeRules, st.sampled_from([0, 39, 40]), st.booleans(), st.sampled_from([6, 26])),
    }
)


@st.composite
def object_rules(draw) -> ObjectRules:
    mask = draw(st.sampled_from([40, 79, 100, 130, 254]))
    seed = draw(st.sampled_from([mask, *(v for v in (100, 119, 140, 170, 254) if v > mask)]))
    sizes = st.sampled_from([0, 1, 2, 3, 5, 12])
    return ObjectRules(mask, seed, draw(sizes), draw(sizes), draw(st.sampled_from(["drop", "keep"])))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32), SHAPES, SHAPES, CASES, object_rules())
def test_any_chunks_give_the_objects_of_a_slow_global_loop(seed, shape, chunk_shape, options, rules):
    """Labels are those of a loop over all pairs of voxels, byte for byte, also where heights are equal."""
    case = random_case(np.random.default_rng(seed), shape, **options)
    found = run(case, chunk_shape, rules)
    np.testing.assert_array_equal(found.labels, slow_objects(case, rules))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), LARGER, CASES, object_rules())
@example(0, (12, 12, 12), {"kind": "few", "within": None, "seeds_within": 0.5}, ObjectRules(40, 119, 3, 5))
def test_larger_volumes_give_the_same_bytes_in_any_chunks(seed, chunk_shape, options, rules):
    """Any chunks give the same labels and sizes if clusters wait through several levels."""
    case = random_case(np.random.default_rng(seed), (24, 24, 24), **options)
    whole, parts = run(case, case.bounds.shape, rules), run(case, chunk_shape, rules)
    assert whole.labels.tobytes() == parts.labels.tobytes()
    assert whole.objects.tobytes() == parts.objects.tobytes()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), LARGER, CASES, object_rules())
def test_the_table_of_objects_has_the_voxels_of_each_label(seed, chunk_shape, options, rules):
    """The sizes that nodes report are those that one counts in the labels."""
    case = random_case(np.random.default_rng(seed), (16, 16, 16), **options)
    found = run(case, chunk_shape, rules)
    labels, voxels = np.unique(found.labels[found.labels > 0], return_counts=True)
    np.testing.assert_array_equal(found.objects, np.stack([labels, voxels.astype(np.uint64)], axis=1))


def test_some_volumes_in_small_chunks_have_the_objects_of_a_slow_global_loop():
    """The same for a few volumes with small seeds, so fast that mutations can be judged by it."""
    rules = ObjectRules(40, 79, min_seed=3, min_size=2)
    for seed in range(12):
        kind, connectivity = ("few", "smooth")[seed % 2], (6, 26)[seed // 2 % 2]
        options = {"within": None, "seeds_within": 0.5, "rules": LandscapeRules(connectivity=connectivity)}
        case = random_case(np.random.default_rng(seed), (5, 5, 6), kind=kind, **options)
        np.testing.assert_array_equal(run(case, (2, 3, 2), rules).labels, slow_objects(case, rules))
