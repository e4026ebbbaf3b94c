"""``gs://`` against an imitation of its protocol: keys, ranges, generations, and objects that others compressed."""

import gzip
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import StorageError
from pipeline.geometry import BoundingBox
from pipeline.storage import ObjectStore, bucket_client, credentials
from pipeline.volumes import VolumeSpec, create_volume, open_volume
from tests.objectstore.google import GoogleServer, Stored, google_server
from tests.objectstore.server import set_environment


@pytest.fixture
def google(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GoogleServer]:
    """A server, and a key file as cloud-volume's users have one."""
    with google_server() as server:
        server.key_file(tmp_path / "secrets" / "google-secret.json")
        set_environment(monkeypatch, {"CLOUD_VOLUME_DIR": str(tmp_path)})
        yield server
    bucket_client.connect.cache_clear()


def test_objects_come_back(google: GoogleServer) -> None:
    store = ObjectStore("gs://bucket/a/run")
    store.put("key", b"0123456789", durable=True)
    assert store.get("key") == b"0123456789"
    assert store.get("key", 2, 5) == b"234"
    assert store.get("key", -4) == b"6789"
    assert store.get("key", 20) == b""
    store.put("folder/other", b"x")
    assert store.list() == ["folder/other", "key"]
    assert store.list("fol") == ["folder/other"]
    store.delete("key")
    store.delete("key")
    assert not store.exists("key")
    assert store.get_or_none("key") is None
    assert all(key.startswith("a/run/") for key in google.objects)


def test_a_generation_decides_who_is_faster(google: GoogleServer) -> None:
    store = ObjectStore("gs://bucket/run")
    version = store.put_if("lease", b"first", None)
    assert version
    assert store.put_if("lease", b"rival", None) is None
    assert store.get_versioned("lease") == (b"first", version)
    second = store.put_if("lease", b"second", version)
    assert second
    assert store.put_if("lease", b"rival", version) is None
    assert store.get("lease") == b"second"


@pytest.mark.parametrize("kind", ["", "precomputed://"])
def test_volumes_are_written_and_read(google: GoogleServer, kind: str) -> None:
    spec = VolumeSpec(BoundingBox((1, 2, 3), (21, 32, 43)), (8.0, 8.0, 8.0), np.dtype("uint64"), None, (16, 16, 16))
    data = np.random.default_rng(0).integers(1, 99, spec.bounds.shape, "uint64")
    create_volume(f"{kind}gs://bucket/v", spec).write(spec.bounds, data)
    assert (open_volume(f"{kind}gs://bucket/v").read(spec.bounds) == data).all()
    for key, found in list(google.objects.items()):  # gzip, as cloud-volume stores them by default
        if kind and not key.endswith("info"):
            google.objects[key] = Stored(gzip.compress(found.data), {"content-encoding": "gzip"}, 7)
    assert (open_volume(f"{kind}gs://bucket/v").read(spec.bounds) == data).all()


def test_public_data_needs_no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Requests are signed on Google's machines and with a key file; elsewhere public data needs no credentials."""
    set_environment(monkeypatch, {"HOME": str(tmp_path)})
    monkeypatch.setattr(credentials, "PRODUCT", tmp_path / "product_name")
    assert not credentials.google_access().signed
    (tmp_path / "product_name").write_text("Google Compute Engine\n")
    assert credentials.google_access().signed
    (tmp_path / "product_name").write_text("PowerEdge\n")
    assert not credentials.google_access().signed
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    assert credentials.google_access().signed


def test_a_missing_bucket_is_named(google: GoogleServer) -> None:
    with pytest.raises(StorageError, match=r"there is no bucket nothing at http://127"):
        ObjectStore("gs://nothing/run").exists("key")
