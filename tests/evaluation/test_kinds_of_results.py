"""Masks and objects of volumes have the same scores in any blocks, and settings that mean nothing are refused."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError, VolumeError
from pipeline.evaluation import compare_masks as masks_module
from pipeline.evaluation.compare_masks import compare_masks
from pipeline.evaluation.compare_objects import compare_objects
from pipeline.evaluation.contingency import Contingency
from pipeline.evaluation.kinds import Settings, compare_as, pair_of
from pipeline.evaluation.masks import ValueCounts
from pipeline.evaluation.objects import score_objects
from pipeline.evaluation.pairs import Pair
from pipeline.geometry import BoundingBox, Vec
from pipeline.volumes.base import VolumeSpec
from pipeline.volumes.memory import MemoryVolume


def volume(array, start=(2, 0, -3), resolution_nm=(40.0, 4.0, 4.0), name="volume"):
    box = BoundingBox.from_shape(array.shape[-3:], start)
    channels = len(array) if array.ndim == 4 else None
    return MemoryVolume(name, VolumeSpec(box, resolution_nm, array.dtype, channels), array, writable=False)


def pair_for(truth, predicted, **more):
    first, second = volume(truth, name="truth"), volume(predicted, name="labels")
    return Pair(first, second, first.bounds, **more)


def blobs(seed, shape=(6, 9, 11)):
    """Labels that reach over several blocks, some of them not scored, and a prediction that resembles them."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(-1, 5, tuple(side // 3 + 1 for side in shape))
    truth = coarse.repeat(3, 0).repeat(3, 1).repeat(3, 2)[: shape[0], : shape[1], : shape[2]]
    kept = rng.random(shape) < 0.9
    return truth, np.where(kept, np.maximum(truth, 0) * 7, rng.integers(0, 40, shape)).astype(np.uint32)


BLOCKS = st.tuples(*[st.integers(1, 12)] * 3)


@given(st.integers(0, 2**32), BLOCKS)
@settings(max_examples=40)
def test_blocks_change_no_byte_of_the_scores_of_objects(seed, block):
    """The JSON of objects, with sections and sizes, is the same in any blocks."""
    pair = pair_for(*blobs(seed))
    whole, parts = (
        json.dumps(compare_objects(pair, sections=True, size_limits=(30, 60), block=Vec(*shape)).to_dict())
        for shape in ((99, 99, 99), block)
    )
    assert parts == whole


@given(st.integers(0, 2**32), BLOCKS, st.sampled_from(["uint8", "float32", "uint32"]))
@settings(max_examples=40)
def test_blocks_change_no_byte_of_the_scores_of_masks(seed, block, dtype):
    """The JSON of a mask or of probabilities, with sections and distances, is the same in any blocks."""
    truth, predicted = blobs(seed)
    predicted = predicted.astype(dtype) / (np.float32(40) if dtype == "float32" else 1)
    pair = pair_for(truth, predicted.astype(dtype))
    whole, parts = (
        json.dumps(compare_masks(pair, cap_nm=17.3, sections=True, block=Vec(*shape)).to_dict())
        for shape in ((99, 99, 99), block)
    )
    assert parts == whole


def test_sections_are_scored_as_pictures_of_their_own():
    """Each section has the scores of its two planes; the mean leaves out sections without a true object."""
    truth, predicted = blobs(1)
    truth[2], truth[3] = 0, -1
    found = compare_objects(pair_for(truth, predicted), sections=True, block=Vec(4, 4, 4)).sections
    assert list(found.sections) == [2, 3, 4, 6, 7]
    each = {
        z: score_objects(Contingency.from_labels(truth[z - 2], predicted[z - 2], background=True))
        for z in found.sections
    }
    assert found.sections == each
    assert found.to_dict()["sections"] == 4
    assert found.to_dict()["ap_50"] == pytest.approx(np.mean([each[z].at(0.5).ap for z in (2, 3, 6, 7)]))
    values = (predicted * 5).clip(0, 255).astype(np.uint8)
    planes = compare_masks(pair_for(truth, values), sections=True).sections
    counts = {z: ValueCounts.of(truth[z - 2], values[z - 2]) for z in planes.sections}
    assert planes.to_dict()["average_precision"] == pytest.approx(
        np.mean([counts[z].average_precision() for z in (2, 3, 6, 7)])
    )
    assert planes.to_dict()["each"][1] == {
        "z": 3,
        **counts[3].at(128).to_dict(),
        "average_precision": counts[3].average_precision(),
    }


