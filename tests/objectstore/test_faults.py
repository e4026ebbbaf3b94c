"""Behind a bad network, a read returns what was written or raises an error that names the cause."""

import random
from collections.abc import Iterator

import pytest

from pipeline.errors import CorruptError, StorageError
from pipeline.storage import ObjectStore, bucket, bucket_client
from pipeline.storage.bucket_client import Patience
from tests.objectstore.faults import KINDS, FaultyServer, behind_faults
from tests.objectstore.server import S3Server

QUICK = Patience(connect_seconds=2, stall_seconds=2, request_seconds=20, outage_seconds=20, longest_pause=0.1)


@pytest.fixture
def faulty(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyServer]:
    with behind_faults(server, QUICK, monkeypatch) as running:
        yield running


@pytest.fixture
def store(server: S3Server, faulty: FaultyServer) -> ObjectStore:
    return ObjectStore(f"s3://{server.new_bucket()}/run")


@pytest.mark.parametrize("kind", KINDS)
def test_every_fault_is_survived_by_every_operation(kind: str, store: ObjectStore, faulty: FaultyServer) -> None:
    """Under each kind of fault every operation gives the result that it gives without faults."""
    faulty.kinds, faulty.rate, faulty.seed = (kind,), 0.4, 1
    dice = random.Random(kind)
    model: dict[str, bytes] = {}
    for step in range(20):
        key = f"key{dice.randrange(6)}"
        action = dice.choice(["put", "put", "get", "range", "delete", "exists", "list"])
        if action == "put":
            model[key] = dice.randbytes(dice.randrange(2, 3000))
            store.put(key, model[key], durable=step % 5 == 0)
        elif action == "delete":
            model.pop(key, None)
            store.delete(key)
        elif action == "list":
            assert store.list() == sorted(model)
        elif action == "exists":
            assert store.exists(key) == (key in model)
        elif action == "range":
            found = store.get_or_none(key, 1, 2)
            assert found == (model[key][1:2] if key in model else None)
        else:
            assert store.get_or_none(key) == model.get(key)
    assert faulty.faults[kind] >= (0 if kind == "upload" else 3)


def test_all_faults_together_and_conditional_writes(store: ObjectStore, faulty: FaultyServer) -> None:
    """A conditional write whose answer was lost is recognised as one's own, so a holder does not lose its lease."""
    faulty.rate, faulty.seed = 0.3, 4
    faulty.kinds = ("500", "503", "slow", "lost", "reset", "cut")
    version = None
    for beat in range(20):
        version = store.put_if("lease", str(beat).encode(), version)
        assert version is not None
        assert store.get_versioned("lease") == (str(beat).encode(), version)
        assert store.put_if("lease", b"a rival", None) is None
    assert {"lost", "500", "reset"} <= set(faulty.faults)


def test_what_was_stored_damaged_is_stored_again(store: ObjectStore, faulty: FaultyServer) -> None:
    """An object of which the server stored only half, without an error, is written again."""
    faulty.kinds, faulty.rate, faulty.seed = ("upload",), 0.5, 6
    for number in range(12):
        store.put(f"key{number}", bytes([number]) * 100)
    assert faulty.faults["upload"] > 3
    faulty.rate = 0
    assert [store.get(f"key{number}") for number in range(12)] == [bytes([n]) * 100 for n in range(12)]


@pytest.mark.parametrize("kind", ["short", "upload"])
def test_damage_that_stays_is_a_corrupt_error(kind: str, store: ObjectStore, faulty: FaultyServer) -> None:
    store.put("key", b"x" * 100)
    faulty.kinds, faulty.rate = (kind,), 1.0
    with pytest.raises(CorruptError, match=r"key: .*(checksum|not what was sent).*; the network or the store damages"):
        store.get("key") if kind == "short" else store.put("key", b"y" * 100)


def test_large_objects_are_sent_in_parts_and_read_back(
    server: S3Server, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large objects are sent in parts and read back, although the ETag of parts is no MD5 of the whole."""
    monkeypatch.setattr(bucket, "PART_BYTES", 5 << 20)
    data = random.Random(0).randbytes(11 << 20)
    store.put("key", data)
    assert store.get("key") == data
    assert store.get("key", -5) == data[-5:]
    tag = server.client().head_object(Bucket=store.url.split("/")[2], Key="run/key")["ETag"]
    assert tag.endswith('-3"')


def test_bytes_that_change_in_the_store_are_found(server: S3Server, store: ObjectStore) -> None:
    """Bytes that change in the store are found by the checksum that each object carries."""
    store.put("key", b"0123456789")
    name = store.url.split("/")[2]
    known = server.client().head_object(Bucket=name, Key="run/key")["Metadata"]
    server.client().put_object(Bucket=name, Key="run/key", Body=b"0123456780", Metadata=known)
    with pytest.raises(CorruptError, match="do not fit the checksum stored with them"):
        store.get("key")


def test_an_outage_is_waited_for_and_a_longer_one_is_named(
    store: ObjectStore, faulty: FaultyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An outage longer than the patience is an error that names it; a write of the lease gives up sooner."""
    store.put("key", b"x")
    client = bucket_client.connect(bucket_client.parse_address(store.url)[0])
    monkeypatch.setattr(client, "patience", Patience(outage_seconds=1.0, longest_pause=0.1))
    faulty.kinds, faulty.rate = ("503",), 1.0
    with pytest.raises(StorageError, match=r"cannot read .*key: the server answered 503 \(SlowDown, Please try again"):
        store.get("key")
    before = faulty.requests
    monkeypatch.setattr(client, "patience", Patience(outage_seconds=1000, lease_seconds=0))
    with pytest.raises(StorageError, match="503"):
        store.put_if("lease", b"x", None)
    assert faulty.requests - before == QUICK.tries + 1, "a lease must learn soon that it cannot be renewed"
