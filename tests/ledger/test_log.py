"""A reader that follows a ledger of another process reads only new lines, and sees what is recorded."""

import uuid
from pathlib import Path

import pytest

from pipeline.ledger.log import BLOCK_BYTES, LogCursor
from pipeline.storage import ObjectStore
from tests.ledger.ledgers import CHUNKS, FOLDER, done, ledger, log_of, record


class CountingStore(ObjectStore):
    """A store that counts listings and the bytes that are read."""

    def __init__(self, url: str | Path) -> None:
        super().__init__(url)
        self.bytes_read = self.listings = 0

    def get_or_none(self, key: str, start: int | None = None, stop: int | None = None) -> bytes | None:
        data = super().get_or_none(key, start, stop)
        self.bytes_read += len(data or b"")
        return data

    def list(self, prefix: str = "") -> list[str]:
        self.listings += 1
        return super().list(prefix)


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> CountingStore:
    """A store on a file system, which appends lines, and one in memory that writes whole segments, as in a bucket."""
    return CountingStore(tmp_path if request.param == "folder" else f"mem://{uuid.uuid4().hex}")


def test_new_records_appear_after_a_refresh(store: CountingStore) -> None:
    writer = record(ledger(store), CHUNKS[:5])
    reader = ledger(store, read_only=True)
    for n in range(6, 12):
        record(writer, CHUNKS[n - 1 : n])
        assert done(reader) == set(CHUNKS[: n - 1])
        assert reader.refresh()
        assert done(reader) == set(CHUNKS[:n])
    assert reader.summary() == writer.summary()


def test_a_refresh_reads_only_what_is_new(store: CountingStore) -> None:
    """A refresh reads only the bytes added since the last one, and lists nothing."""
    writer = record(ledger(store), CHUNKS[:11])
    reader = ledger(store, read_only=True)
    store.bytes_read = store.listings = 0
    assert reader.refresh()
    nothing = store.bytes_read
    record(writer, CHUNKS[11:12])
    store.bytes_read = 0
    assert reader.refresh()
    assert nothing <= 200
    assert store.bytes_read <= 500
    assert store.listings == 0


def test_a_log_that_was_begun_anew_is_noticed(store: CountingStore) -> None:
    """A refresh returns False when the log was compacted or begun anew."""
    writer = record(ledger(store), CHUNKS[:5])
    reader = ledger(store, read_only=True)
    writer.compact()
    assert not reader.refresh()
    assert done(ledger(store, read_only=True)) == set(CHUNKS[:5])
    short = ledger(store, read_only=True)
    writer.compact()
    assert not short.refresh()
    other = ledger(store, "B")
    record(other, CHUNKS[:1])
    assert not reader.refresh()


def test_a_log_that_begins_later_is_noticed(store: CountingStore) -> None:
    reader = ledger(store, read_only=True)
    assert reader.refresh()
    record(ledger(store), CHUNKS[:5])
    assert not reader.refresh()


def test_half_a_line_is_read_when_it_is_whole(tmp_path: Path) -> None:
    """A line that is half written is read by the refresh after it is complete."""
    store = ObjectStore(tmp_path)
    record(ledger(store), CHUNKS[:5])
    whole = store.get(log_of(store))
    store.put(log_of(store), whole[:-20])
    reader = ledger(store, read_only=True)
    assert done(reader) == set(CHUNKS[:4])
    store.append(log_of(store), whole[-20:])
    assert reader.refresh()
    assert done(reader) == set(CHUNKS[:5])


def test_a_long_log_is_read_block_by_block(tmp_path: Path) -> None:
    """A log of several blocks is read line by line, and lines that cross two blocks are read once."""
    store = ObjectStore(tmp_path)
    lines = [b"%d " % n + b"x" * (n % 1000) for n in range(2 * BLOCK_BYTES // 500)]
    store.put(f"{FOLDER}/log.jsonl", b"\n".join(lines) + b"\n")
    cursor = LogCursor(store, FOLDER)
    found = list(cursor.lines())
    assert [line for line, _ in found] == lines
    assert found[-1][1].endswith(f"log.jsonl:{len(lines)}")
    assert list(cursor.lines()) == []


@pytest.mark.parametrize("direction", ["to a bucket", "to a folder"])
def test_a_run_directory_may_be_copied_between_kinds_of_store(tmp_path: Path, direction: str) -> None:
    """A ledger copied from a disk to a bucket, or back, keeps its done chunks and goes on."""
    folder, bucket = ObjectStore(tmp_path), ObjectStore(f"mem://{uuid.uuid4().hex}")
    here, there = (folder, bucket) if direction == "to a bucket" else (bucket, folder)
    record(ledger(here), CHUNKS[:5])
    for key in here.list(""):
        there.put(key, here.get(key))
    copied = ledger(there)
    assert done(copied) == set(CHUNKS[:5])
    record(copied, CHUNKS[5:7])
    assert done(ledger(there, read_only=True)) == set(CHUNKS[:7])
