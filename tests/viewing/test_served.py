"""Volumes as the viewer reads them: chunks of precomputed layers over HTTP."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cloudvolume import CloudVolume

from pipeline.errors import ConfigError
from pipeline.geometry import BoundingBox, Vec
from pipeline.storage import ObjectStore
from pipeline.viewing.layers import layer_of_volume
from pipeline.viewing.loopback import LoopbackServer
from pipeline.viewing.served import ServedVolume, box_of
from pipeline.viewing.server import ServedLayer, serving
from tests.runs import write_volume

ARRAY = np.random.default_rng(0).integers(0, 1 << 40, (70, 20, 130)).astype(np.uint64)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LoopbackServer]:
    """Labels at an offset, affinities, and a folder with a file."""
    labels = write_volume(tmp_path / "labels.zarr", ARRAY, (40, 8, 8), (-5, 7, 100))
    heads = write_volume(tmp_path / "heads.zarr", np.arange(3 * 8, dtype=np.uint8).reshape(3, 2, 2, 2))
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "0.shard").write_bytes(bytes(range(100)))
    (tmp_path / "secret.txt").write_text("not served")
    layers = {
        "labels": ServedLayer(
            ServedVolume.open(labels, "segmentation"), {"inline": {}}, {"mesh": ObjectStore(tmp_path / "files")}
        ),
        "heads": ServedLayer(ServedVolume.open(heads, "image")),
    }
    with serving(layers) as running:
        yield running


def get(url: str, **headers: str) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        content: bytes = answer.read()
        return content


def refused(url: str, **headers: str) -> int:
    with pytest.raises(urllib.error.HTTPError) as error:
        get(url, **headers)
    error.value.close()
    return error.value.code


def test_cloud_volume_reads_what_is_served(server: LoopbackServer) -> None:
    """A reader of precomputed layers finds all voxels at their offset and with their size."""
    volume = CloudVolume(f"precomputed://{server.url}/labels", progress=False, use_https=True)
    assert list(volume.resolution) == [8, 8, 40]
    assert list(volume.voxel_offset) == [100, 7, -5]
    assert np.array_equal(np.asarray(volume[:, :, :])[..., 0].T, ARRAY)


def test_channels_follow_each_other(server: LoopbackServer) -> None:
    """A chunk of several channels is sent channel after channel, x fastest."""
    assert json.loads(get(f"{server.url}/heads/info"))["num_channels"] == 3
    assert get(f"{server.url}/heads/0/0-2_0-2_0-2") == bytes(range(24))


def test_files_are_served_in_parts(server: LoopbackServer) -> None:
    """A range of a file is answered with this range, and one behind its end is refused."""
    url = f"{server.url}/labels/mesh/0.shard"
    assert get(url) == bytes(range(100))
    assert get(url, Range="bytes=10-19") == bytes(range(10, 20))
    assert get(url, Range="bytes=90-199") == bytes(range(90, 100))
    assert refused(url, Range="bytes=100-120") == 416


@pytest.mark.parametrize(
    "path",
    [
        *("labels/mesh/../secret.txt", "labels/mesh/..%2Fsecret.txt", "labels/mesh//etc/passwd", "labels/mesh/no"),
        *("labels/0/0-1_0-1_0-1", "labels/7/100-101_7-8_0-1", "labels/0/x", "heads/properties/info", "no/info", "x"),
        *("labels/-1/100-101_7-8_0-1", "labels/0/100-100_7-8_0-1"),
    ],
)
def test_what_is_not_named_is_not_served(server: LoopbackServer, path: str) -> None:
    """Only the volumes and folders that were named are served, and only chunks that they have."""
    assert refused(f"{server.url}/{path}") == 404


def test_without_the_secret_nothing_is_served(server: LoopbackServer) -> None:
    """A page that does not know the secret reads nothing, and no other machine is answered."""
    assert refused(f"http://127.0.0.1:{server.server_address[1]}/guess/labels/info") == 404
    assert server.server_address[0] == "127.0.0.1"


def test_a_port_that_is_taken_is_refused(server: LoopbackServer) -> None:
    with pytest.raises(ConfigError, match=r"port .* cannot be used .*; give another one, or 0"):
        serving({}, server.server_address[1]).__enter__()


@pytest.mark.parametrize("box", [BoundingBox(Vec(-9, 0, 7), Vec(-2, 5, 70)), BoundingBox(Vec(0, 1, 2), Vec(3, 4, 5))])
def test_names_of_chunks_may_be_negative(box: BoundingBox) -> None:
    name = "_".join(f"{a}-{b}" for a, b in reversed(list(zip(box.start, box.stop, strict=True))))
    assert box_of(name) == box


@pytest.mark.parametrize(
    ("dtype", "labels", "kind", "sent"),
    [
        ("uint8", None, "image", "uint8"),
        ("uint16", None, "image", "uint16"),
        ("float64", None, "image", "float32"),
        ("uint32", None, "segmentation", "uint32"),
        ("int64", None, "segmentation", "uint64"),
        ("uint8", True, "segmentation", "uint32"),
        ("uint64", False, "image", "uint64"),
    ],
)
def test_a_layer_is_shown_as_its_type_says(
    tmp_path: Path, dtype: str, labels: bool | None, kind: str, sent: str
) -> None:
    """Wide integers are labels and all else is an image, unless somebody says otherwise."""
    path = tmp_path / "volume.npy"
    np.save(path, np.ones((4, 5, 6), dtype))
    layer = layer_of_volume(f"{path}#resolution=8,8,8", "volume", labels)
    assert (layer.kind, layer.served.info()["data_type"]) == (kind, sent)


def test_labels_that_are_no_integers_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "volume.npy", np.ones((4, 5, 6), np.float32))
    with pytest.raises(ConfigError, match="labels are integers"):
        layer_of_volume(f"{tmp_path}/volume.npy#resolution=8,8,8", "volume", labels=True)
