"""Distances between masks are exact: those of all pairs of voxels, whatever the blocks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from pipeline.errors import ConfigError, VolumeError
from pipeline.evaluation import distances
from pipeline.evaluation.distances import Steps, measure
from pipeline.evaluation.pairs import Pair
from pipeline.geometry import BoundingBox, Vec
from pipeline.volumes.base import VolumeSpec
from pipeline.volumes.memory import MemoryVolume

RESOLUTIONS = [(40.0, 4.0, 4.0), (8.0, 8.0, 8.0), (33.3, 4.6, 4.5)]


def pair_of(truth, predicted, resolution_nm=(40.0, 4.0, 4.0), start=(3, -5, 0)):
    box = BoundingBox.from_shape(truth.shape, start)
    volumes = (
        MemoryVolume(name, VolumeSpec(box, resolution_nm, array.dtype), array, writable=False)
        for name, array in (("truth", truth), ("labels", predicted))
    )
    return Pair(*volumes, box)


def masks(true, predicted):
    return true != 0, predicted != 0


def volumes(seed, shape=(4, 9, 8), share=0.15):
    rng = np.random.default_rng(seed)
    return (rng.random((2, *shape)) < share).astype(np.uint8)


def all_pairs(here, there, resolution_nm, cap_nm=np.inf):
    """The distance of each voxel of a mask to the nearest voxel of another, by all pairs."""
    places = [np.argwhere(part) * resolution_nm for part in (here, there)]
    apart = np.sqrt(((places[0][:, None] - places[1]) ** 2).sum(-1)).min(1)
    return np.minimum(apart, cap_nm).mean()


@pytest.mark.parametrize("resolution_nm", RESOLUTIONS)
@pytest.mark.parametrize("cap_nm", [None, 9.0, 45.5, 4000.0])
def test_distances_are_those_of_all_pairs(resolution_nm, cap_nm):
    """ADGT and ADF are means to the nearest voxel of the other mask, up to the cap; CREMI's score is their mean."""
    truth, predicted = volumes(0)
    found = measure(pair_of(truth, predicted, resolution_nm), masks, cap_nm=cap_nm, block=Vec(3, 4, 4))
    cap = np.inf if cap_nm is None else cap_nm
    assert found.adgt_nm == pytest.approx(all_pairs(predicted, truth, resolution_nm, cap), abs=1e-9)
    assert found.adf_nm == pytest.approx(all_pairs(truth, predicted, resolution_nm, cap), abs=1e-9)
    assert found.cremi_nm == (found.adgt_nm + found.adf_nm) / 2
    assert found.cap_nm == cap_nm


@pytest.mark.parametrize("resolution_nm", RESOLUTIONS)
def test_distances_are_those_of_scipys_transform(resolution_nm):
    """On a volume of blobs the means are those of the distance transform of the whole, in memory."""
    rng = np.random.default_rng(1)
    smooth = [ndimage.gaussian_filter(rng.standard_normal((12, 40, 40)), (1, 3, 3)) for _ in range(2)]
    truth, predicted = ((part > part.std()).astype(np.uint8) for part in smooth)
    found = measure(pair_of(truth, predicted, resolution_nm), masks)
    to_truth, to_prediction = (
        ndimage.distance_transform_edt(part == 0, sampling=resolution_nm) for part in (truth, predicted)
    )
    assert found.adgt_nm == pytest.approx(to_truth[predicted > 0].mean(), rel=1e-12)
    assert found.adf_nm == pytest.approx(to_prediction[truth > 0].mean(), rel=1e-12)


@given(
    st.integers(0, 2**32),
    st.sampled_from([0.01, 0.1, 0.5]),
    st.tuples(*[st.integers(1, 9)] * 3),
    st.sampled_from(RESOLUTIONS),
    st.sampled_from([3.0, 9.1, 41.7, 500.0]),
)
@settings(max_examples=60)
def test_blocks_change_no_bit_of_a_distance(seed, share, block, resolution_nm, cap_nm):
    """With a cap, blocks of any shape give the same numbers to the last bit."""
    truth, predicted = volumes(seed, (5, 7, 9), share)
    pair = pair_of(truth, predicted, resolution_nm)
    whole = measure(pair, masks, cap_nm=cap_nm, block=Vec(99, 99, 99))
    assert measure(pair, masks, cap_nm=cap_nm, block=Vec(*block)) == whole
    far_away = measure(pair, masks, cap_nm=1e5, block=Vec(*block))
    uncapped = measure(pair, masks)
    assert (far_away is None) == (uncapped is None)
    if uncapped is not None:
        assert (far_away.adgt_nm, far_away.adf_nm) == (uncapped.adgt_nm, uncapped.adf_nm)


def test_a_known_distance():
    """One voxel beside the truth along x and one a section away are 4 and 40 nm off: 22 nm on average."""
    truth, predicted = np.zeros((2, 3, 5, 5), np.uint8)
    truth[1, 2, 2] = predicted[1, 2, 3] = predicted[2, 2, 2] = 1
    found = measure(pair_of(truth, predicted), masks)
    assert (found.adgt_nm, found.adf_nm, found.cremi_nm) == (22, 4, 13)
    assert measure(pair_of(truth, predicted), masks, cap_nm=10).adgt_nm == 7


def test_a_mask_without_a_voxel_has_no_distance():
    """If either mask is empty, there is no distance, with and without a cap."""
    truth, predicted = volumes(2)
    for pair in (pair_of(truth, predicted * 0), pair_of(truth * 0, predicted)):
        assert measure(pair, masks) is None
        assert measure(pair, masks, cap_nm=20, block=Vec(2, 2, 2)) is None


def test_sides_of_voxels_become_small_whole_numbers():
    assert Steps.of((40, 4, 4)) == Steps(Vec(10, 1, 1), 4.0)
    assert Steps.of((33.3, 4.6, 4.5)) == Steps(Vec(333, 46, 45), 0.1)
    assert Steps.of((40, 4, 4)).halo(40) == Vec(2, 11, 11)


def test_what_does_not_fit_into_memory_is_refused(monkeypatch):
    """A box that is too large needs a cap, and a cap whose halo is too large a shorter one."""
    truth, predicted = volumes(3)
    pair = pair_of(truth, predicted)
    monkeypatch.setattr(distances, "WHOLE_VOXELS", 100)
    with pytest.raises(VolumeError, match=r"288 voxels in memory at once, and at most 100 .* --cap-nm 500"):
        measure(pair, masks)
    with pytest.raises(ConfigError, match=r"up to a cap of 500 nm need 288 voxels .* give a shorter one"):
        measure(pair, masks, cap_nm=500, block=Vec(2, 2, 2))
    assert measure(pair, masks, cap_nm=3, block=Vec(2, 2, 2)) is not None
    for cap in (0, -4, float("inf"), float("nan")):
        with pytest.raises(ConfigError, match=r"it must be a length above 0 in nm: --cap-nm 500"):
            measure(pair, masks, cap_nm=cap)
