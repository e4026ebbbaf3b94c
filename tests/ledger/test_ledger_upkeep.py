"""A ledger over weeks: records are flushed in seconds, long logs are compacted, and overtaken drivers cannot write."""

import time
import uuid
from pathlib import Path

import pytest

from pipeline.errors import LeaseError, StorageError
from pipeline.ledger import writer as under_test
from pipeline.ledger.ledger import Ledger
from pipeline.storage import ObjectStore
from tests.ledger.ledgers import CHUNKS, FOLDER, contents, done, ledger, log_bytes, log_of, record, report


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    """A store on a file system, which appends lines, and one in memory that writes whole segments, as in a bucket."""
    return ObjectStore(tmp_path if request.param == "folder" else f"mem://{uuid.uuid4().hex}")


class FickleStore(ObjectStore):
    """A store of whole objects that can be told to refuse some of them."""

    refuses = ""

    def put(self, key: str, data: bytes, *, durable: bool = False) -> None:
        if self.refuses and self.refuses in key:
            raise StorageError("no answer")
        super().put(key, data, durable=durable)


@pytest.fixture
def fickle() -> FickleStore:
    return FickleStore(f"mem://{uuid.uuid4().hex}")


def comes_true(condition, seconds: float = 30.0) -> bool:
    """True if a condition holds within some seconds."""
    end = time.monotonic() + seconds
    while not (holds := condition()) and time.monotonic() < end:
        time.sleep(0.01)
    return holds


def test_a_record_is_stored_in_time_if_no_other_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a bucket a record is stored within seconds, also when no other record follows."""
    monkeypatch.setattr(under_test, "FLUSH_SECONDS", 0.05)
    store = ObjectStore(f"mem://{uuid.uuid4().hex}")
    book = ledger(store)
    for chunk in CHUNKS[:3]:
        book.record(report(chunk))
    assert comes_true(lambda: done(ledger(store)) == set(CHUNKS[:3]))
    book.record(report(CHUNKS[3]))
    assert comes_true(lambda: done(ledger(store)) == set(CHUNKS[:4]))


def test_a_flush_in_time_that_fails_is_made_up_for(fickle: FickleStore, monkeypatch, caplog) -> None:
    """A flush that fails is logged and no error; the next flush stores its records too."""
    monkeypatch.setattr(under_test, "FLUSH_SECONDS", 0.05)
    book = record(ledger(fickle), CHUNKS[:2])
    fickle.refuses = "log-"
    book.record(report(CHUNKS[2]))
    assert comes_true(lambda: "wait for the next flush: no answer" in caplog.text)
    fickle.refuses = ""
    assert done(ledger(fickle)) == set(CHUNKS[:2])
    book.record(report(CHUNKS[3]))
    assert comes_true(lambda: done(ledger(fickle)) == set(CHUNKS[:4]))


def test_a_long_log_becomes_arrays_while_its_stage_runs(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that grows long is compacted while its stage runs, and keeps all records."""
    monkeypatch.setattr(under_test, "LONG_LOG", 10)
    book, longest = ledger(store), 0
    for chunk in CHUNKS[:35]:
        book.record(report(chunk))
        longest = max(longest, log_bytes(store))
    book.flush()
    assert longest < 11 * 200
    assert done(book) == done(ledger(store)) == set(CHUNKS[:35])
    assert ledger(store).summary().voxels == 35 * 80


def test_many_segments_become_one_while_their_stage_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a bucket the segments of a log are merged while its stage runs, so there are never many."""
    monkeypatch.setattr(under_test, "LONG_SEGMENTS", 4)
    store = ObjectStore(f"mem://{uuid.uuid4().hex}")
    book = ledger(store)
    for chunk in CHUNKS[:25]:
        record(book, [chunk])
        assert len(store.list(f"{FOLDER}/log")) <= 5
    assert done(ledger(store)) == set(CHUNKS[:25])


def test_a_log_that_cannot_be_made_short_goes_on(fickle: FickleStore, monkeypatch, caplog) -> None:
    """A log whose compaction fails keeps its records, does not retry at each record, and compacts later."""
    monkeypatch.setattr(under_test, "LONG_LOG", 4)
    fickle.refuses = "compact"
    book = ledger(fickle)
    for chunk in CHUNKS[:12]:
        record(book, [chunk])
    assert caplog.text.count("was not compacted: no answer") == 2
    assert done(ledger(fickle)) == set(CHUNKS[:12])
    fickle.refuses = ""
    record(book, CHUNKS[12:18])
    assert fickle.exists(f"{FOLDER}/compact.npz")
    assert done(ledger(fickle)) == set(CHUNKS[:18])


@pytest.mark.parametrize("refused", ["compact", "log-000000"])
def test_a_log_goes_on_where_it_was_after_it_could_not_begin_anew(fickle: FickleStore, refused: str) -> None:
    """After a compaction that failed, new segments follow the old ones and replace none of them."""
    book = ledger(fickle)
    for chunk in CHUNKS[:3]:
        record(book, [chunk])
    fickle.refuses = refused
    with pytest.raises(StorageError):
        book.compact()
    fickle.refuses = ""
    record(book, CHUNKS[3:5])
    assert done(ledger(fickle)) == set(CHUNKS[:5])


def test_a_line_that_arrives_late_does_not_count_in_another_log(store: ObjectStore) -> None:
    """A line of an earlier log that a dead driver sent late does not count in the present log."""
    record(ledger(store, "A"), CHUNKS[:2])
    late = store.get(log_of(store)).splitlines(keepends=True)[-1]
    for fingerprint in "BA":
        book = record(ledger(store, fingerprint), CHUNKS[4:6])
        key = log_of(store)
        store.put(key, store.get(key) + late)
        assert done(ledger(store, fingerprint)) == set(CHUNKS[4:6])
        record(book, CHUNKS[6:7])


def test_arrays_that_arrive_late_do_not_count_in_another_log(store: ObjectStore) -> None:
    """Compacted arrays of an earlier fingerprint that arrive late do not count."""
    record(ledger(store, "A"), CHUNKS[:4]).compact()
    late = store.get(f"{FOLDER}/compact.npz")
    for fingerprint in "BA":
        record(ledger(store, fingerprint), CHUNKS[6:7])
        store.put(f"{FOLDER}/compact.npz", late)
        assert done(ledger(store, fingerprint)) == {CHUNKS[6]}


def test_a_failure_that_arrives_late_does_not_set_a_done_chunk_aside(store: ObjectStore) -> None:
    """A failure that is recorded after its chunk was done does not set the chunk aside."""
    book = record(ledger(store), CHUNKS[:2])
    book.record_failure(CHUNKS[1], "no", "trace", 3, final=True)
    book.flush()
    for opened in (book, ledger(store)):
        assert opened.quarantined() == []
        assert done(opened) == set(CHUNKS[:2])


def test_who_may_not_write_any_more_writes_nothing(store: ObjectStore) -> None:
    """A driver that has lost its lease changes no byte of the ledger, also when it closes."""

    def refuse() -> None:
        raise LeaseError("another driver has taken over")

    book: Ledger = record(ledger(store), CHUNKS[:3])
    book.record_failure(CHUNKS[8], "no", "trace", 1, final=False)
    book.forget(CHUNKS[0])
    stored = contents(store)
    book.may_write = refuse
    for write in (lambda: book.record(report(CHUNKS[5])), book.compact, book.close, ledger_of_another(store, refuse)):
        with pytest.raises(LeaseError):
            write() or book.flush()
    assert contents(store) == stored


def ledger_of_another(store: ObjectStore, may_write):
    other = ledger(store, "B")
    other.may_write = may_write
    return other.begin