def test_probabilities_have_a_threshold_and_masks_have_none():
    """uint8 of one value is a mask unless a threshold is given; the threshold in use is 0.5 where none is given."""
    truth, predicted = blobs(2)
    one_value = (predicted > 0).astype(np.uint8)
    mask = compare_masks(pair_for(truth, one_value))
    assert (mask.is_mask, mask.average_precision, mask.best) == (True, None, None)
    assert (
        mask.mask
        == compare_masks(pair_for(truth, predicted)).mask
        == compare_masks(pair_for(truth, predicted > 0)).mask
    )
    given_one = compare_masks(pair_for(truth, one_value), threshold=0.5)
    assert (given_one.is_mask, given_one.mask.tp) == (False, 0)
    assert given_one.average_precision == ValueCounts.of(truth, one_value).average_precision()
    values = (predicted * 5).clip(0, 255).astype(np.uint8)
    assert compare_masks(pair_for(truth, values)).to_dict()["foreground_from"] == 128
    floats = values.astype(np.float32) / 255
    assert compare_masks(pair_for(truth, floats)).to_dict() == compare_masks(pair_for(truth, values)).to_dict()
    assert compare_masks(pair_for(truth, values[None])).to_dict() == compare_masks(pair_for(truth, values)).to_dict()


def test_cremis_background_is_said_and_not_guessed():
    """2^64 - 1 is not scored unless it is said to mean background; then it is 0, in both volumes."""
    truth, predicted = blobs(3)
    background = np.where(truth > 0, truth, 0).astype(np.uint64)
    raw = np.where(truth > 0, truth, -1).astype(np.uint64)
    for compare in (compare_masks, compare_objects):
        said = compare(pair_for(raw, predicted, minus_one_is_background=True)).to_dict()
        assert said == compare(pair_for(background, predicted)).to_dict()
        assert compare(pair_for(raw, predicted)).to_dict()["voxels"] == (truth > 0).sum()
    with pytest.raises(VolumeError, match=r"0 voxels of truth .* --minus-one-is-background"):
        compare_masks(pair_for(raw * 0 - np.uint64(1), predicted))
    with pytest.raises(VolumeError, match="0 voxels of truth"):
        compare_objects(pair_for(raw * 0 - np.uint64(1), predicted))


def test_what_cremi_calls_invalid_or_outside_stays_unscored():
    """2^64 - 2 and 2^64 - 3 are never scored, also where 2^64 - 1 is background."""
    truth = np.array([[[2**64 - 1, 2**64 - 2, 2**64 - 3, 5, 0]]], np.uint64)
    predicted = np.array([[[4, 4, 4, 4, 4]]], np.uint32)
    for said, scored in ((False, 2), (True, 3)):
        pair = pair_for(truth, predicted, minus_one_is_background=said)
        assert (compare_masks(pair).counts.total, compare_objects(pair).voxels) == (scored, scored)


def test_distances_are_left_out_rather_than_capped_unsaid(monkeypatch):
    """Too many voxels have no distances unless a cap is given: no number is changed by the size of a volume alone."""
    pair = pair_for(*blobs(4))
    assert compare_masks(pair).distances is not None
    monkeypatch.setattr(masks_module, "WHOLE_VOXELS", 10)
    assert compare_masks(pair).distances is None
    assert compare_masks(pair, cap_nm=30).distances.cap_nm == 30


@pytest.mark.parametrize(
    ("kind", "chosen", "message"),
    [
        ("objects", Settings(threshold=0.5), "threshold is for results scored as mask, and these are objects"),
        ("objects", Settings(cap_nm=5), "cap_nm is for results scored as mask"),
        ("mask", Settings(confidence="t.txt"), "confidence is for results scored as objects, and these are mask"),
        ("mask", Settings(size_limits=(1, 2)), "size_limits is for results scored as objects"),
        (
            "neurons",
            Settings(sections=True),
            "sections is for results scored as mask or objects, and these are neurons",
        ),
        ("neurons", Settings(minus_one_is_background=True), "minus_one_is_background is for"),
        ("objects", Settings(size_limits=(5, 5)), r"size_limits are \[5, 5\]; .* rising"),
        ("axons", Settings(), "neurons, mask, objects or classes, not as 'axons'"),
    ],
)
def test_settings_that_mean_nothing_are_refused(kind, chosen, message):
    with pytest.raises(ConfigError, match=message):
        compare_as(kind, pair_for(*blobs(5)), chosen)


@pytest.mark.parametrize(
    ("kind", "truth", "labels", "message"),
    [
        ("objects", "int32", "float32", "labels holds float32 in 1 channel; labels are integers"),
        ("mask", "float32", "uint8", "truth holds float32 .* name the truth first"),
        ("mask", "uint8", "channels", "labels has 2 channels"),
    ],
)
def test_volumes_that_cannot_be_read_so_are_refused(kind, truth, labels, message):
    array = np.zeros((2, 2, 2, 2), np.uint8) if labels == "channels" else np.zeros((2, 2, 2), labels)
    with pytest.raises(VolumeError, match=message):
        pair_of(kind, volume(np.zeros((2, 2, 2), truth), name="truth"), volume(array, name="labels"), None, Settings())


def test_a_threshold_of_labels_is_refused():
    with pytest.raises(ConfigError, match=r"threshold 0\.4 is for probabilities .* labels holds uint32"):
        compare_masks(pair_for(*blobs(6)), threshold=0.4)
