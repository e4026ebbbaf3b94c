"""What a file says twice, in half, or of something that is not there is refused, and the remedy that is named works."""

import json
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
from pipeline.volumes import create_volume, open_volume
from pipeline.volumes.base import VolumeSpec

DATA = np.arange(60, dtype="uint8").reshape(3, 4, 5)
BRIEF = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
SIZES = {"resolution_nm": 1.0, "element_size_um": 1000.0, "voxel_size": 1.0, "resolution": 1.0}
"""Attributes with the size of a voxel, and the nanometres of their unit."""
NAMES = ("axes", "axis_names", "_ARRAY_DIMENSIONS")
SIDES = st.sampled_from([4.0, 8.0, 40.0])


def put_array(folder: Path, attributes: Any, **more: Any) -> str:
    zarr.create_array(str(folder), shape=DATA.shape, dtype="u1", chunks=DATA.shape, **more)[...] = DATA
    zarr.open_array(str(folder)).attrs.update(attributes)
    return str(folder)


@BRIEF
@given(st.sampled_from(sorted(SIZES)), st.sampled_from(sorted(SIZES)), *[st.tuples(SIDES, SIDES, SIDES)] * 2)
def test_sizes_that_differ_are_refused_and_equal_ones_are_read(
    first: str, second: str, one: tuple[float, ...], two: tuple[float, ...]
) -> None:
    """Two attributes may say the same in their own units; no attribute is preferred to another one."""
    attributes = {key: [side / SIZES[key] for side in sides] for key, sides in ((first, one), (second, two))}
    with TemporaryDirectory() as folder:
        url = put_array(Path(folder, "a.zarr"), attributes)
        if first == second or one == two:
            assert open_volume(url).resolution_nm == two
        else:
            with pytest.raises(VolumeError, match="several sizes of a voxel"):
                open_volume(url)
        assert open_volume(f"{url}#resolution=2,2,2").resolution_nm == (2, 2, 2)


@BRIEF
@given(st.sampled_from(NAMES), st.sampled_from(NAMES), st.permutations("zyx"), st.permutations("zyx"))
def test_axes_that_differ_are_refused_and_equal_ones_are_read(
    first: str, second: str, one: list[str], two: list[str]
) -> None:
    with TemporaryDirectory() as folder:
        url = put_array(Path(folder, "a.zarr"), {"resolution_nm": [8, 8, 8], first: one, second: two})
        if first == second or one == two:
            assert open_volume(url).shape == DATA.transpose([two.index(axis) for axis in "zyx"]).shape
        else:
            with pytest.raises(VolumeError, match="states its axes in two ways"):
                open_volume(url)
        assert open_volume(f"{url}#axes=zyx").shape == DATA.shape


@pytest.mark.parametrize("names", [("x", "y", "z"), (None, "y", "x")])
def test_names_of_dimensions_are_compared_with_those_of_attributes(names: Any, tmp_path: Path) -> None:
    """The names that zarr 3 keeps beside the attributes are read too, whole and not in part."""
    url = put_array(tmp_path / "a.zarr", {"resolution_nm": [8, 8, 8], "axes": "zyx"}, dimension_names=names)
    with pytest.raises(VolumeError, match="#axes=zyx"):
        open_volume(url)
    assert open_volume(f"{url}#axes=zyx").shape == DATA.shape


