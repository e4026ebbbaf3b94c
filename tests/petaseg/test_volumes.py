"""Volumes are indexed like arrays of their shape, and written like them."""

import dask.array
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import basic_indices

import petaseg
from pipeline.errors import ConfigError, VolumeError
from pipeline.volumes.memory import MemoryVolume

SHAPES = [(5, 4, 7), (3, 5, 4, 7)]
OFFSET = (3, -20, 100)


def filled(shape):
    """A volume in memory that begins far from 0, 0, 0, and the array that it holds."""
    array = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    name = f"memory://indexed-{len(shape)}"
    volume = petaseg.create(name, shape, "uint8", (8, 8, 8), offset=OFFSET, chunk=(2, 2, 2), overwrite=True)
    volume[...] = array
    return volume, array


@pytest.mark.parametrize("shape", SHAPES, ids=["zyx", "czyx"])
@given(data=st.data())
def test_an_index_selects_what_numpy_selects(shape, data):
    """Integers, slices with steps of either sign and ... select the voxels that they select of an array."""
    volume, array = filled(shape)
    key = data.draw(basic_indices(shape, allow_newaxis=False))
    found = volume[key]
    assert np.array_equal(found, array[key])
    assert np.shape(found) == array[key].shape
    assert found.dtype == array.dtype


@pytest.mark.parametrize("shape", SHAPES, ids=["zyx", "czyx"])
@given(data=st.data())
def test_what_is_assigned_to_a_box_is_stored_there_alone(shape, data):
    """An array or a number assigned to whole boxes changes those voxels, as in an array, and no others."""
    volume, array = filled(shape)
    key = (..., *(data.draw(_place(side)) for side in shape[-3:]))
    number = data.draw(st.integers(0, 255))
    value = data.draw(st.sampled_from([number, np.full(array[key].shape, number, np.uint8)]))
    volume[key] = value
    array[key] = value
    assert np.array_equal(volume[...], array)


def _place(side):
    """An integer or a slice without a step, along an axis of so many voxels."""
    ends = st.none() | st.integers(-side, side)
    return st.integers(-side, side - 1) | st.builds(slice, ends, ends)


def test_an_index_reads_only_the_box_that_it_needs(monkeypatch):
    """No voxel outside of the selected box is read, and opening reads none."""
    read = []
    monkeypatch.setattr(MemoryVolume, "_load", _remembering(read, MemoryVolume._load))
    volume, _ = filled((5, 4, 7))
    petaseg.open(volume.url)[1, 2:4, -3:]
    assert read == [petaseg.BoundingBox((4, -18, 104), (5, -16, 107))]


def _remembering(boxes, load):
    def remembering(volume, box):
        boxes.append(box)
        return load(volume, box)

    return remembering


def test_global_voxels_are_read_by_boxes():
    """``read`` counts from the dataset's origin, ``[...]`` from the volume's first voxel."""
    volume, array = filled((5, 4, 7))
    assert np.array_equal(volume.read(volume.bounds), array)
    assert np.array_equal(volume.read(petaseg.BoundingBox((4, -20, 102), (6, -17, 103))), array[1:3, :3, 2:3])


def test_a_volume_is_an_array_to_other_libraries():
    """numpy and Dask take a volume as an array of its shape and type."""
    volume, array = filled((5, 4, 7))
    assert (volume.shape, volume.dtype, volume.ndim, len(volume)) == (array.shape, array.dtype, array.ndim, 5)
    assert np.array_equal(np.asarray(volume), array)
    assert np.asarray(volume, np.float32).dtype == np.float32
    assert [section.sum() for section in volume] == [section.sum() for section in array]
    assert np.array_equal(dask.array.from_array(volume, (2, 2, 4)).compute(scheduler="sync"), array)


def test_a_volume_names_its_shape_its_voxels_and_its_place():
    """The repr has one line, without a voxel."""
    volume, _ = filled((3, 5, 4, 7))
    expected = "<volume memory://indexed-4: uint8 (c 3, z 5, y 4, x 7), 8 x 8 x 8 nm, first voxel (3, -20, 100)>"
    assert repr(volume) == expected


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (5, r"index 5 is outside of an axis of 5 voxels; it must lie in -5..4"),
        ((0, 0, 0, 0), r"4 parts, for 3 axes"),
        ((..., ...), r"2 parts, for 3 axes; .* one \.\.\."),
        ([1, 2], r"\[1, 2\] cannot select voxels of a volume; .* np.asarray\(volume\)"),
        (None, r"None cannot select voxels"),
        (True, r"True cannot select voxels"),
        (1.0, r"1.0 cannot select voxels"),
    ],
)
def test_an_index_that_selects_nothing_is_refused(key, message):
    """An index outside, with too many parts, or of a kind that only arrays take, ends in an error with the remedy."""
    volume, _ = filled((5, 4, 7))
    with pytest.raises(IndexError, match=message):
        volume[key]


@pytest.mark.parametrize(
    ("key", "value", "error", "message"),
    [
        ((slice(None, None, 2),), 0, IndexError, "leave steps and channels out"),
        ((0,), np.zeros((5, 4, 7), np.uint8), IndexError, "leave steps and channels out"),
        ((...,), np.zeros((5, 4, 6), np.uint8), VolumeError, r"\(5, 4, 6\) cannot fill \(3, 5, 4, 7\).*crop it"),
        ((...,), np.zeros((3, 5, 4, 7)), VolumeError, "type float64 .* holds uint8; convert it first"),
    ],
)
def test_an_array_that_does_not_fit_is_refused(key, value, error, message):
    """Steps, single channels, other shapes and other types are refused, and nothing is stored."""
    volume, array = filled((3, 5, 4, 7))
    with pytest.raises(error, match=message):
        volume[key] = value
    assert np.array_equal(volume[...], array)


def test_an_array_without_a_copy_is_refused():
    volume, _ = filled((5, 4, 7))
    with pytest.raises(ValueError, match="copy=False is not possible"):
        np.asarray(volume, copy=False)


def test_a_volume_is_made_and_opened_again(tmp_path):
    """What ``create`` stores, ``open`` finds: voxels, type, resolution and place."""
    array = np.arange(2 * 3 * 4, dtype=np.uint16).reshape(2, 3, 4)
    petaseg.create(tmp_path / "image.zarr", array.shape, array.dtype, (40, 4, 4), offset=(1, 2, 3))[...] = array
    volume = petaseg.open(tmp_path / "image.zarr")
    assert np.array_equal(volume, array)
    assert volume.resolution_nm == (40.0, 4.0, 4.0)
    assert volume.bounds.start == (1, 2, 3)


@pytest.mark.parametrize(
    ("shape", "resolution", "message"),
    [
        ((4, 4), (8, 8, 8), r"shape is \(4, 4\); it must be \(z, y, x\)"),
        ((4, 4, 4), (8, 8), r"resolution is \(8, 8\); it must be three positive numbers"),
        ((4, 4, 4), (8, 0, 8), r"resolution is \(8, 0, 8\)"),
        ((4, 4, 4), 8, "resolution is 8;"),
    ],
)
def test_a_volume_of_no_shape_or_size_is_refused(shape, resolution, message):
    with pytest.raises(ConfigError, match=message):
        petaseg.create("memory://refused", shape, "uint8", resolution)
