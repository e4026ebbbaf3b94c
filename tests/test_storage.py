"""Objects are written whole or not at all, errors name the cause, and equal arrays give equal bytes."""

import errno
import os
import pickle
import resource
import signal
import subprocess
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.errors import CorruptError, StorageError
from pipeline.storage import MissingObjectError, ObjectStore, as_storage_error, pack_arrays, unpack_arrays


@pytest.fixture(params=["path", "file", "mem"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    return ObjectStore(
        {"path": f"{tmp_path}/s", "file": f"file://{tmp_path}/s/", "mem": f"mem://{uuid.uuid4().hex}/s"}[request.param]
    )


def test_an_object_is_read_back_whole_and_in_ranges(store: ObjectStore) -> None:
    store.put("a/b/c", b"0123456789")
    assert store.get("a/b/c") == b"0123456789"
    assert store.get("a/b/c", 2, 5) == b"234"
    assert store.get("a/b/c", 7) == b"789"
    assert store.get("a/b/c", -4) == b"6789"
    assert store.get("a/b/c", -40) == b"0123456789"
    assert store.get("a/b/c", 8, 40) == b"89"


def test_a_put_replaces_and_a_delete_removes(store: ObjectStore) -> None:
    store.put("key", b"old and long")
    store.put("key", b"new", durable=True)
    assert store.get("key") == b"new"
    store.delete("key")
    store.delete("key")
    assert not store.exists("key")


def test_a_missing_object_is_a_key_error_that_says_where(store: ObjectStore) -> None:
    for kind in (KeyError, StorageError, MissingObjectError):
        with pytest.raises(kind, match="nothing/here does not exist"):
            store.get("nothing/here")
    assert store.get_or_none("nothing/here", 1, 2) is None


def test_a_folder_is_no_object(store: ObjectStore) -> None:
    store.put("folder/key", b"x")
    assert not store.exists("folder")
    assert store.get_or_none("folder") is None


def test_a_list_is_sorted_and_has_every_key_of_the_prefix(store: ObjectStore) -> None:
    for key in ("parts/b/2", "parts/b/10", "parts/a", "partsx", "other"):
        store.put(key, b"x")
    assert store.list("parts/") == ["parts/a", "parts/b/10", "parts/b/2"]
    assert store.list("parts/b/1") == ["parts/b/10"]
    assert len(store.list()) == 5
    assert store.list("nowhere/") == []


def test_half_written_objects_are_never_listed(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path)
    store.put("key", b"x")
    (tmp_path / ".key.0123.partial").write_bytes(b"what a killed writer left")
    assert store.list() == ["key"]


def test_only_local_stores_append(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path)
    assert store.supports_append
    store.append("log/lines", b"one\n")
    store.append("log/lines", b"two\n")
    assert store.get("log/lines") == b"one\ntwo\n"
    bucket = ObjectStore("mem://bucket/x")
    assert not bucket.supports_append
    assert bucket.local_path is None
    with pytest.raises(StorageError, match="only local folders"):
        bucket.append("log", b"x")


def test_a_store_travels_to_another_process(store: ObjectStore) -> None:
    store.put("key", b"x")
    copy = pickle.loads(pickle.dumps(store))
    assert copy == store
    assert hash(copy) == hash(store)
    assert copy.get("key") == b"x"


def test_threads_may_share_a_store(store: ObjectStore) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: store.put(f"k/{i}", bytes([i]) * 1000), range(64)))
        assert list(pool.map(lambda i: store.get(f"k/{i}"), range(64))) == [bytes([i]) * 1000 for i in range(64)]


KILLED_WRITER = """
import sys
from pipeline.storage import ObjectStore
store = ObjectStore(sys.argv[1])
store.put("key", bytes([0]) * 4_000_000)
print("ready", flush=True)
value = 0
while True:
    value = (value + 1) % 256
    store.put("key", bytes([value]) * 4_000_000)
"""


def test_kill_9_never_leaves_a_half_written_object(tmp_path: Path) -> None:
    """After kill -9 in the middle of a write the object is a whole one, old or new, and no other file is left."""
    for delay in (0.0, 0.003, 0.011, 0.02):
        with subprocess.Popen([sys.executable, "-c", KILLED_WRITER, tmp_path], stdout=subprocess.PIPE) as process:
            assert process.stdout
            process.stdout.readline()
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
        data = ObjectStore(tmp_path).get("key")
        assert len(data) == 4_000_000
        assert len(set(data)) == 1
    assert ObjectStore(tmp_path).list() == ["key"]


LIMITED_WRITER = """
import resource, sys
from pipeline.errors import StorageError
from pipeline.storage import ObjectStore
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
store = ObjectStore(sys.argv[1])
for write in (store.put, store.append):
    try:
        write("key", b"y" * 5000)
    except StorageError as error:
        print(error)
"""