def test_the_sizes_of_a_dataset_replace_those_of_its_file(tmp_path: Path) -> None:
    """What a dataset says of itself is not mixed with what the file says of another one."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs.update({"resolution_nm": [1.0, 1, 1], "offset": [7.0, 7, 7], "units": "um"})
        file["raw"] = DATA
        file["raw"].attrs.update({"voxel_size": [40.0, 4, 4], "offset": [80.0, 0, 0]})
    spec = open_volume(f"{tmp_path}/a.h5").spec
    assert (spec.resolution_nm, spec.bounds.start) == ((40, 4, 4), (2, 0, 0))


@pytest.mark.parametrize("name", ["part.h5", "/somewhere/else/part.h5"])
def test_a_virtual_dataset_without_its_files_is_refused(name: str, tmp_path: Path) -> None:
    """HDF5 reads the voxels of a file that is not there as 0; petaseg names the file."""
    part = tmp_path / "part.h5"
    with h5py.File(part, "w") as file:
        file["raw"] = DATA
    layout = h5py.VirtualLayout(shape=DATA.shape, dtype="u1")
    layout[...] = h5py.VirtualSource(name, "raw", shape=DATA.shape)
    with h5py.File(tmp_path / "whole.h5", "w") as file:
        file.create_virtual_dataset("raw", layout)
    url = f"{tmp_path}/whole.h5#resolution=8,8,8"
    assert open_volume(url).bounds.shape == DATA.shape
    part.rename(tmp_path / "away.h5")
    with pytest.raises(VolumeError, match=f"1 are not there: {name}"):
        open_volume(url)


@pytest.mark.parametrize("link", [h5py.SoftLink("/gone"), h5py.ExternalLink("gone.h5", "/raw")])
def test_a_link_to_nothing_is_called_so(link: Any, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["raw"] = link
    with pytest.raises(VolumeError, match=r"is a link to .*gone.*, which is not there"):
        open_volume(f"{tmp_path}/a.h5:raw#resolution=8,8,8")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("folder.h5", "is a folder, and an HDF5 volume is a file"),
        ("folder.npy", "is a folder; .npy is read from local files"),
        ("zip.npy", "is no .npy file"),
        ("object.npy", "write its numbers with numpy.save"),
        ("stack", "is a link to nowhere, which is not there"),
    ],
)
def test_what_is_no_volume_is_called_what_it_is(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "folder.h5").mkdir()
    (tmp_path / "folder.npy").mkdir()
    with (tmp_path / "zip.npy").open("wb") as file:
        np.savez(file, raw=DATA)
    np.save(tmp_path / "object.npy", np.array([[[None]]]), allow_pickle=True)
    (tmp_path / "stack").mkdir()
    (tmp_path / "stack/z1.tif").symlink_to("nowhere")
    with pytest.raises(VolumeError, match=message):
        open_volume(f"{tmp_path}/{name}#resolution=8,8,8")


def group(folder: Path, attributes: Any) -> str:
    put_array(folder / "0", {}, zarr_format=2)
    (folder / ".zgroup").write_text('{"zarr_format": 2}')
    (folder / ".zattrs").write_text(json.dumps(attributes))
    return str(folder)


def image(path: str, **more: Any) -> dict[str, Any]:
    axes = [{"name": name, "type": "space", "unit": "nanometer"} for name in "zyx"]
    steps = [{"type": "scale", "scale": [40, 8, 4]}]
    return {"axes": axes, "datasets": [{"path": path, "coordinateTransformations": steps}], **more}


def test_a_group_of_two_images_asks_which_one(tmp_path: Path) -> None:
    url = group(tmp_path / "a.zarr", {"multiscales": [image("0"), image("1")]})
    with pytest.raises(VolumeError, match=f"holds 2 images; name the array that is meant: {url}/0, {url}/1"):
        open_volume(url)
    assert open_volume(f"{url}/0").resolution_nm == (40, 8, 4)


@pytest.mark.parametrize(
    "more", [{"version": "0.6"}, {"version": 9}, {"version": "0.6.dev2", "coordinateSystems": [{"name": "a"}]}]
)
def test_an_image_of_a_version_that_is_not_known_is_refused(more: dict[str, Any], tmp_path: Path) -> None:
    """Later versions write the order of the axes elsewhere; all options open the array."""
    url = group(tmp_path / "a.zarr", {"multiscales": [image("0", **more)]})
    for place in (url, f"{url}/0"):
        with pytest.raises(VolumeError, match="is not OME-Zarr"):
            open_volume(place)
    assert open_volume(f"{url}/0#axes=zyx&resolution=40,8,4&offset=0,0,0").shape == DATA.shape


def test_a_level_that_is_not_there_is_not_a_codec(tmp_path: Path) -> None:
    url = group(tmp_path / "a.zarr", {"multiscales": [image("9")]})
    with pytest.raises(VolumeError, match=r"lists an array at .*9, which is not there"):
        open_volume(url)


@BRIEF
@given(
    st.sampled_from(["size", "voxel_offset", "chunk_sizes", "encoding", "data_type", "num_channels"]),
    st.one_of(
        st.none(),
        st.text(max_size=3),
        st.floats(0.01, 0.99),
        st.lists(st.floats(0.01, 0.99) | st.integers(-5, 0), min_size=3, max_size=3),
        st.lists(st.integers(1, 9), max_size=2),
    ),
)
def test_an_info_file_with_any_value_is_named_by_its_key_or_read_whole(key: str, value: Any) -> None:
    """No number of an info file is cut to a whole one, and wrong ones are not called damaged voxels."""
    with TemporaryDirectory() as folder:
        bounds = open_volume(put_array(Path(folder, "a.zarr"), {"resolution_nm": [8, 8, 8]})).bounds
        url = f"{folder}/layer"
        create_volume(url, VolumeSpec(bounds, (8, 8, 8), DATA.dtype, None, bounds.shape), format="precomputed").write(
            bounds, DATA
        )
        info = json.loads(Path(url, "info").read_text())
        place = info["scales"][0] if key in info["scales"][0] else info
        place[key] = [value] if key == "chunk_sizes" else value
        Path(url, "info").write_text(json.dumps(info))
        if key == "voxel_offset" and isinstance(value, list) and len(value) == 3 and all(v == int(v) for v in value):
            assert open_volume(url).bounds.start == tuple(value[::-1])
        else:
            with pytest.raises(PetasegError, match=f"says {key} = .*: correct it"):
                open_volume(url)


@pytest.mark.parametrize("dtype", [np.dtype("Q"), np.dtype("q"), np.dtype("L"), np.dtype(">u8")])
def test_every_integer_of_eight_bytes_is_written(dtype: np.dtype, tmp_path: Path) -> None:
    """C has two types of eight bytes, and TIFF files come with the one that zarr does not know."""
    bounds = open_volume(put_array(tmp_path / "a.zarr", {"resolution_nm": [8, 8, 8]})).bounds
    volume = create_volume(f"{tmp_path}/b.zarr", VolumeSpec(bounds, (8, 8, 8), dtype.newbyteorder("=")))
    volume.write(bounds, DATA.astype(dtype.newbyteorder("=")))
    assert (volume[...] == DATA).all()


def test_floats_that_differ_between_processors_are_refused(tmp_path: Path) -> None:
    bounds = open_volume(put_array(tmp_path / "a.zarr", {"resolution_nm": [8, 8, 8]})).bounds
    with pytest.raises(VolumeError, match="at most 8 bytes"):
        create_volume(f"{tmp_path}/b.zarr", VolumeSpec(bounds, (8, 8, 8), np.dtype("longdouble")))


def test_sections_of_several_voxel_sizes_are_refused(tmp_path: Path) -> None:
    stack = tmp_path / "stack"
    stack.mkdir()
    for number, density in enumerate((125, 125, 62.5)):
        more: Any = {"metadata": {"axes": "ZYX", "spacing": 0.04, "unit": "um"}, "resolution": (density, density)}
        tifffile.imwrite(stack / f"z{number}.tif", DATA[:1], imagej=True, **more)
    with pytest.raises(VolumeError, match=r"several voxel sizes: z0.tif states .*, z2.tif .* adding #resolution"):
        open_volume(str(stack))
    assert open_volume(f"{stack}#resolution=40,8,8").shape == (3, 4, 5)


@pytest.mark.parametrize("corner", [2, 3, 4, 5, 8])
def test_sections_that_begin_at_another_corner_are_refused(corner: int, tmp_path: Path) -> None:
    """The tag that turns or mirrors an image is not left out; written as 1, the file opens."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, DATA, photometric="minisblack", metadata=None, extratags=[(274, "H", 1, corner, True)])
    with pytest.raises(VolumeError, match=f"Orientation {corner}"):
        open_volume(f"{path}#resolution=8,8,8")
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages.first.tags["Orientation"].overwrite(1)  # type: ignore[union-attr]
    assert (open_volume(f"{path}#resolution=8,8,8")[...] == DATA).all()


