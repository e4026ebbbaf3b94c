"""What attributes say in another way is not left out or guessed; the option that a message names opens the array."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.codecs import BytesCodec, TransposeCodec

from pipeline.errors import VolumeError
from pipeline.volumes import open_volume
from pipeline.volumes.placement import unit_nm

DATA = np.arange(60, dtype="uint16").reshape(3, 4, 5)


def put(folder: Path, attributes: dict[str, Any]) -> str:
    zarr.create_array(str(folder), data=DATA, chunks=DATA.shape).attrs.update(attributes)
    return str(folder)


@pytest.mark.parametrize(
    ("attributes", "option"),
    [
        ({"resolution": [40, 8, 4], "voxel_offset": [2, 0, 0]}, "offset"),
        ({"resolution_nm": [40, 8, 4], "translation": [80, 0, 0]}, "offset"),
        ({"resolution_nm": [40, 8, 4], "origin": "somewhere"}, "offset"),
        ({"resolution": [40, 8, 4], "transform": {"scale": [40, 8, 4], "translate": [80, 0, 0]}}, "offset"),
        ({"resolution": [40, 8, 4], "downsamplingFactors": [2, 2, 1]}, "resolution"),
        ({"resolution": [0.04, 0.008, 0.004]}, "resolution"),
        ({"voxel_size": [0.04, 0.008, 0.004], "units": "um", "unit": "nm"}, "resolution"),
        ({"voxel_size": [1, 1, 1], "units": "pixel"}, "resolution"),
        ({"resolution": [-40, 8, 4]}, "resolution"),
    ],
)
def test_what_has_no_one_meaning_is_refused_and_the_option_opens_it(
    attributes: dict[str, Any], option: str, tmp_path: Path
) -> None:
    url = put(tmp_path / "a.zarr", attributes)
    with pytest.raises(VolumeError, match=rf"#{option}=z,y,x"):
        open_volume(url)
    given = {"offset": "2,0,0", "resolution": "40,8,4"}[option]
    volume = open_volume(f"{url}#{option}={given}")
    assert (volume.resolution_nm, (volume[...] == DATA).all()) == ((40, 8, 4), True)
    assert volume.bounds.start == ((2, 0, 0) if option == "offset" else (0, 0, 0))


@pytest.mark.parametrize(
    "attributes", [{"voxel_offset": [0, 0, 0]}, {"downsamplingFactors": [1, 1, 1]}, {"translation": None}]
)
def test_attributes_that_change_nothing_do_not_matter(attributes: dict[str, Any], tmp_path: Path) -> None:
    assert open_volume(put(tmp_path / "a.zarr", {"resolution": [40, 8, 4], **attributes})).bounds.start == (0, 0, 0)


@pytest.mark.parametrize(
    ("name", "nanometres"),
    [
        *[
            (name, 1e3)
            for name in ("um", "µm", "μm", "micrometer", "Micrometers", "micrometre", "micrometres", "micron")
        ],
        *[(name, 1.0) for name in ("nm", "nanometer", "nanometers", "Nanometre", " nm ")],
        *[(name, 0.1) for name in ("angstrom", "Angstroms", "Å")],
        *[(name, None) for name in ("s", "second", "px", "", "parsec", "none")],
    ],
)
def test_units_have_several_spellings(name: str, nanometres: float | None) -> None:
    assert unit_nm(name) == nanometres


def image(folder: Path, attributes: dict[str, Any], names: list[str] | None = None) -> str:
    """An OME-Zarr 0.5 image of 40 x 8 x 4 nm, whose array has attributes and names of dimensions of its own."""
    group = zarr.open_group(str(folder), mode="w")
    array = group.create_array("0", shape=DATA.shape, dtype="u2", chunks=DATA.shape, dimension_names=names)
    array[...] = DATA
    array.attrs.update(attributes)
    axes = [{"name": name, "type": "space", "unit": "nanometer"} for name in "zyx"]
    level = {"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [40, 8, 4]}]}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": [level]}]}
    return str(folder)


@pytest.mark.parametrize("part", ["", "/0"])
def test_an_array_that_contradicts_its_image_is_refused(part: str, tmp_path: Path) -> None:
    url = image(tmp_path / "size.zarr", {"resolution_nm": [8, 8, 8]}) + part
    with pytest.raises(
        VolumeError, match=re.escape("multiscales say [40.0, 8.0, 4.0] nm, the attributes of the array")
    ):
        open_volume(url)
    assert open_volume(f"{url}#resolution=8,8,8").resolution_nm == (8, 8, 8)
    for number, (attributes, names) in enumerate([({"axes": "xyz"}, None), ({}, ["x", "y", "z"])]):
        url = image(tmp_path / f"{number}.zarr", attributes, names) + part
        with pytest.raises(VolumeError, match=r"states its axes in two ways .multiscales = z, y, x"):
            open_volume(url)
        assert open_volume(f"{url}#axes=zyx").resolution_nm == (40, 8, 4)


@pytest.mark.parametrize(
    ("attributes", "names"),
    [
        ({"resolution_nm": [40, 8, 4], "axes": "zyx"}, ["z", "y", "x"]),
        ({"_ARRAY_DIMENSIONS": ["z", "y", "x"]}, ["dim_0", "dim_1", "dim_2"]),
        ({}, ["z", "y", "x"]),
    ],
)
def test_an_array_that_agrees_with_its_image_opens(
    attributes: dict[str, Any], names: list[str], tmp_path: Path
) -> None:
    assert open_volume(image(tmp_path / "a.zarr", attributes, names)).resolution_nm == (40, 8, 4)


@pytest.mark.parametrize("shards", [None, (4, 4, 6)])
@pytest.mark.parametrize("order", [(2, 0, 1), (2, 1, 0), (0, 2, 1)])
def test_codecs_that_transpose_change_no_axis(order: tuple[int, ...], shards: Any, tmp_path: Path) -> None:
    """Big-endian, transposed and in shards: all of that is how voxels are stored, and not where they are."""
    array = zarr.create_array(
        str(tmp_path / "a.zarr"),
        shape=DATA.shape,
        dtype="u2",
        chunks=(2, 2, 3),
        shards=shards,
        filters=[TransposeCodec(order=order)],
        serializer=BytesCodec(endian="big"),
    )
    array[...] = DATA
    volume = open_volume(f"{tmp_path}/a.zarr#resolution=40,8,4")
    np.testing.assert_array_equal(volume[...], DATA)
    assert volume.spec.storage_chunk == (2, 2, 3)
