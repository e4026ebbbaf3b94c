"""MATLAB 7.3 files: V(y, x, z) is read as z, y, x, in the type of its class; what is no array of numbers is refused."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pipeline.errors import VolumeError
from pipeline.volumes import open_volume
from pipeline.volumes.ingest import ingest

DATA = np.arange(60, dtype="uint8").reshape(3, 4, 5)  # z, y, x
SIZE = "#resolution=40,8,4"


def save(path: Path, variable: np.ndarray, kind: str, **attributes: Any) -> str:
    """Write a variable as MATLAB does: a header before the HDF5 file, reversed axes, the class as an attribute."""
    with h5py.File(path, "w", userblock_size=512) as file:
        dataset = file.create_dataset("V", data=variable.T)
        dataset.attrs["MATLAB_class"] = np.bytes_(kind)
        dataset.attrs.update(attributes)
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64, HDF5 schema 1.00 .".ljust(124) + b"\x00\x02IM")
    return str(path)


def as_matlab(data: np.ndarray) -> np.ndarray:
    """V(y, x, z) of (z, y, x)."""
    return data.transpose(1, 2, 0)


@pytest.mark.parametrize(("kind", "dtype"), [("uint8", "u1"), ("uint16", "u2"), ("single", "f4"), ("double", "f8")])
@pytest.mark.parametrize("name", ["a.mat", "a.h5"])
def test_rows_columns_and_sections_are_y_x_and_z(name: str, kind: str, dtype: str, tmp_path: Path) -> None:
    url = save(tmp_path / name, as_matlab(DATA.astype(dtype)), kind)
    volume = open_volume(f"{url}:V{SIZE}")
    assert (volume.shape, volume.dtype, volume.resolution_nm) == (DATA.shape, dtype, (40, 8, 4))
    np.testing.assert_array_equal(volume[...], DATA)


def test_logical_variables_are_0_and_1_and_are_ingested(tmp_path: Path) -> None:
    url = save(tmp_path / "a.mat", as_matlab(DATA > 20).astype("u1"), "logical", MATLAB_int_decode=1)
    report = ingest(f"{url}{SIZE}", f"{tmp_path}/out.zarr")
    np.testing.assert_array_equal(open_volume(report.url)[...], (DATA > 20).astype("u1"))


def test_another_order_is_said_by_axes(tmp_path: Path) -> None:
    """V(z, y, x) is stored as x, y, z."""
    url = save(tmp_path / "a.mat", DATA, "uint8")
    np.testing.assert_array_equal(open_volume(f"{url}{SIZE}&axes=xyz")[...], DATA)


def test_four_axes_are_asked_for_and_both_remedies_work(tmp_path: Path) -> None:
    channels = np.stack([DATA, DATA + 100])
    last, between = channels.transpose(2, 3, 1, 0), channels.transpose(2, 3, 0, 1)
    for variable, axes in ((last, "czxy"), (between, "zcxy")):
        url = save(tmp_path / "a.mat", variable, "uint8")
        with pytest.raises(VolumeError, match=rf"MATLAB variable of size 4 x 5 x .*#axes={axes}"):
            open_volume(f"{url}{SIZE}")
        np.testing.assert_array_equal(open_volume(f"{url}{SIZE}&axes={axes}")[...], channels)


@pytest.mark.parametrize("kind", ["char", "cell", "function_handle", "struct"])
def test_variables_of_other_classes_are_refused_by_the_class(kind: str, tmp_path: Path) -> None:
    url = save(tmp_path / "a.mat", as_matlab(DATA.astype("u2")), kind)
    with pytest.raises(VolumeError, match=f"MATLAB variable of class {kind}; .*uint8"):
        open_volume(f"{url}{SIZE}")


def test_a_dataset_without_the_class_is_in_the_order_of_its_file(tmp_path: Path) -> None:
    """What h5py added to a MATLAB file is z, y, x."""
    url = save(tmp_path / "a.mat", as_matlab(DATA), "uint8")
    with h5py.File(url, "r+") as file:
        file["python"] = DATA
    np.testing.assert_array_equal(open_volume(f"{url}:python{SIZE}")[...], DATA)


def test_an_older_mat_file_names_the_version_that_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.mat").write_bytes(b"MATLAB 5.0 MAT-file".ljust(600))
    with pytest.raises(VolumeError, match=r"it is no HDF5 file.*-v7.3"):
        open_volume(f"{tmp_path}/a.mat:V{SIZE}")
