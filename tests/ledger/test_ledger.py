"""A chunk counts as done exactly if its record was written, whatever happens to the ledger's files."""

import json
import uuid
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import LeaseError, LedgerError, StorageError
from pipeline.geometry import BoundingBox
from pipeline.grid import ChunkGrid
from pipeline.ledger import writer as under_test
from pipeline.ledger.ledger import Ledger
from pipeline.storage import ObjectStore
from tests.ledger.ledgers import CHUNKS, FOLDER, GRID, GRIDS, contents, done, ledger, log_bytes, log_of, record, report


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    """A store on a file system, which appends lines, and one in memory that writes whole segments, as in a bucket."""
    return ObjectStore(tmp_path if request.param == "folder" else f"mem://{uuid.uuid4().hex}")


def test_what_is_recorded_is_done_with_its_checksum(store: ObjectStore) -> None:
    book = record(ledger(store), CHUNKS[:5])
    for opened in (book, ledger(store), ledger(store, read_only=True)):
        assert done(opened) == set(CHUNKS[:5])
        assert list(opened.pending(GRID)) == CHUNKS[5:]
        assert opened.done_count(GRID) == 5
        assert opened.done_count(GRIDS[1]) == 0


def test_levels_are_kept_apart(store: ObjectStore) -> None:
    above = list(GRIDS[1])
    record(ledger(store), [CHUNKS[3], above[1]])
    assert done(ledger(store)) == {CHUNKS[3], above[1]}


def test_the_checksum_of_a_missing_chunk_is_refused(store: ObjectStore) -> None:
    with pytest.raises(LedgerError, match="count_voxels chunk 0_0_0 is not recorded as done; run the stage first"):
        ledger(store).checksum(CHUNKS[0])


def test_sums_are_the_same_after_reopening_and_compacting(store: ObjectStore) -> None:
    """The sums of a ledger are the same after it is reopened and after it is compacted."""
    book = record(ledger(store), CHUNKS[:5])
    book.record_failure(CHUNKS[7], "ValueError: no", "trace", 1, final=False)
    book.record_failure(CHUNKS[7], "ValueError: no", "trace", 2, final=True)
    book.flush()
    summary = book.summary()
    assert (summary.done, summary.failed, summary.attempts) == (5, 1, 2)
    assert (summary.seconds, summary.voxels, summary.bytes_written) == (2.5, 400, 5000)
    assert summary.counters == {"patches": 10.0}
    reopened = ledger(store)
    assert reopened.summary() == summary
    reopened.compact()
    assert reopened.summary() == summary
    assert ledger(store).summary() == summary


def test_a_forgotten_chunk_is_pending_until_it_is_recorded_again(store: ObjectStore) -> None:
    book = record(ledger(store), CHUNKS[:3])
    book.forget(CHUNKS[1])
    book.flush()
    for opened in (book, ledger(store)):
        assert done(opened) == {CHUNKS[0], CHUNKS[2]}
    record(book, [CHUNKS[1]])
    assert done(ledger(store)) == set(CHUNKS[:3])
    assert ledger(store).summary().voxels == 240


def test_a_forgotten_chunk_does_not_come_back_with_a_damaged_line(store: ObjectStore) -> None:
    """A chunk that was forgotten does not count as done again when the line that forgets it is damaged."""
    book = record(ledger(store), CHUNKS[:3])
    book.forget(CHUNKS[1])
    book.close()
    key = log_of(store)
    store.put(key, store.get(key)[:-5] + b"xxxx\n")
    assert done(ledger(store)) <= {CHUNKS[0], CHUNKS[2]}


def test_a_chunk_that_was_set_aside_is_kept_with_its_error_until_it_is_done(store: ObjectStore) -> None:
    """Restarts and compaction keep a chunk that was set aside, with its error, until it is done."""
    book = ledger(store)
    book.record_failure(CHUNKS[4], "ValueError: first", "trace 1", 1, final=False)
    assert book.quarantined() == []
    book.record_failure(CHUNKS[4], "ValueError: second", "trace 2", 3, final=True)
    book.flush()
    (failure,) = book.quarantined()
    assert (failure.chunk_name, failure.level, failure.index) == (CHUNKS[4].name, 0, CHUNKS[4].index)
    assert (failure.error, failure.traceback, failure.attempts) == ("ValueError: second", "trace 2", 3)
    for _ in range(2):
        reopened = ledger(store)
        assert reopened.quarantined() == [failure]
        reopened.compact()
    record(reopened, [CHUNKS[4]])
    assert ledger(store).quarantined() == []


