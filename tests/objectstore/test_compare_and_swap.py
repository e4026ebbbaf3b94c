"""``put_if``, on which the lease of a run rests, lets exactly one of several writers win on every kind of storage."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import StorageError
from pipeline.storage import ObjectStore
from tests.objectstore.faults import faulty_server
from tests.objectstore.server import S3Server, set_environment

Make = Callable[[], ObjectStore]


@pytest.fixture(params=["local", "s3", "mem"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "s3":
        return ObjectStore(f"{request.getfixturevalue('bucket')}/some/run")
    return ObjectStore({"local": f"{tmp_path}/run", "mem": f"mem://{uuid.uuid4().hex}/run"}[request.param])


def test_an_object_is_created_once(store: ObjectStore) -> None:
    assert store.get_versioned("lease") is None
    version = store.put_if("lease", b"first", None)
    assert version is not None
    assert store.put_if("lease", b"second", None) is None
    assert store.get_versioned("lease") == (b"first", version)
    assert store.get("lease") == b"first"


def test_an_object_is_replaced_only_by_who_knows_its_present_version(store: ObjectStore) -> None:
    first = store.put_if("lease", b"first", None)
    assert first
    second = store.put_if("lease", b"second", first)
    assert second not in (None, first)
    assert store.put_if("lease", b"late", first) is None
    assert store.get("lease") == b"second"
    assert store.put_if("lease", b"third", second)


def test_an_object_that_is_gone_is_not_replaced(store: ObjectStore) -> None:
    version = store.put_if("lease", b"first", None)
    store.delete("lease")
    assert store.put_if("lease", b"second", version) is None
    assert store.get_versioned("lease") is None


def test_an_object_that_was_put_plainly_has_a_version_too(store: ObjectStore) -> None:
    store.put("lease", b"plain")
    found = store.get_versioned("lease")
    assert found
    assert found[0] == b"plain"
    assert store.put_if("lease", b"other", None) is None
    assert store.put_if("lease", b"other", found[1])


def test_versions_travel_as_text_between_processes(store: ObjectStore) -> None:
    version = store.put_if("lease", b"first", None)
    other = pickle.loads(pickle.dumps(store))
    assert isinstance(version, str)
    assert other.put_if("lease", b"second", version)


def test_a_server_that_ignores_conditions_is_refused(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that ignores conditional writes is refused, since on it two drivers could hold one lease."""
    with faulty_server(server.endpoint, kinds=("deaf",)) as deaf:
        set_environment(monkeypatch, {**server.environment, "AWS_ENDPOINT_URL": deaf.endpoint})
        store = ObjectStore(f"s3://{server.new_bucket()}/run")
        store.put("key", b"x")
        with pytest.raises(StorageError, match=r"lease: the server ignores conditional writes .*; update it, or put"):
            store.put_if("lease", b"x", None)


def test_nothing_beside_the_object_is_listed(store: ObjectStore) -> None:
    version = store.put_if("a/lease", b"first", None)
    store.put_if("a/lease", b"second", version)
    assert store.list() == ["a/lease"]


def test_threads_that_create_and_count_lose_nothing(store: ObjectStore) -> None:
    """Of four threads exactly one creates an object, and a counter that all increment loses no step."""
    created: list[str] = []
    start = threading.Barrier(4)

    def work() -> None:
        start.wait()
        if version := store.put_if("new", uuid.uuid4().bytes, None):
            created.append(version)
        count(store, 10)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(created) == 1
    assert store.get("counter") == b"40"


def count(store: ObjectStore, times: int) -> None:
    """Add one, a number of times, to a counter that other writers increment too."""
    done = 0
    while done < times:
        data, version = store.get_versioned("counter") or (b"0", None)
        done += store.put_if("counter", str(int(data) + 1).encode(), version) is not None


COUNTER = """
import sys
from pipeline.storage import ObjectStore
from tests.objectstore.test_compare_and_swap import count
store = ObjectStore(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
count(store, int(sys.argv[2]))
"""


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_processes_that_count_lose_nothing(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    url = f"{request.getfixturevalue('bucket')}/x" if kind == "s3" else str(tmp_path)
    command = [sys.executable, "-c", COUNTER, url, "25"]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=os.getcwd())
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout
        process.stdout.readline()
    for process in processes:
        process.communicate("go\n", timeout=120)
        assert process.returncode == 0
    assert ObjectStore(url).get("counter") == b"75"


HOLDER = """
import sys
from pathlib import Path
from pipeline.storage.local import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_killed_holder_frees_the_lock_and_a_stopped_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed process frees the lock of a lease; while a stopped process holds the lock, the error says so."""
    monkeypatch.setattr("pipeline.storage.local.LOCK_SECONDS", 0.2)
    store = ObjectStore(tmp_path)
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "lease")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        with pytest.raises(StorageError, match=r"cannot write .*lease: .*timed out; see that no stopped process"):
            store.put_if("lease", b"x", None)
        process.send_signal(signal.SIGKILL)
    assert store.put_if("lease", b"x", None)
