"""Volumes on a real S3 server fulfil the contract of volumes, also where cloud-volume behaves otherwise."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import cloudvolume
import numpy as np
import pytest

from pipeline.errors import CorruptError
from pipeline.geometry import BoundingBox
from pipeline.storage import ObjectStore
from pipeline.volumes import VolumeSpec, create_volume, open_volume
from pipeline.volumes.ome_zarr import ZarrVolume
from pipeline.volumes.zarr_store import ZarrStore
from tests.contracts.volume import WriteContract
from tests.objectstore.server import KEY, SECRET, S3Server, set_environment

BOUNDS = BoundingBox((5, -6, 7), (45, 34, 57))
SPEC = VolumeSpec(BOUNDS, (50.0, 4.6, 4.0), np.dtype("uint64"), None, (16, 16, 32))
DATA = np.random.default_rng(0).integers(1, 99, BOUNDS.shape, "uint64")


class InABucket(WriteContract):
    """The contract with only a few types, since the codecs are tested on local files."""

    __test__ = False
    dtypes = ("uint8", "uint64")
    scheme = ""

    @pytest.fixture(autouse=True)
    def _bucket(self, bucket: str) -> None:
        self.bucket = bucket

    def url(self, folder: Path) -> str:
        return f"{self.scheme}{self.bucket}{folder}"


class TestZarr(InABucket):
    __test__ = True


class TestShardedZarr(InABucket):
    __test__ = True
    storage_shard = (32, 16, 32)


class TestPrecomputed(InABucket):
    __test__ = True
    scheme = "precomputed://"


@pytest.mark.parametrize("kind", ["", "zarr://", "precomputed://"])
def test_another_server_is_named_in_the_address_itself(
    kind: str, server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A volume opens at an address that names its server; cloud-volume itself refuses such an address."""
    without = {name: value for name, value in server.environment.items() if name != "AWS_ENDPOINT_URL"}
    set_environment(monkeypatch, without)
    url = f"{kind}s3://{server.endpoint}/{server.new_bucket()}/data/v"
    create_volume(url, SPEC).write(BOUNDS, DATA)
    assert (open_volume(url).read(BOUNDS) == DATA).all()
    with pytest.raises(Exception, match=r"Cloud Path must conform|Unsupported|not supported"):
        cloudvolume.CloudVolume(f"precomputed://s3://{server.endpoint}/bucket/v")


def test_keys_without_a_session_token_are_enough(bucket: str) -> None:
    """Keys without ``AWS_SESSION_TOKEN`` are enough; cloud-files alone raises KeyError."""
    url = f"precomputed://{bucket}/layer"
    create_volume(url, SPEC).write(BOUNDS, DATA)
    assert (open_volume(url).read(BOUNDS) == DATA).all()
    command = [sys.executable, "-c", f"import cloudvolume; cloudvolume.CloudVolume({url!r})"]
    assert "KeyError: 'AWS_SESSION_TOKEN'" in subprocess.run(command, capture_output=True, text=True).stderr


