"""Metadata in any form is understood, or refused in words; and the options that a message names open the volume."""

import json
import struct
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import PetasegError, VolumeError
from pipeline.volumes import open_volume

DATA = np.arange(60, dtype="uint8").reshape(3, 4, 5)
EVERYTHING = "#axes=zyx&resolution=40,8,4&offset=2,0,0"
NUMBERS = st.one_of(st.floats(), st.integers(-(10**400), 10**400), st.sampled_from([0, -1, 1, 8, 40, 1e-320, 1e308]))
ATOMS = st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=4), st.sampled_from(["zyx", "nm", "scale", "c"]))
VALUES = st.recursive(
    ATOMS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)
PLAIN = ("resolution_nm", "resolution", "voxel_size", "element_size_um", "offset", "units", "axes", "axistags")
PLAIN_ATTRIBUTES = st.dictionaries(st.sampled_from(PLAIN), VALUES | st.lists(NUMBERS, min_size=3, max_size=3))
GOOD: dict[str, Any] = {
    "axes": [{"name": name, "type": "space", "unit": "nanometer"} for name in "zyx"],
    "datasets": [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [40, 8, 4]}]}],
}
BRIEF = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


def broken(value: Any, draw: st.DrawFn) -> Any:
    """A copy of good metadata in which one place, anywhere, is something else, or missing."""
    if not isinstance(value, dict | list) or not value or draw(st.integers(0, 3)) == 0:
        return draw(VALUES)
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = draw(st.sampled_from(keys))
    copy = value.copy()
    if draw(st.integers(0, 5)) == 0:
        del copy[key]  # type: ignore[arg-type]
    else:
        copy[key] = broken(value[key], draw)  # type: ignore[index]
    return copy


@st.composite
def broken_images(draw: st.DrawFn) -> Any:
    entry = {**GOOD, "coordinateTransformations": [{"type": "translation", "translation": [80, 0, 0]}]}
    return broken({"multiscales": [entry]}, draw)


def put_array(folder: Path, attributes: Any) -> str:
    zarr.create_array(str(folder), shape=DATA.shape, dtype="u1", chunks=DATA.shape, zarr_format=2)[...] = DATA
    (folder / ".zattrs").write_text(json.dumps(attributes))
    return str(folder)


def put_group(folder: Path, attributes: Any) -> str:
    put_array(folder / "0", {})
    (folder / ".zgroup").write_text('{"zarr_format": 2}')
    (folder / ".zattrs").write_text(json.dumps(attributes))
    return str(folder)


def opens_or_refuses(url: str) -> None:
    """Open a volume and read it; only petaseg's own errors may come."""
    with suppress(PetasegError):
        volume = open_volume(url)
        volume.read(volume.spec.bounds)


def opens_with_everything_said(url: str) -> None:
    volume = open_volume(url + EVERYTHING)
    assert (volume.spec.resolution_nm, volume.spec.bounds.start) == ((40.0, 8.0, 4.0), (2, 0, 0))
    assert (volume.read(volume.spec.bounds) == DATA).all()


@BRIEF
@given(PLAIN_ATTRIBUTES)
def test_plain_attributes_of_any_form_are_understood_or_refused(attributes: dict[str, Any]) -> None:
    with TemporaryDirectory() as folder:
        url = put_array(Path(folder, "a.zarr"), attributes)
        opens_or_refuses(url)
        opens_with_everything_said(url)


@BRIEF
@given(broken_images())
def test_image_groups_of_any_form_are_understood_or_refused(attributes: Any) -> None:
    """Whatever is said above it, an array opens by its path with all options."""
    with TemporaryDirectory() as folder:
        url = put_group(Path(folder, "a.zarr"), attributes)
        opens_or_refuses(url)
        opens_or_refuses(f"{url}/0")
        opens_with_everything_said(f"{url}/0")


@BRIEF
@given(PLAIN_ATTRIBUTES)
def test_hdf5_attributes_of_any_form_are_understood_or_refused(attributes: dict[str, Any]) -> None:
    with TemporaryDirectory() as folder:
        with h5py.File(Path(folder, "a.h5"), "w") as file:
            dataset = file.create_dataset("raw", data=DATA)
            for key, value in attributes.items():
                try:
                    dataset.attrs[key] = value
                except (TypeError, ValueError, OverflowError, RuntimeError):
                    dataset.attrs[key] = h5py.Empty("f")  # HDF5 cannot hold the value; it can hold nothing
        opens_or_refuses(f"{folder}/a.h5")
        opens_with_everything_said(f"{folder}/a.h5")


