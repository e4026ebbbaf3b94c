"""Precomputed layers are exchanged with cloud-volume, on the disk and in a bucket."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import cloudvolume
import numpy as np
import pytest

from pipeline.errors import ConfigError, CorruptError, VolumeError
from pipeline.geometry import BoundingBox
from pipeline.volumes import VolumeSpec, create_volume, open_volume

BOUNDS = BoundingBox((5, -6, 7), (45, 34, 57))
SPEC = VolumeSpec(BOUNDS, (50.0, 4.6, 4.0), np.dtype("uint8"), None, (16, 16, 32))
DATA = np.random.default_rng(0).integers(1, 255, BOUNDS.shape, "uint8")


def layer(folder: Path, **changes: Any) -> cloudvolume.CloudVolume:
    """A layer as cloud-volume itself makes it; everything is x, y, z here."""
    info = cloudvolume.CloudVolume.create_new_info(
        **{
            "num_channels": 1,
            "layer_type": "image",
            "data_type": "uint8",
            "encoding": "raw",
            "resolution": [4, 4.6, 50],
            "voxel_offset": [7, -6, 5],
            "volume_size": [50, 40, 40],
            "chunk_size": [32, 16, 16],
            **changes,
        }
    )
    result = cloudvolume.CloudVolume(f"file://{folder}", info=info, progress=False, fill_missing=True)
    result.commit_info()
    return result


def test_cloud_volume_reads_what_was_written(tmp_path: Path) -> None:
    create_volume(f"precomputed://{tmp_path}", SPEC).write(BOUNDS, DATA)
    other = cloudvolume.CloudVolume(f"file://{tmp_path}", progress=False)
    assert list(other.resolution) == [4.0, 4.6, 50.0]
    assert (np.asarray(other[7:57, -6:34, 5:45])[..., 0].T == DATA).all()


@pytest.mark.parametrize("encoding", ["raw", "compressed_segmentation"])
def test_reads_what_cloud_volume_wrote_with_its_default_compression(tmp_path: Path, encoding: str) -> None:
    labels = DATA.astype("uint64")
    other = layer(tmp_path, layer_type="segmentation", data_type="uint64", encoding=encoding)
    other[7:57, -6:34, 5:45] = labels.T[..., None]
    assert list(tmp_path.rglob("*.gz"))
    volume = open_volume(str(tmp_path))
    assert volume.spec.resolution_nm == (50.0, 4.6, 4.0)
    assert (volume.read(BOUNDS) == labels).all()


def test_a_written_chunk_is_not_hidden_by_an_older_compressed_one(tmp_path: Path) -> None:
    layer(tmp_path)[7:57, -6:34, 5:45] = DATA.T[..., None]
    volume = open_volume(str(tmp_path), mode="r+")
    box = BoundingBox((6, 0, 8), (20, 20, 50))
    volume.write(box, np.zeros(box.shape, "uint8"))
    expected = DATA.copy()
    expected[box.slices(BOUNDS.start)] = 0
    assert (open_volume(str(tmp_path)).read(BOUNDS) == expected).all()
    volume.write(BOUNDS, DATA)
    assert not list(tmp_path.rglob("*.gz"))


def test_reads_sharded_layers_and_does_not_write_them(tmp_path: Path) -> None:
    size = [64, 64, 64]
    other = layer(tmp_path, volume_size=size, chunk_size=[16, 16, 16], voxel_offset=[7, -6, 5])
    other.scale["sharding"] = other.image.meta.scale(0)["sharding"] = {
        "@type": "neuroglancer_uint64_sharded_v1",
        "preshift_bits": 3,
        "hash": "identity",
        "minishard_bits": 0,
        "shard_bits": 3,
        "minishard_index_encoding": "gzip",
        "data_encoding": "gzip",
    }
    other.commit_info()
    data = np.random.default_rng(1).integers(0, 255, (64, 64, 64), "uint8")
    for corner in np.ndindex(2, 2, 2):
        low = np.multiply(corner, 32)
        part = data.T[tuple(slice(a, a + 32) for a in low)][..., None]
        box = cloudvolume.Bbox(np.add(low, [7, -6, 5]), np.add(low, [39, 26, 37]))
        name, content = other.image.make_shard(np.asfortranarray(part), box)
        (tmp_path / other.key).mkdir(exist_ok=True)
        (tmp_path / other.key / name).write_bytes(content)
    volume = open_volume(str(tmp_path))
    assert volume.spec.storage_shard == (32, 32, 32)
    assert (volume.read(volume.spec.bounds) == data).all()
    with pytest.raises(VolumeError, match="sharded"):
        open_volume(str(tmp_path), mode="r+")


def test_a_mip_is_picked_by_number(tmp_path: Path) -> None:
    other = layer(tmp_path)
    other.add_scale((2, 2, 1))
    other.commit_info()
    open_volume(f"{tmp_path}#mip=1", mode="r+")[0, 0, 0] = 1
    coarse = open_volume(f"precomputed://{tmp_path}#mip=1").spec
    assert coarse.resolution_nm == (50.0, 9.2, 8.0)
    assert coarse.bounds.start == (5, -3, 3)
    with pytest.raises(VolumeError, match="has no mip 2; it has 2, 0 to 1"):
        open_volume(f"{tmp_path}#mip=2")
    with pytest.raises(ConfigError, match="mip is 'fine'"):
        open_volume(f"{tmp_path}#mip=fine")


def test_labels_become_a_segmentation_layer_and_images_an_image_layer(tmp_path: Path) -> None:
    for dtype, channels, kind, encoding in [
        ("uint8", None, "image", "raw"),
        ("float32", 3, "image", "raw"),
        ("uint32", None, "segmentation", "compressed_segmentation"),
        ("uint64", None, "segmentation", "compressed_segmentation"),
    ]:
        folder = tmp_path / f"{dtype}{channels}"
        create_volume(f"precomputed://{folder}", VolumeSpec(BOUNDS, (8.0,) * 3, np.dtype(dtype), channels))
        other = cloudvolume.CloudVolume(f"file://{folder}", progress=False)
        assert (other.layer_type, other.encoding, other.num_channels) == (kind, encoding, channels or 1)


def test_lossy_layers_are_only_read(tmp_path: Path) -> None:
    other = layer(tmp_path, encoding="jpeg")
    other[7:57, -6:34, 5:45] = np.full((50, 40, 40, 1), 100, "u1")
    assert (open_volume(str(tmp_path)).read(BOUNDS) == 100).all()
    with pytest.raises(VolumeError, match="jpeg, which loses detail"):
        open_volume(str(tmp_path), mode="r+")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (VolumeSpec(BOUNDS, (8.0,) * 3, np.dtype("float64")), "hold float64"),
        (VolumeSpec(BOUNDS, (8.0,) * 3, np.dtype("uint8"), None, (8, 8, 8), (16, 16, 16)), "shards"),
    ],
)
def test_what_the_format_cannot_hold_is_refused(tmp_path: Path, spec: VolumeSpec, message: str) -> None:
    with pytest.raises(VolumeError, match=message):
        create_volume(f"precomputed://{tmp_path / 'new'}", spec)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("dtype", ["uint8", "uint64"])
@pytest.mark.parametrize("keep", [0, 1, 1000])
def test_a_truncated_chunk_is_an_error_and_never_zeros(tmp_path: Path, dtype: str, keep: int) -> None:
    """cloud-volume with fill_missing takes an empty object for a missing one."""
    spec = VolumeSpec(BOUNDS, (8.0,) * 3, np.dtype(dtype), None, (16, 16, 32))
    volume = create_volume(f"precomputed://{tmp_path}", spec)
    volume.write(BOUNDS, DATA.astype(dtype))
    victim = next(p for p in sorted(tmp_path.rglob("7-39_*")) if p.is_file())
    victim.write_bytes(victim.read_bytes()[:keep])
    with pytest.raises(CorruptError, match=r"damaged data in box 5\.\.45"):
        volume.read(BOUNDS)


def test_a_missing_layer_and_a_broken_info_are_named(tmp_path: Path) -> None:
    with pytest.raises(VolumeError, match=r"there is no .*nowhere/info"):
        open_volume(f"precomputed://{tmp_path}/nowhere")
    (tmp_path / "info").write_text('{"type": "image", "sca')
    with pytest.raises(VolumeError, match="cannot be opened"):
        open_volume(str(tmp_path))


def test_other_formats_do_not_load_cloud_volume() -> None:
    modules = "pipeline.volumes, pipeline.volumes.ingest, pipeline.volumes.ome_zarr"
    code = f"import sys, {modules}; print('cloudvolume' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
