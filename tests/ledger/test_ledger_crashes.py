"""A driver that is killed while it changes the ledger's files leaves no wrong record behind."""

import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.ledger.ledger import Ledger
from pipeline.storage import ObjectStore
from tests.ledger.ledgers import CHUNKS, FOLDER, done, ledger, record


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    """A store on a file system, which appends lines, and one in memory that writes whole segments, as in a bucket."""
    return ObjectStore(tmp_path if request.param == "folder" else f"mem://{uuid.uuid4().hex}")


class CrashingStore(ObjectStore):
    """A store of a driver that is killed: it stops after a number of changes."""

    def __init__(self, url: str | Path, changes: int) -> None:
        super().__init__(url)
        self.changes = changes

    def _change(self) -> None:
        self.changes -= 1
        if self.changes < 0:
            raise KeyboardInterrupt

    def put(self, key: str, data: bytes, *, durable: bool = False) -> None:
        self._change()
        super().put(key, data, durable=durable)

    def delete(self, key: str) -> None:
        self._change()
        super().delete(key)

    def append(self, key: str, data: bytes) -> None:
        self._change()
        super().append(key, data)


def in_segments(store: ObjectStore, fingerprint: str) -> Ledger:
    """A ledger with a failure and a chunk computed twice, in several segments where the store has segments."""
    book = record(ledger(store, fingerprint), CHUNKS[:3])
    book.record_failure(CHUNKS[9], "no", "trace", 3, final=True)
    book.flush()
    for chunk in (*CHUNKS[3:6], CHUNKS[1]):
        record(book, [chunk])
    return book


@pytest.mark.parametrize("changes", range(8))
def test_a_crash_at_any_point_of_compaction_loses_nothing(store: ObjectStore, changes: int) -> None:
    """A crash at any point of compaction loses no record, and the ledger goes on."""
    in_segments(store, "A")
    book = ledger(CrashingStore(store.url, changes), "A")
    crashed = interrupted(book.compact)
    reopened = ledger(store, "A")
    assert done(reopened) == set(CHUNKS[:6])
    assert [f.index for f in reopened.quarantined()] == [CHUNKS[9].index]
    assert reopened.summary().voxels == 480
    assert crashed or len(store.list(f"{FOLDER}/log")) == 1
    record(reopened, CHUNKS[6:8])
    record(reopened, CHUNKS[8:9])
    assert done(ledger(store, "A")) == set(CHUNKS[:9])


@pytest.mark.parametrize("compacted", [False, True])
@pytest.mark.parametrize("changes", range(9))
def test_a_crash_at_any_point_of_a_new_beginning_mixes_nothing(
    store: ObjectStore, changes: int, compacted: bool
) -> None:
    """After a crash at any point of ``begin``, marks of one fingerprint never count under another."""
    book = in_segments(store, "A")
    if compacted:
        book.compact()
        record(book, CHUNKS[6:7])
    interrupted(ledger(CrashingStore(store.url, changes), "B").begin)
    assert done(ledger(store, "B")) == set()
    assert done(ledger(store, "A")) <= set(CHUNKS[:7])
    record(ledger(store, "B"), CHUNKS[12:14])
    assert done(ledger(store, "B")) == set(CHUNKS[12:14])
    assert done(ledger(store, "A")) == set()


def interrupted(change: Callable[[], None]) -> bool:
    try:
        change()
    except KeyboardInterrupt:
        return True
    return False