@pytest.mark.parametrize("compacted", [False, True])
def test_old_marks_never_come_back_under_another_fingerprint(store: ObjectStore, compacted: bool) -> None:
    """After A, then B, then A again nothing of A is done, because B's chunks have overwritten A's."""
    for fingerprint in "ABAB":
        book = ledger(store, fingerprint)
        assert done(book) == set()
        record(book, CHUNKS[:4])
        if compacted:
            book.compact()
        assert done(ledger(store, fingerprint)) == set(CHUNKS[:4])


def test_beginning_is_enough_to_end_the_old_marks(store: ObjectStore) -> None:
    """``begin`` under a new fingerprint invalidates the old marks before any chunk is recorded."""
    record(ledger(store, "A"), CHUNKS[:4]).compact()
    ledger(store, "B").begin()
    assert done(ledger(store, "A")) == set()


def test_looking_at_another_fingerprint_ends_nothing(store: ObjectStore) -> None:
    """Opening a ledger under another fingerprint, as ``plan`` and ``status`` do, keeps the marks."""
    record(ledger(store, "A"), CHUNKS[:4])
    ledger(store, "B").close()
    assert done(ledger(store, "A")) == set(CHUNKS[:4])


def test_beginning_again_under_the_same_fingerprint_keeps_everything(store: ObjectStore) -> None:
    record(ledger(store), CHUNKS[:4]).begin()
    ledger(store).begin()
    assert done(ledger(store)) == set(CHUNKS[:4])


def test_a_torn_last_line_costs_its_chunk_alone(tmp_path: Path) -> None:
    """A last line that a power cut has torn costs its chunk only; later records stand on lines of their own."""
    store = ObjectStore(tmp_path)
    record(ledger(store), CHUNKS[:4])
    key = log_of(store)
    whole = store.get(key)
    last = len(whole) - whole[:-1].rindex(b"\n") - 1
    for lost in range(1, last):
        store.put(key, whole[:-lost])
        book = ledger(store)
        assert done(book) == set(CHUNKS[:3])
        record(book, CHUNKS[5:7])
        assert done(ledger(store)) - {CHUNKS[3]} == {*CHUNKS[:3], *CHUNKS[5:7]}


def test_a_flipped_bit_costs_its_chunk_alone(store: ObjectStore) -> None:
    """A flipped bit in one record makes that chunk pending and no other."""
    record(ledger(store), CHUNKS[:6])
    key = log_of(store)
    lines = store.get(key).splitlines(keepends=True)
    place = next(
        n for n, line in enumerate(lines) if json.dumps([0, *CHUNKS[2].index]).encode().replace(b" ", b"") in line
    )
    for byte in range(0, len(lines[place]) - 1, 7):
        line = bytearray(lines[place])
        line[byte] ^= 4
        store.put(key, b"".join([*lines[:place], bytes(line), *lines[place + 1 :]]))
        book = ledger(store)
        assert done(book) == {*CHUNKS[:2], *CHUNKS[3:6]}
    record(book, [CHUNKS[2], CHUNKS[9]])
    assert done(ledger(store)) == {*CHUNKS[:6], CHUNKS[9]}


def test_a_damaged_first_line_does_not_cost_the_log(store: ObjectStore) -> None:
    """Flipped bits in the log's first line, which holds the fingerprint, cost no record."""
    record(ledger(store), CHUNKS[:6])
    key = store.list(f"{FOLDER}/log")[0]
    data = bytearray(store.get(key))
    for byte in (3, 15, 19):
        data[byte] ^= 1
    store.put(key, bytes(data))
    assert done(ledger(store)) == set(CHUNKS[:6])


def damage_a_line(store: ObjectStore) -> None:
    """Change a byte of the last record."""
    key = log_of(store)
    data = store.get(key)
    store.put(key, data[:-10] + bytes([data[-10] ^ 1]) + data[-9:])


def damage_the_arrays(store: ObjectStore) -> None:
    """Cut the arrays of a compacted ledger."""
    key = f"{FOLDER}/compact.npz"
    store.put(key, store.get(key)[:-40])


@pytest.mark.parametrize("damage", [damage_a_line, damage_the_arrays])
def test_damage_is_reported_until_it_is_mended(store: ObjectStore, damage, caplog: pytest.LogCaptureFixture) -> None:
    """Damaged records are reported at each opening until the driver's next record replaces them, and never after."""
    book = record(ledger(store), CHUNKS[:4])
    if damage is damage_the_arrays:
        book.compact()
    damage(store)
    assert CHUNKS[3] not in done(ledger(store, read_only=True))
    book = ledger(store)
    assert len(caplog.messages) == 2
    assert all("computed again" in message for message in caplog.messages)
    caplog.clear()
    record(book, [CHUNKS[9]])
    assert CHUNKS[9] in done(ledger(store))
    assert CHUNKS[3] not in done(ledger(store))
    assert caplog.messages == []


