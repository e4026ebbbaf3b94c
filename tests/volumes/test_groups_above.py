"""Attributes of the groups above a dataset say what its own leave open; two that differ are refused."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import h5py
import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import VolumeError
from pipeline.volumes import open_volume

DATA = np.arange(60, dtype="uint8").reshape(3, 4, 5)
BRIEF = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
PLACES = ("/", "/volumes", "/volumes/labels", "/volumes/labels/ids")
SIZES = st.sampled_from([None, (40.0, 8.0, 4.0), (8.0, 8.0, 8.0)])


def write(path: str, attributes: dict[str, dict[str, Any]], data: np.ndarray = DATA) -> str:
    with h5py.File(path, "w") as file:
        file[PLACES[-1]] = data
        for place, table in attributes.items():
            file[place].attrs.update(table)
    return f"{path}:{PLACES[-1]}"


@BRIEF
@given(st.tuples(SIZES, SIZES, SIZES, SIZES))
def test_the_size_is_the_datasets_own_or_the_one_of_its_groups(sizes: tuple[Any, ...]) -> None:
    """What the dataset says holds; groups that say different things are no answer."""
    said = {place: {"resolution": size} for place, size in zip(PLACES, sizes, strict=True) if size is not None}
    with TemporaryDirectory() as folder:
        url = write(f"{folder}/a.h5", said)
        above = {size for size in sizes[:3] if size is not None}
        if sizes[3] is not None or len(above) == 1:
            assert open_volume(url).resolution_nm == (sizes[3] or above.pop())
        else:
            with pytest.raises(VolumeError, match="several sizes of a voxel" if above else "does not say how large"):
                open_volume(url)
        assert open_volume(f"{url}#resolution=2,2,2").resolution_nm == (2, 2, 2)


@BRIEF
@given(st.tuples(*[st.sampled_from([None, "zyx", "xyz"])] * 4))
def test_the_axes_are_the_datasets_own_or_those_of_its_groups(orders: tuple[Any, ...]) -> None:
    said = {place: {"axes": order} for place, order in zip(PLACES, orders, strict=True) if order is not None}
    with TemporaryDirectory() as folder:
        url = f"{write(f'{folder}/a.h5', said)}#resolution=8,8,8"
        above = {order for order in orders[:3] if order is not None}
        if orders[3] is None and len(above) > 1:
            with pytest.raises(VolumeError, match=r"states its axes in two ways .*axes of /"):
                open_volume(url)
        else:
            order = orders[3] or next(iter(above), "zyx")
            assert open_volume(url).shape == (DATA.shape if order == "zyx" else DATA.shape[::-1])


def test_the_offset_of_a_group_goes_with_its_size(tmp_path: Path) -> None:
    """A dataset with a size of its own does not begin where that of the group says; one without does."""
    group = {"resolution": [40, 8, 4], "offset": [80, 8, 0]}
    url = write(f"{tmp_path}/a.h5", {"/volumes": group})
    assert open_volume(url).bounds.start == (2, 1, 0)
    url = write(f"{tmp_path}/b.h5", {"/volumes": group, PLACES[-1]: {"resolution": [20, 4, 2]}})
    assert open_volume(url).bounds.start == (0, 0, 0)


def test_axes_of_a_group_with_other_datasets_are_left_out(tmp_path: Path) -> None:
    url = write(f"{tmp_path}/a.h5", {"/volumes": {"axes": "czyx", "resolution_nm": [40, 8, 4]}})
    assert open_volume(url).shape == DATA.shape


def test_groups_above_a_zarr_array_count_as_those_of_hdf5(tmp_path: Path) -> None:
    """An array within a group without an image: what it says itself holds, and two groups that differ are refused."""
    root = zarr.open_group(f"{tmp_path}/a.zarr", mode="w")
    root.create_group("volumes").create_array("raw", data=DATA.T, chunks=DATA.T.shape)
    url = f"{tmp_path}/a.zarr/volumes/raw"
    root["volumes"].attrs.update({"resolution": [4, 8, 40], "offset": [0, 8, 80], "axes": "xyz"})
    volume = open_volume(url)
    assert (volume.resolution_nm, volume.bounds.start) == ((40, 8, 4), (2, 1, 0))
    np.testing.assert_array_equal(volume[...], DATA)
    root.attrs["resolution"] = [8, 8, 8]
    with pytest.raises(VolumeError, match="several sizes of a voxel"):
        open_volume(url)
    root["volumes/raw"].attrs["resolution_nm"] = [20, 4, 2]
    assert (open_volume(url).resolution_nm, open_volume(url).bounds.start) == ((20, 4, 2), (0, 0, 0))
