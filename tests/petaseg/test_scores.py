"""``petaseg.evaluate`` scores arrays, volumes and paths as a mask or as objects, as the command does."""

import numpy as np
import pytest

import petaseg
from pipeline.errors import ConfigError, VolumeError
from tests.evaluation.test_kinds import blobs
from tests.runs import write_volume


@pytest.fixture
def data(tmp_path):
    truth, labels = blobs(0)
    write_volume(tmp_path / "truth.zarr", truth, (40, 4, 4), (1, 2, 3))
    write_volume(tmp_path / "labels.zarr", labels, (40, 4, 4), (1, 2, 3))
    return tmp_path, truth, labels


@pytest.mark.parametrize("as_", ["mask", "objects"])
def test_arrays_volumes_and_paths_have_the_same_scores(data, as_):
    """An array takes the place and the voxel size of the volume that it is compared with."""
    folder, truth, labels = data
    expected = petaseg.evaluate(folder / "labels.zarr", folder / "truth.zarr", as_=as_).to_dict()
    for one in (labels, petaseg.open(folder / "labels.zarr")):
        for other in (petaseg.open(folder / "truth.zarr"), folder / "truth.zarr"):
            assert petaseg.evaluate(one, other, as_=as_).to_dict() == expected
    resolution = {"resolution": (40, 4, 4)} if as_ == "mask" else {}
    assert petaseg.evaluate(labels, truth, as_=as_, **resolution).to_dict() == expected


def test_arrays_without_a_resolution_have_no_distances(data):
    _, truth, labels = data
    assert petaseg.evaluate(labels, truth, as_="mask").distances is None
    assert petaseg.evaluate(labels, truth, as_="mask", resolution=(40, 4, 4), cap_nm=9).distances.cap_nm == 9


def test_scores_are_read_at_a_glance():
    truth = np.repeat([0, 1, 2, 3], 20).reshape(1, 8, 10)
    labels = np.where(truth == 3, 0, truth)
    assert repr(petaseg.evaluate(labels, truth, as_="objects")) == (
        "AP 0.663 (IoU 0.5: 0.663, 0.75: 0.663), 2 of 3 objects found, 0 invented, F1 0.800, 80 voxels"
    )
    assert repr(petaseg.evaluate(labels, truth, as_="mask")) == (
        "mask: foreground IoU 0.667, Dice 0.800, precision 1.000, recall 0.667, 80 voxels"
    )
    assert repr(petaseg.evaluate(truth / 3, truth, as_="mask")).startswith(
        "probability of at least 0.5: foreground IoU"
    )


def test_confidences_may_be_a_mapping():
    truth, labels = np.array([[[1, 1, 0, 0, 0]]]), np.array([[[7, 7, 0, 9, 9]]])
    scores = petaseg.evaluate(labels, truth, as_="objects", confidence={7: 0.9, 9: 0.2})
    assert scores.everything.at(0.5).ap == 1
    assert petaseg.evaluate(labels, truth, as_="objects", confidence={7: 0.1, 9: 0.2}).everything.at(0.5).ap == 0.5


@pytest.mark.parametrize(
    ("labels", "more", "error", "message"),
    [
        (np.zeros((2, 2, 3), int), {"as_": "objects"}, VolumeError, r"labels has shape \(2, 2, 3\); .* \(2, 2, 2\)"),
        (np.zeros((2, 2), int), {"as_": "mask"}, VolumeError, r"labels has shape \(2, 2\)"),
        (np.zeros((2, 2, 2)), {"as_": "objects"}, VolumeError, "labels holds float64"),
        (np.zeros((2, 2, 2), int), {"as_": "axons"}, ConfigError, "not as 'axons'"),
        (np.zeros((2, 2, 2), int), {"threshold": 0.5}, ConfigError, "threshold is for results scored as mask"),
        (np.zeros((2, 2, 2), int), {"resolution": (1, 1, 1)}, ConfigError, "resolution is for the distances"),
        (np.zeros((2, 2, 2), int), {"as_": "mask", "cap_nm": 5}, ConfigError, r"resolution=\(40, 4, 4\)"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(labels, more, error, message):
    with pytest.raises(error, match=message):
        petaseg.evaluate(labels, np.ones((2, 2, 2), int), **more)


def test_a_resolution_beside_a_volume_is_refused(data):
    folder, _, labels = data
    with pytest.raises(ConfigError, match=r"truth\.zarr has one of its own: leave it out"):
        petaseg.evaluate(labels, folder / "truth.zarr", as_="mask", resolution=(40, 4, 4))