def test_a_damaged_record_of_a_complete_stage_is_no_news(store: ObjectStore, caplog: pytest.LogCaptureFixture) -> None:
    """A damaged line costs nothing where every chunk is done, so nobody is warned."""
    book = record(ledger(store), [chunk for grid in GRIDS for chunk in grid])
    record(book, [CHUNKS[0]])
    damage_a_line(store)
    assert ledger(store).is_complete()
    assert caplog.messages == []


DAMAGE = st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 255)), min_size=1, max_size=20)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damage=DAMAGE, cut=st.integers(0, 60), compacted=st.booleans(), where=st.sampled_from(["log", "compact"]))
def test_damage_never_makes_a_chunk_done(damage, cut: int, compacted: bool, where: str) -> None:
    """However the files are damaged, each chunk that counts as done was recorded, with its recorded checksum."""
    store = ObjectStore(f"mem://{uuid.uuid4().hex}")
    book = record(ledger(store), CHUNKS[:8])
    if compacted:
        book.compact()
    record(book, CHUNKS[10:14])
    keys = [key for key in store.list(FOLDER) if where in key] or store.list(FOLDER)
    for key in keys:
        data = bytearray(store.get(key))
        for place, byte in damage:
            data[place % len(data)] = byte
        store.put(key, bytes(data[: len(data) - cut]))
    damaged = ledger(store)
    assert done(damaged) <= {*CHUNKS[:8], *CHUNKS[10:14]}
    record(damaged, CHUNKS[20:22])
    assert done(ledger(store)) >= set(CHUNKS[20:22])


@settings(max_examples=40, deadline=None)
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("record"), st.integers(0, 5)),
            st.tuples(st.just("forget"), st.integers(0, 5)),
            st.tuples(st.just("fail"), st.integers(0, 5)),
            st.tuples(st.sampled_from(["reopen", "compact", "close", "torn compact"]), st.just(0)),
        ),
        max_size=30,
    ),
    folder=st.booleans(),
)
def test_any_history_is_told_alike_after_reopening(tmp_path_factory, steps, folder: bool) -> None:
    """Compaction, restarts and crashes do not change which chunks are done or set aside."""
    path = tmp_path_factory.mktemp("history") if folder else f"mem://{uuid.uuid4().hex}"
    store = ObjectStore(path)
    book, marked, failed = ledger(store), set(), set()
    for step, number in steps:
        chunk = CHUNKS[number]
        if step == "record":
            book.record(report(chunk))
            marked, failed = marked | {chunk}, failed - {chunk}
        elif step == "forget":
            book.forget(chunk)
            marked = marked - {chunk}
        elif step == "fail":
            book.record_failure(chunk, "no", "trace", 3, final=True)
            failed = failed | ({chunk} - marked)  # a late failure does not undo a done chunk
        elif step == "torn compact":
            book.flush()
            before = contents(store)
            book.compact()
            restore(store, before, only="log")
            book = ledger(store)
        elif step == "compact":
            book.compact()
        else:
            book.close() if step == "close" else book.flush()
            book = ledger(store)
        assert (done(book), {f.chunk_name for f in book.quarantined()}) == (marked, {c.name for c in failed})


def restore(store: ObjectStore, before: dict[str, bytes], only: str) -> None:
    """Put objects back as they were: the crash came before they were replaced."""
    for key in store.list(f"{FOLDER}/{only}"):
        store.delete(key)
    for key, data in before.items():
        if key.startswith(f"{FOLDER}/{only}"):
            store.put(key, data)