@BRIEF
@given(
    st.text(max_size=8), st.text(max_size=8), st.sampled_from(["PhysicalSizeX", "PhysicalSizeZUnit", "SizeZ", "Type"])
)
def test_ome_xml_of_any_form_is_understood_or_refused(value: str, more: str, key: str) -> None:
    pixels = {"PhysicalSizeX": "8", "PhysicalSizeY": "8", "PhysicalSizeZ": "40", "PhysicalSizeZUnit": "nm", key: value}
    fields = " ".join(f'{name}="{text}"' for name, text in pixels.items())
    xml = (
        f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image><Pixels {fields}/>{more}</Image></OME>'
    )
    with TemporaryDirectory() as folder:
        description = xml.encode("ascii", "replace").decode()
        tifffile.imwrite(f"{folder}/a.tif", DATA[0], photometric="minisblack", description=description, metadata=None)
        opens_or_refuses(f"{folder}/a.tif")


@BRIEF
@given(st.integers(0, 12), st.integers(0, 2**32 - 1))
def test_tiff_tags_of_any_value_are_understood_or_refused(which: int, value: int) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "a.tif")
        tifffile.imwrite(path, DATA, photometric="minisblack", metadata=None)
        with tifffile.TiffFile(path) as file:
            tags = list(file.pages.first.tags)
            place = tags[which % len(tags)].offset + 8
        data = bytearray(path.read_bytes())
        data[place : place + 4] = struct.pack("<I", value)
        path.write_bytes(bytes(data))
        opens_or_refuses(f"{path}#resolution=8,8,8")