@pytest.fixture
def cloud_volume_options(bucket: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """The options that cloud-volume needs for the test server besides ``AWS_ENDPOINT_URL``."""
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    return {"progress": False, "secrets": {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}}


def test_cloud_volume_reads_what_was_written(bucket: str, cloud_volume_options: dict[str, object]) -> None:
    url = f"precomputed://{bucket}/layer"
    create_volume(url, SPEC).write(BOUNDS, DATA)
    other = cloudvolume.CloudVolume(url, **cloud_volume_options)
    assert (np.asarray(other[7:57, -6:34, 5:45])[..., 0].T == DATA).all()


def layer(url: str, options: dict[str, object], **changes: object) -> cloudvolume.CloudVolume:
    """A layer as cloud-volume makes it, with all vectors in x, y, z."""
    info = cloudvolume.CloudVolume.create_new_info(
        **{
            "num_channels": 1,
            "layer_type": "segmentation",
            "data_type": "uint64",
            "encoding": "compressed_segmentation",
            "resolution": [4, 4.6, 50],
            "voxel_offset": [7, -6, 5],
            "volume_size": [50, 40, 40],
            "chunk_size": [32, 16, 16],
            **changes,
        }
    )
    made = cloudvolume.CloudVolume(url, info=info, **options)
    made.commit_info()
    return made


@pytest.mark.parametrize("compress", [True, "br", "zstd", False])
def test_reads_what_cloud_volume_wrote_compressed(
    bucket: str, cloud_volume_options: dict[str, object], compress: object
) -> None:
    """Chunks that cloud-volume compressed are read, although only the object's metadata says so."""
    url = f"precomputed://{bucket}/layer"
    layer(url, {**cloud_volume_options, "compress": compress})[7:57, -6:34, 5:45] = DATA.T[..., None]
    assert (open_volume(url).read(BOUNDS) == DATA).all()
    box = BoundingBox((6, 0, 8), (20, 20, 50))
    open_volume(url, mode="r+").write(box, np.zeros(box.shape, "uint64"))
    expected = DATA.copy()
    expected[box.slices(BOUNDS.start)] = 0
    assert (open_volume(url).read(BOUNDS) == expected).all()


def test_reads_sharded_layers(bucket: str, cloud_volume_options: dict[str, object]) -> None:
    """Sharded layers are read by byte ranges, also where a shard or a chunk is missing."""
    url = f"precomputed://{bucket}/layer"
    size = [70, 64, 64]
    other = layer(url, cloud_volume_options, volume_size=size, chunk_size=[16, 16, 16], encoding="raw")
    other.scale["sharding"] = {
        "@type": "neuroglancer_uint64_sharded_v1",
        "preshift_bits": 3,
        "hash": "identity",
        "minishard_bits": 0,
        "shard_bits": 4,
        "minishard_index_encoding": "gzip",
        "data_encoding": "gzip",
    }
    other.commit_info()
    data = np.random.default_rng(1).integers(0, 255, size[::-1], "uint64")
    store = ObjectStore(f"{bucket}/layer/{other.key}")
    for corner in list(np.ndindex(3, 2, 2))[1:]:
        low = np.multiply(corner, 32)
        part = data.T[tuple(slice(a, a + 32) for a in low)][..., None]
        high = np.minimum(np.add(low, 32), size)
        box = cloudvolume.Bbox(np.add(low, [7, -6, 5]), np.add(high, [7, -6, 5]))
        name, content = other.image.make_shard(np.asfortranarray(part), box)
        store.put(name, content)
    data[:32, :32, :32] = 0
    volume = open_volume(url)
    assert (volume.read(volume.spec.bounds) == data).all()
    inner = BoundingBox((20, 10, 30), (50, 40, 70))
    assert (volume.read(inner) == data[inner.slices(volume.spec.bounds.start)]).all()


def test_a_damaged_chunk_of_another_program_is_an_error(bucket: str, server: S3Server) -> None:
    """A damaged chunk of another program, which has no checksum, is an error when its codec cannot decode it."""
    create_volume(f"precomputed://{bucket}/v", SPEC).write(BOUNDS, DATA)
    client, name = server.client(), bucket.removeprefix("s3://")
    keys = [item["Key"] for item in client.list_objects_v2(Bucket=name)["Contents"] if "7-39_" in item["Key"]]
    whole = client.get_object(Bucket=name, Key=keys[0])["Body"].read()
    client.put_object(Bucket=name, Key=keys[0], Body=whole[:-8])
    with pytest.raises(CorruptError, match="holds damaged data in box"):
        open_volume(f"{bucket}/v").read(BOUNDS)


def test_stores_travel_without_credentials(bucket: str) -> None:
    """A pickled store holds no credentials, unlike obstore's own stores."""
    volume = create_volume(f"{bucket}/v.zarr", SPEC)
    assert isinstance(volume, ZarrVolume)
    store = ZarrStore(ObjectStore(f"{bucket}/v.zarr/0"))
    for thing in (store, volume):
        data = pickle.dumps(thing)
        assert not [secret for secret in (KEY, SECRET) if secret.encode() in data]
        assert pickle.loads(data) is not None
    other = pickle.loads(pickle.dumps(store))
    assert json.loads(other.get_sync("zarr.json").to_bytes())["node_type"] == "array"