def test_compaction_makes_a_long_log_short(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing a ledger with a long log compacts it, and all its records stay."""
    monkeypatch.setattr(under_test, "COMPACT_RECORDS", 10)
    book = record(ledger(store), CHUNKS[:20])
    long = log_bytes(store)
    book.close()
    assert log_bytes(store) < long / 5
    assert done(ledger(store)) == set(CHUNKS[:20])
    record(ledger(store), CHUNKS[20:24]).close()
    assert done(ledger(store)) == set(CHUNKS[:24])


class RefusingStore(ObjectStore):
    """A store that takes no arrays, like a disk that is too full for ``compact.npz``."""

    def put_arrays(self, key: str, arrays, *, compress: bool = False) -> None:
        raise StorageError("no space")


def test_a_log_that_cannot_be_compacted_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A log that cannot be compacted, as on a full disk, stays as it is, and closing raises no error."""
    book = record(ledger(RefusingStore(tmp_path)), CHUNKS[:3])
    book.forget(CHUNKS[0])
    book.close()
    assert "was not compacted: no space" in caplog.text
    assert done(ledger(ObjectStore(tmp_path))) == set(CHUNKS[1:3])


def test_reading_only_never_writes(store: ObjectStore) -> None:
    """A ledger opened for reading only refuses every write and changes no byte."""
    record(ledger(store), CHUNKS[:3])
    before = contents(store)
    for fingerprint in "AB":
        book = ledger(store, fingerprint, read_only=True)
        for write in (
            lambda book=book: book.record(report(CHUNKS[0])),
            lambda book=book: book.forget(CHUNKS[0]),
            lambda book=book: book.record_failure(CHUNKS[0], "", "", 1, final=True),
            book.begin,
        ):
            with pytest.raises(LedgerError, match="opened for reading only"):
                write()
        book.close()
    assert contents(store) == before


@pytest.mark.parametrize("change", ["record", "compact", "close", "begin"])
def test_nothing_is_stored_by_a_driver_that_may_not_write(store: ObjectStore, change: str) -> None:
    """A ledger asks before it stores a record, a segment, arrays or a new log, and an answer no changes no byte."""
    book = record(ledger(store, "A"), CHUNKS[:3])
    if change == "begin":
        book = ledger(store, "B")
    else:
        book.forget(CHUNKS[0])  # so that closing compacts
    before = contents(store)

    def refuse() -> None:
        raise LeaseError("another driver has taken over this run")

    book.may_write = refuse
    act = getattr(book, change) if change != "record" else lambda: record(book, CHUNKS[3:4])
    with pytest.raises(LeaseError):
        act()
    assert contents(store) == before


def test_reading_only_leaves_a_torn_line_as_it_is(tmp_path: Path) -> None:
    """A ledger opened for reading only does not repair a torn line, which its driver may be writing."""
    store = ObjectStore(tmp_path)
    record(ledger(store), CHUNKS[:3])
    key = log_of(store)
    store.put(key, store.get(key)[:-4])
    before = contents(store)
    assert done(ledger(store, read_only=True)) == set(CHUNKS[:2])
    assert contents(store) == before


def test_without_appending_records_wait_for_a_flush() -> None:
    """In a bucket, records are written together every few seconds; those not flushed are computed again."""
    store = ObjectStore(f"mem://{uuid.uuid4().hex}")
    book = record(ledger(store), CHUNKS[:2])
    book.record(report(CHUNKS[2]))
    assert done(book) == set(CHUNKS[:3])
    assert done(ledger(store)) == set(CHUNKS[:2])
    book.flush()
    assert done(ledger(store)) == set(CHUNKS[:3])
    count = len(store.list(FOLDER))
    book.flush()
    assert len(store.list(FOLDER)) == count


def test_segments_are_written_after_a_number_of_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "FLUSH_RECORDS", 5)
    store = ObjectStore(f"mem://{uuid.uuid4().hex}")
    book = ledger(store)
    for chunk in CHUNKS[:23]:
        book.record(report(chunk))
    assert done(ledger(store)) == set(CHUNKS[:20])


def test_a_file_system_has_every_record_at_once(tmp_path: Path) -> None:
    """On a file system each record is stored before ``record`` returns."""
    store = ObjectStore(tmp_path)
    book = ledger(store)
    for number, chunk in enumerate(CHUNKS[:5]):
        book.record(report(chunk))
        assert ledger(store, read_only=True).done_count(GRID) == number + 1


def test_a_chunk_costs_thirty_bytes_of_memory() -> None:
    """A chunk costs at most thirty bytes, so a hundred million chunks fit into 3 GB of memory."""
    bounds = BoundingBox.from_shape((100, 100, 100))
    grid = ChunkGrid(bounds, bounds, (1, 1, 1))
    book = Ledger(ObjectStore(f"mem://{uuid.uuid4().hex}"), "count_voxels", "A", [grid])
    arrays = [
        value for marks in book._marks.values() for value in vars(marks).values() if isinstance(value, np.ndarray)
    ]
    assert sum(array.nbytes for array in arrays) <= 30 * len(grid)


def test_pending_chunks_are_listed_lazily() -> None:
    """Pending chunks are listed lazily, not as a list of the whole grid."""
    bounds = BoundingBox.from_shape((400, 400, 400))
    grid = ChunkGrid(bounds, bounds, (4, 4, 4))
    book = Ledger(ObjectStore(f"mem://{uuid.uuid4().hex}"), "count_voxels", "A", [grid])
    pending = book.pending(grid)
    assert [next(pending).index for _ in range(3)] == [(0, 0, 0), (0, 0, 1), (0, 0, 2)]
    assert not isinstance(pending, list)