@pytest.mark.parametrize(
    ("attributes", "resolution", "start"),
    [
        ({"axis_names": ["x", "y", "z"], "voxel_size": [4, 8, 40], "offset": [0, 0, 80]}, (40, 8, 4), (2, 0, 0)),
        ({"axes": "xyz", "resolution": [4, 8, 40]}, (40, 8, 4), (0, 0, 0)),
        ({"axes": "xyz", "resolution_nm": [40, 8, 4], "offset": [2, 0, 0]}, (40, 8, 4), (2, 0, 0)),
        ({"voxel_size": [0.04, 0.008, 0.004], "units": "um", "offset": [0.08, 0, 0]}, (40, 8, 4), (2, 0, 0)),
        ({"axes": "xyz", "voxel_size": [4, 8, 0.04], "units": ["nm", "nm", "um"]}, (40, 8, 4), (0, 0, 0)),
        ({"element_size_um": [0.04, 0.008, 0.004], "offset": None}, (40, 8, 4), (0, 0, 0)),
    ],
)
def test_plain_attributes_have_the_order_and_unit_that_they_state(
    attributes: dict[str, Any], resolution: tuple[int, ...], start: tuple[int, ...], tmp_path: Path
) -> None:
    """Sizes of other programs are in the order of the array's axes; petaseg's own are z, y, x."""
    spec = open_volume(put_array(tmp_path / "a.zarr", attributes)).spec
    assert (spec.resolution_nm, spec.bounds.start) == (resolution, start)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"resolution": 8}, "resolution = 8; it must be three finite numbers.*#resolution=z,y,x"),
        ({"resolution_nm": [8, 8, 8], "offset": "0,0,0"}, "offset = '0,0,0'.*#offset=z,y,x"),
        ({"voxel_size": [8, 8, 8], "units": "parsec"}, "units = 'parsec'; known units"),
        ({"offset": [1, 0, 0]}, "does not say how large"),
        ({"axes": 5, "resolution_nm": [8, 8, 8]}, "no list of names of axes.*#axes=zyx"),
    ],
)
def test_plain_attributes_of_another_form_are_refused_with_the_option(
    attributes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(VolumeError, match=message):
        open_volume(put_array(tmp_path / "a.zarr", attributes))


@pytest.mark.parametrize("kind", ["rotation", "affine", "sequence", None, 3])
def test_transforms_that_are_not_understood_are_refused(kind: Any, tmp_path: Path) -> None:
    """A transform that is left out would give another place; options replace it."""
    steps = [{"type": "scale", "scale": [40, 8, 4]}, {"type": kind}]
    url = put_group(
        tmp_path / "a.zarr",
        {"multiscales": [{**GOOD, "datasets": [{"path": "0", "coordinateTransformations": steps}]}]},
    )
    with pytest.raises(VolumeError, match="scale and translation are understood"):
        open_volume(url)
    assert open_volume(f"{url}#resolution=40,8,4&offset=0,0,0").spec.bounds.shape == DATA.shape


def test_transforms_apply_one_after_the_other(tmp_path: Path) -> None:
    steps = [
        {"type": "translation", "translation": [2, 0, 0]},
        {"type": "scale", "scale": [20, 4, 2]},
        {"type": "identity"},
        {"type": "scale", "scale": [2, 2, 2]},
    ]
    url = put_group(
        tmp_path / "a.zarr",
        {"multiscales": [{**GOOD, "datasets": [{"path": "0", "coordinateTransformations": steps}]}]},
    )
    spec = open_volume(url).spec
    assert (spec.resolution_nm, spec.bounds.start) == ((40.0, 8.0, 4.0), (2, 0, 0))


def test_a_level_between_voxels_opens_with_the_offset_that_the_message_names(tmp_path: Path) -> None:
    steps = [{"type": "scale", "scale": [80, 16, 16]}, {"type": "translation", "translation": [20, 4, 4]}]
    url = put_group(
        tmp_path / "a.zarr",
        {"multiscales": [{**GOOD, "datasets": [{"path": "0", "coordinateTransformations": steps}]}]},
    )
    with pytest.raises(VolumeError, match="#offset=z,y,x"):
        open_volume(url)
    for place in (url, f"{url}/0"):
        assert open_volume(f"{place}#offset=1,0,0").spec.bounds.start == (1, 0, 0)


def test_an_array_of_the_second_image_of_a_group_has_its_size(tmp_path: Path) -> None:
    other = {
        **GOOD,
        "datasets": [{"path": "labels", "coordinateTransformations": [{"type": "scale", "scale": [80, 8, 4]}]}],
    }
    url = put_group(tmp_path / "a.zarr", {"multiscales": [GOOD, other]})
    put_array(tmp_path / "a.zarr/labels", {})
    assert open_volume(f"{url}/labels").spec.resolution_nm == (80.0, 8.0, 4.0)


@pytest.mark.parametrize(
    ("attributes", "labels"),
    [
        ({"axes": np.bytes_(b"xyz")}, ""),
        ({"axes": ["x", "y", "z"]}, ""),
        ({"axes": "x, y, z"}, ""),
        ({"axistags": json.dumps({"axes": [{"key": key, "typeFlags": 2} for key in "xyz"]})}, ""),
        ({"DIMENSION_LABELS": np.array([b"x", b"y", b"z"])}, ""),  # a text of fixed length
        ({}, "xyz"),
    ],
)
def test_hdf5_states_the_order_of_axes_in_many_ways(attributes: dict[str, Any], labels: str, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dataset = file.create_dataset("raw", data=DATA.T)
        dataset.attrs.update({"resolution_nm": [40.0, 8.0, 4.0], **attributes})
        for number, label in enumerate(labels):
            dataset.dims[number].label = label
    volume = open_volume(f"{tmp_path}/a.h5")
    assert (volume.read(volume.spec.bounds) == DATA).all()


@pytest.mark.parametrize("shape", [(24, 32, 40, 3), (8, 100, 100, 12), (5, 6, 7, 1), (1, 24, 32, 40, 3)])
def test_channels_that_may_be_last_are_asked_for(shape: tuple[int, ...], tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(shape, "uint8"))
    with pytest.raises(VolumeError, match=r"#axes=zyxc \(channels last\)"):
        open_volume(f"{tmp_path}/a.npy#resolution=8,8,8")
    last = open_volume(f"{tmp_path}/a.npy#resolution=8,8,8&axes={'tzyxc'[-len(shape) :]}")
    assert last.spec.bounds.shape == shape[-4:-1]


@pytest.mark.parametrize("axes", ["zyxc", "zy", "zyz", ""])
def test_axes_that_are_not_those_of_the_array_are_refused(axes: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", DATA)
    with pytest.raises(PetasegError, match="axes"):
        open_volume(f"{tmp_path}/a.npy#resolution=8,8,8&axes={axes}")