@pytest.mark.parametrize("name", ["1²{}.tif", "a²{}.tif"])
def test_names_with_other_digits_are_no_traceback(name: str, tmp_path: Path) -> None:
    for number in range(3):
        tifffile.imwrite(tmp_path / name.format(number), DATA[number])
    assert (open_volume(f"{tmp_path}#resolution=8,8,8")[...] == DATA).all()


@pytest.mark.parametrize("text", ["1_0,8,8", "٨,8,8", "8,8,1e-200", "8,8,1e10", "0x8,8,8", "8,8,8,", "8 8,8,8"])
def test_numbers_that_people_do_not_write_are_refused(text: str, tmp_path: Path) -> None:
    """Python reads 1_0 as 10 and digits of every script; sides of less than an atom are no sides."""
    np.save(tmp_path / "a.npy", DATA)
    with pytest.raises(PetasegError, match=r"three numbers|must be positive"):
        open_volume(f"{tmp_path}/a.npy#resolution={text}")
    assert open_volume(f"{tmp_path}/a.npy#resolution=8e0,.5,+8.").resolution_nm == (8, 0.5, 8)


@pytest.mark.parametrize("mip", ["٠", "1" * 5000, "-1", "0.0", "²"])
def test_a_mip_is_a_short_whole_number(mip: str, tmp_path: Path) -> None:
    with pytest.raises(PetasegError, match="it must be a whole number, 0 for the finest level"):
        open_volume(put_array(tmp_path / "a.zarr", {"resolution_nm": [8, 8, 8]}) + f"#mip={mip}")
