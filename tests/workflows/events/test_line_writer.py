"""Lines are stored as objects in order, survive a store that fails for a while, and a loss at the end is reported."""

import logging
import threading
from pathlib import Path

import pytest

from pipeline.storage import ObjectStore
from workflows.events.line_writer import SegmentWriter
from workflows.events.run_log import BucketHandler


def stored(store: ObjectStore) -> bytes:
    return b"".join(store.get(key) for key in store.list("logs/"))


def test_lines_of_threads_are_all_stored(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path)
    writer = SegmentWriter(store, "logs", ".log", seconds=0.01)
    threads = [
        threading.Thread(target=lambda n=n: [writer.write(b"%d %d\n" % (n, i)) for i in range(200)]) for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()
    lines = stored(store).split(b"\n")[:-1]
    for number in range(4):
        assert [line for line in lines if line.startswith(b"%d " % number)] == [
            b"%d %d" % (number, i) for i in range(200)
        ]
    assert all(key.endswith(".log") for key in store.list())


def test_lines_wait_for_a_store_that_fails(tmp_path: Path) -> None:
    """Lines written while the store fails are stored in order when it works again."""
    store = ObjectStore(tmp_path)
    (tmp_path / "logs").write_bytes(b"in the way")
    writer = SegmentWriter(store, "logs", ".log", seconds=0.01)
    writer.write(b"first\n")
    while writer.problem is None:
        threading.Event().wait(0.01)
    (tmp_path / "logs").unlink()
    writer.write(b"second\n")
    writer.close()
    assert stored(store) == b"first\nsecond\n"
    assert writer.problem is None


def test_a_loss_at_the_end_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "logs").write_bytes(b"in the way")
    handler = BucketHandler(ObjectStore(tmp_path))
    handler.emit(logging.makeLogRecord({"msg": "the last words"}))
    handler.close()
    assert "petaseg: the end of the log is lost: cannot write" in capsys.readouterr().err
