"""Zarr volumes of other programs are read: versions, shards, OME-Zarr units, levels and translations."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from pipeline.errors import CorruptError, VolumeError
from pipeline.geometry import BoundingBox
from pipeline.volumes import VolumeSpec, create_volume, open_volume

SHAPE = (6, 8, 10)
DATA = np.arange(np.prod(SHAPE), dtype="uint16").reshape(SHAPE)


def multiscale(
    axes: list[Any],
    levels: list[dict[str, list[float]]],
    outer: dict[str, list[float]] | None = None,
    version: str = "0.5",
) -> dict[str, Any]:
    """Group attributes, each level's and the image's transformations as name -> values."""

    def steps(transform: dict[str, list[float]]) -> list[dict[str, Any]]:
        return [{"type": name, name: values} for name, values in transform.items()]

    datasets = [{"path": f"s{i}", "coordinateTransformations": steps(level)} for i, level in enumerate(levels)]
    image: dict[str, Any] = {"axes": axes, "datasets": datasets, "name": "image"}
    if outer:
        image["coordinateTransformations"] = steps(outer)
    return (
        {"ome": {"version": "0.5", "multiscales": [image]}}
        if version == "0.5"
        else {"multiscales": [image | {"version": version}]}
    )


def space(unit: str | None, names: str = "zyx") -> list[dict[str, str]]:
    return [{"name": name, "type": "space"} | ({"unit": unit} if unit else {}) for name in names]


def write_group(folder: Path, attributes: dict[str, Any], levels: list[np.ndarray], zarr_format: int = 3) -> str:
    group = zarr.open_group(folder, mode="w", zarr_format=zarr_format, attributes=attributes)  # type: ignore[arg-type]
    for number, data in enumerate(levels):
        group.create_array(f"s{number}", shape=data.shape, dtype=data.dtype, chunks=(4,) * data.ndim)[...] = data
    return str(folder)


@pytest.mark.parametrize(("version", "zarr_format"), [("0.4", 2), ("0.5", 3)])
def test_units_scale_and_translation_become_nanometres_and_voxels(
    tmp_path: Path, version: str, zarr_format: int
) -> None:
    level = {"scale": [0.05, 0.0046, 0.0046], "translation": [0.1, -0.0046, 0.046]}
    url = write_group(tmp_path, multiscale(space("micrometer"), [level], version=version), [DATA], zarr_format)
    volume = open_volume(url)
    assert volume.spec.resolution_nm == (50.0, 4.6, 4.6)
    assert volume.spec.bounds == BoundingBox.from_shape(SHAPE, (2, -1, 10))
    assert volume.spec.storage_chunk == (4, 4, 4)
    assert (volume.read(volume.spec.bounds) == DATA).all()


def test_transformations_of_the_image_apply_after_those_of_the_level(tmp_path: Path) -> None:
    """A position is outer translation + outer scale * (translation + scale * index)."""
    level = {"scale": [1.0, 1.0, 1.0], "translation": [1.0, 2.0, 3.0]}
    outer = {"scale": [40.0, 8.0, 8.0], "translation": [80.0, 0.0, 16.0]}
    spec = open_volume(write_group(tmp_path, multiscale(space("nanometer"), [level], outer), [DATA])).spec
    assert spec.resolution_nm == (40.0, 8.0, 8.0)
    assert spec.bounds.start == (3, 2, 5)


def test_a_level_is_picked_by_mip_or_by_its_path(tmp_path: Path) -> None:
    levels = [{"scale": [8.0, 8.0, 8.0]}, {"scale": [16.0, 16.0, 16.0]}]
    url = write_group(tmp_path / "a.zarr", multiscale(space("nanometer"), levels), [DATA, DATA[::2, ::2, ::2]])
    assert open_volume(url).spec.resolution_nm == (8.0, 8.0, 8.0)
    for coarse in (open_volume(f"{url}#mip=1"), open_volume(f"{url}/s1"), open_volume(f"zarr://{url}/s1/")):
        assert coarse.spec.resolution_nm == (16.0, 16.0, 16.0)
        assert (coarse.read(coarse.spec.bounds) == DATA[::2, ::2, ::2]).all()
    with pytest.raises(VolumeError, match="no mip 2; it has 2 levels"):
        open_volume(f"{url}#mip=2")


def test_an_offset_between_voxels_is_refused_with_its_value(tmp_path: Path) -> None:
    """A level made by averaging is shifted by half a fine voxel, which is no whole number of coarse voxels."""
    level = {"scale": [16.0, 16.0, 16.0], "translation": [4.0, 4.0, 4.0]}
    url = write_group(tmp_path, multiscale(space("nanometer"), [level]), [DATA])
    with pytest.raises(VolumeError, match=r"\(0\.25, 0\.25, 0\.25\) voxels.*#offset=z,y,x"):
        open_volume(url)


def test_time_and_channel_axes_of_one_entry_are_left_out(tmp_path: Path) -> None:
    axes = [{"name": "t", "type": "time"}, {"name": "c", "type": "channel"}, *space("nanometer")]
    url = write_group(tmp_path, multiscale(axes, [{"scale": [1.0, 1.0, 40.0, 8.0, 4.0]}]), [DATA[None, None]])
    volume = open_volume(url)
    assert volume.spec.channels is None
    assert volume.spec.resolution_nm == (40.0, 8.0, 4.0)
    assert (volume.read(volume.spec.bounds) == DATA).all()


def test_several_times_are_refused(tmp_path: Path) -> None:
    axes = [{"name": "t", "type": "time"}, *space("nanometer")]
    url = write_group(tmp_path, multiscale(axes, [{"scale": [1.0, 40.0, 8.0, 4.0]}]), [np.stack([DATA, DATA])])
    with pytest.raises(VolumeError, match="2 entries along axis t"):
        open_volume(url)


def test_axes_in_another_order_are_turned(tmp_path: Path) -> None:
    axes = [*space("nanometer", "xyz"), {"name": "c", "type": "channel"}]
    data = np.stack([DATA, DATA + 1000])
    url = write_group(tmp_path, multiscale(axes, [{"scale": [4.0, 8.0, 40.0, 1.0]}]), [data.transpose(3, 2, 1, 0)])
    volume = open_volume(url, mode="r+")
    assert volume.spec.resolution_nm == (40.0, 8.0, 4.0)
    assert (volume.read(volume.spec.bounds) == data).all()
    box = BoundingBox((1, 2, 3), (4, 6, 8))
    volume.write(box, data[:, :3, :4, :5])
    assert (open_volume(url).read(box) == data[:, :3, :4, :5]).all()


def test_missing_units_ask_for_the_resolution_and_take_it_from_the_url(tmp_path: Path) -> None:
    url = write_group(
        tmp_path, multiscale(space(None), [{"scale": [1.0, 1.0, 1.0], "translation": [5.0, 0.0, 0.0]}]), [DATA]
    )
    with pytest.raises(VolumeError, match="#resolution=8,8,8"):
        open_volume(url)
    spec = open_volume(f"{url}#resolution=50,4.6,4.6").spec
    assert spec.resolution_nm == (50.0, 4.6, 4.6)
    assert spec.bounds.start == (5, 0, 0)


def test_an_unknown_unit_is_refused(tmp_path: Path) -> None:
    url = write_group(tmp_path, multiscale(space("furlong"), [{"scale": [1.0, 1.0, 1.0]}]), [DATA])
    with pytest.raises(VolumeError, match="'furlong'"):
        open_volume(url)


def test_a_created_volume_is_ome_zarr_for_any_viewer(tmp_path: Path) -> None:
    """The metadata suffices for a program that knows nothing but the OME-Zarr specification."""
    spec = VolumeSpec(BoundingBox((2, -3, 4), (30, 20, 40)), (50.0, 4.6, 8.0), np.dtype("uint8"), 3, (8, 8, 8))
    create_volume(str(tmp_path / "image.zarr"), spec)
    group = zarr.open_group(tmp_path / "image.zarr", mode="r")
    ome: Any = group.attrs["ome"]
    image = ome["multiscales"][0]
    assert ome["version"] == "0.5"
    assert [(axis["name"], axis["type"], axis.get("unit")) for axis in image["axes"]] == [
        ("c", "channel", None),
        ("z", "space", "nanometer"),
        ("y", "space", "nanometer"),
        ("x", "space", "nanometer"),
    ]
    transforms = image["datasets"][0]["coordinateTransformations"]
    assert transforms[0] == {"type": "scale", "scale": [1.0, 50.0, 4.6, 8.0]}
    assert transforms[1] == {"type": "translation", "translation": [0.0, 100.0, pytest.approx(-13.8), 32.0]}
    array: Any = group[image["datasets"][0]["path"]]
    assert array.shape == (3, 28, 23, 36)
    assert array.metadata.dimension_names == ("c", "z", "y", "x")


def test_a_sharded_volume_stores_one_object_a_shard(tmp_path: Path) -> None:
    spec = VolumeSpec(
        BoundingBox.from_shape((40, 40, 40)), (8.0, 8.0, 8.0), np.dtype("uint8"), None, (8, 8, 8), (16, 16, 32)
    )
    volume = create_volume(str(tmp_path / "v.zarr"), spec)
    volume.write(spec.bounds, np.ones(spec.bounds.shape, "uint8"))
    stored = [p for p in (tmp_path / "v.zarr/0/c").rglob("*") if p.is_file()]
    assert len(stored) == 3 * 3 * 2
    assert volume.spec.write_unit == (16, 16, 32)


def test_an_all_zero_chunk_takes_no_space(tmp_path: Path) -> None:
    spec = VolumeSpec(BoundingBox.from_shape((16, 16, 16)), (8.0, 8.0, 8.0), np.dtype("uint8"), None, (8, 8, 8))
    volume = create_volume(str(tmp_path / "v.zarr"), spec)
    volume.write(spec.bounds, np.zeros(spec.bounds.shape, "uint8"))
    assert not (tmp_path / "v.zarr/0/c").exists()


def test_an_array_that_was_created_without_its_group_is_no_volume_and_is_made_again(tmp_path: Path) -> None:
    """An array without its group, as kill -9 can leave it, is no volume, and creating it again empties it."""
    spec = VolumeSpec(BoundingBox.from_shape(SHAPE), (8.0, 8.0, 8.0), np.dtype("uint16"), None, (4, 4, 4))
    url = str(tmp_path / "v.zarr")
    create_volume(url, spec).write(spec.bounds, DATA)
    (tmp_path / "v.zarr/zarr.json").unlink()
    with pytest.raises(VolumeError, match="is no volume"):
        open_volume(url)
    assert not create_volume(url, spec).read(spec.bounds).any()


@pytest.mark.parametrize(
    ("kind", "left"),
    [
        ("zarr", "0/"),
        ("zarr", "0/.zarr.json.7f.partial"),
        ("zarr", ".zarr.json.7f.partial"),
        ("precomputed", ".info.7f.partial"),
    ],
)
def test_a_creation_that_had_stored_nothing_yet_is_repeated(tmp_path: Path, kind: str, left: str) -> None:
    """Creation succeeds over what a full disk, or kill -9 within a write, has left."""
    path = tmp_path / "volume" / left
    (path if left.endswith("/") else path.parent).mkdir(parents=True)
    if not left.endswith("/"):
        path.write_text("{")
    spec = VolumeSpec(BoundingBox.from_shape(SHAPE), (8.0, 8.0, 8.0), np.dtype("uint16"))
    assert create_volume(str(tmp_path / "volume"), spec, format=kind).spec == spec


def test_a_folder_with_other_things_is_never_replaced(tmp_path: Path) -> None:
    """A folder that holds other files is never replaced, not even with `overwrite`."""
    (tmp_path / "thesis.txt").write_text("years of work")
    spec = VolumeSpec(BoundingBox.from_shape(SHAPE), (8.0, 8.0, 8.0), np.dtype("uint16"))
    for kind in ("zarr", "precomputed"):
        for overwrite in (False, True):
            with pytest.raises(VolumeError, match=r"other things in it \(thesis.txt\)"):
                create_volume(str(tmp_path), spec, format=kind, overwrite=overwrite)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("shard", [None, (8, 8, 8)])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_a_damaged_chunk_is_an_error_that_names_volume_and_box(tmp_path: Path, damage: str, shard: Any) -> None:
    spec = VolumeSpec(
        BoundingBox.from_shape((8, 8, 8), (1, 2, 3)), (8.0,) * 3, np.dtype("uint16"), None, (4, 4, 4), shard
    )
    url = str(tmp_path / "v.zarr")
    volume = create_volume(url, spec)
    volume.write(spec.bounds, np.random.default_rng(0).integers(0, 9999, (8, 8, 8), "uint16"))
    victim = tmp_path / "v.zarr/0/c/0/0/0"
    data = bytearray(victim.read_bytes())
    data[60] ^= 64
    victim.write_bytes({"truncated": bytes(data[:50]), "flipped": bytes(data), "empty": b""}[damage])
    with pytest.raises(CorruptError, match=r"v\.zarr holds damaged data in box 1\.\.9 x 2\.\.10 x 3\.\.11"):
        volume.read(spec.bounds)


def test_metadata_that_is_no_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "zarr.json").write_text('{"node_type": "gr')
    with pytest.raises(VolumeError, match="not JSON"):
        open_volume(str(tmp_path))


def test_metadata_that_is_no_ome_zarr_is_named(tmp_path: Path) -> None:
    attributes = {"ome": {"multiscales": [{"axes": space("nanometer")}]}}
    (tmp_path / "zarr.json").write_text(json.dumps({"zarr_format": 3, "node_type": "group", "attributes": attributes}))
    with pytest.raises(VolumeError, match="not OME-Zarr"):
        open_volume(str(tmp_path))


def test_a_group_without_an_image_asks_for_a_path(tmp_path: Path) -> None:
    zarr.open_group(tmp_path, mode="w")
    with pytest.raises(VolumeError, match="open an array in it by its path"):
        open_volume(str(tmp_path))