def test_a_write_that_the_system_refuses_leaves_the_old_object_and_no_rubbish(tmp_path: Path) -> None:
    """A write that a file-size limit stops half-way, as a full disk does, leaves the old object and no partial file."""
    store = ObjectStore(tmp_path)
    store.put("key", b"old")
    run = subprocess.run([sys.executable, "-c", LIMITED_WRITER, tmp_path], capture_output=True, text=True, check=True)
    assert run.stdout.count("File too large; this file system or a limit") == 2
    assert f"{tmp_path}/key" in run.stdout
    assert store.get("key") == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["key"]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1000


def test_a_file_in_the_way_of_a_folder_is_a_storage_error_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(
        StorageError, match=r"cannot write .*file/key: Not a directory; .* choose another folder"
    ) as caught:
        ObjectStore(tmp_path / "file").put("key", b"x")
    assert caught.value.errno == errno.ENOTDIR


@pytest.mark.parametrize(
    ("number", "remedy"),
    [(errno.ENOSPC, "free some space"), (errno.EROFS, "read-only"), (errno.EACCES, "right"), (errno.EIO, "network")],
)
def test_each_system_error_names_its_cause_and_a_remedy(number: int, remedy: str) -> None:
    error = as_storage_error(OSError(number, os.strerror(number)), "write", "/data/run/key")
    assert str(error).startswith(f"cannot write /data/run/key: {os.strerror(number)}; ")
    assert remedy in str(error)
    assert error.errno == number


DTYPES = st.sampled_from(["bool", "uint8", "int16", "uint32", "int64", "uint64", "float32", "float64"])
ARRAYS = st.dictionaries(
    st.text("abcdefghij_0123456789", min_size=1, max_size=8),
    DTYPES.flatmap(lambda d: hnp.arrays(d, hnp.array_shapes(min_dims=0, min_side=0, max_dims=3, max_side=5))),
    max_size=4,
)


@settings(max_examples=60, deadline=None)
@given(ARRAYS, st.booleans())
def test_arrays_come_back_as_they_were(arrays: dict[str, np.ndarray], compress: bool) -> None:
    found = unpack_arrays(pack_arrays(arrays, compress=compress))
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        assert found[name].tobytes() == array.tobytes()
        assert found[name].flags.writeable


def test_equal_arrays_give_equal_bytes_at_any_time_and_in_any_order() -> None:
    """Packed arrays depend only on names and values: not on the time, the memory layout or the order of names."""
    a, b = np.arange(10, dtype="uint64"), np.ones((2, 3), order="F")
    first = [pack_arrays({"a": a, "b": b}, compress=compress) for compress in (False, True)]
    time.sleep(2.1)  # zip files count time in steps of two seconds
    copies = {"b": np.ascontiguousarray(b), "a": np.repeat(a, 2)[::2]}
    assert first == [pack_arrays(copies, compress=compress) for compress in (False, True)]


def test_arrays_are_stored_as_plain_npz(store: ObjectStore, tmp_path: Path) -> None:
    store.put_arrays("key", {"edges": np.arange(6).reshape(3, 2)})
    (tmp_path / "copy.npz").write_bytes(store.get("key"))
    with np.load(tmp_path / "copy.npz") as arrays:
        assert (arrays["edges"] == np.arange(6).reshape(3, 2)).all()


def test_one_array_is_read_without_the_others(store: ObjectStore) -> None:
    """An array comes back by its name, and a name that the object has not gives none."""
    store.put_arrays("key", {"large": np.arange(10**6), "small": np.arange(6).reshape(3, 2)})
    small = store.get_array("key", "small")
    assert small is not None
    assert (small == np.arange(6).reshape(3, 2)).all()
    assert store.get_array("key", "other") is None


def test_python_objects_are_refused(store: ObjectStore) -> None:
    with pytest.raises(ValueError, match="pickle"):
        store.put_arrays("key", {"a": np.array([object()])})
    assert not store.exists("key")


@pytest.mark.parametrize("damage", ["truncated", "flipped", "other"])
def test_damaged_arrays_are_found(store: ObjectStore, damage: str) -> None:
    store.put_arrays("key", {"a": np.arange(1000)})
    data = store.get("key")
    flipped = data[:3000] + bytes([data[3000] ^ 1]) + data[3001:]
    store.put("key", {"truncated": data[:-100], "flipped": flipped, "other": b"text"}[damage])
    with pytest.raises(CorruptError, match=r"key is damaged .*verify RUN --repair"):
        store.get_arrays("key")


def test_each_keeps_the_order_and_may_be_used_in_itself() -> None:
    """``each`` returns results in order, passes errors on, and does not deadlock when its function calls ``each``."""
    store = ObjectStore("mem://bucket/each")
    table = store.each(lambda a: store.each(lambda b: a * b, range(9)), range(40))
    assert [list(row) for row in table] == [[a * b for b in range(9)] for a in range(40)]
    with pytest.raises(ZeroDivisionError):
        store.each(lambda a: 1 // a, [1, 0])
