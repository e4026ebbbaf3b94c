"""The promises of every kind of storage. Subclass ``ReadContract`` or ``BackendContract`` and give its fixture."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Mapping

import pytest

from pipeline.storage.base import Backend

DIGITS = b"0123456789"
Stored = Callable[[Mapping[str, bytes]], Backend]
"""Makes a backend that holds these objects and no others."""


class ReadContract:
    """Promises of reading; the fixture ``stored`` makes a backend that holds given objects, by whatever means."""

    def test_an_object_is_read_whole_and_in_ranges(self, stored: Stored) -> None:
        """A range begins at 0 if its start is left out, ends with the object, and counts a negative start from it."""
        backend = stored({"a/key": DIGITS})
        ranges = {
            (None, None): DIGITS,
            (None, 3): b"012",
            (2, 5): b"234",
            (7, None): b"789",
            (-4, None): b"6789",
            (-40, None): DIGITS,
            (8, 40): b"89",
            (20, None): b"",
            (4, 4): b"",
        }
        assert {span: backend.get("a/key", *span) for span in ranges} == ranges

    def test_a_missing_object_is_none(self, stored: Stored) -> None:
        """``get``, also of a range, and ``get_versioned`` give ``None`` where there is no object."""
        backend = stored({"key": b"x"})
        assert [backend.get("nothing/here", *span) for span in ((None, None), (1, 2), (-3, None))] == [None] * 3
        assert backend.get_versioned("nothing/here") is None
        assert not backend.exists("nothing/here")

    def test_an_object_may_be_empty(self, stored: Stored) -> None:
        """An object without bytes exists and is read back."""
        backend = stored({"empty": b""})
        assert backend.exists("empty")
        assert backend.get("empty", None, None) == b""

    def test_equal_objects_are_read_with_a_version_that_stays(self, stored: Stored) -> None:
        """The version of an object that nobody writes is the same text at each reading."""
        backend = stored({"key": DIGITS})
        first, again = backend.get_versioned("key"), backend.get_versioned("key")
        assert first is not None
        assert first == again
        assert first[0] == DIGITS
        assert isinstance(first[1], str)


class BackendContract(ReadContract):
    """Promises of storage that can be written; the fixture ``backend`` is one that is empty."""

    @pytest.fixture
    def stored(self, backend: Backend) -> Stored:
        """Writes the objects by the backend itself."""

        def fill(objects: Mapping[str, bytes]) -> Backend:
            for key, data in objects.items():
                backend.put(key, data, False)
            return backend

        return fill

    def test_a_folder_is_no_object(self, backend: Backend) -> None:
        """The name in front of a slash in a key is no object."""
        backend.put("folder/key", b"x", False)
        assert not backend.exists("folder")
        assert backend.get("folder", None, None) is None

    def test_a_list_has_every_key_of_a_prefix_and_no_other(self, backend: Backend) -> None:
        """A prefix may end in the middle of a name; a prefix of nothing lists nothing."""
        keys = ["other", "parts/a", "parts/b/10", "parts/b/2", "partsx"]
        for key in keys:
            backend.put(key, b"x", False)
        assert sorted(backend.list("")) == keys
        assert sorted(backend.list("parts/")) == ["parts/a", "parts/b/10", "parts/b/2"]
        assert sorted(backend.list("parts")) == keys[1:]
        assert sorted(backend.list("parts/b/1")) == ["parts/b/10"]
        assert sorted(backend.list("nowhere/")) == []

    def test_a_few_keys_are_those_of_objects(self, backend: Backend) -> None:
        """No more than there are; none of nothing."""
        assert not backend.some(16)
        for number in range(3):
            backend.put(f"parts/{number}", b"x", False)
        found = backend.some(16)
        assert found is not None
        assert sorted(found) == ["parts/0", "parts/1", "parts/2"]
        assert len(backend.some(1) or []) >= 1

    @pytest.mark.parametrize("durable", [False, True])
    def test_a_put_replaces_the_whole_object(self, backend: Backend, durable: bool) -> None:
        """A shorter object leaves nothing of the longer one that it replaces."""
        backend.put("key", b"old and long", durable)
        backend.put("key", b"new", durable)
        assert backend.get("key", None, None) == b"new"
        assert list(backend.list("")) == ["key"]

    def test_readers_see_whole_objects_only(self, backend: Backend) -> None:
        """While an object is replaced again and again, each reading is a whole old or a whole new object."""
        size, enough = 200_000, threading.Event()
        backend.put("key", bytes(size), False)

        def write() -> None:
            value = 0
            while not enough.is_set():
                value = (value + 1) % 256
                backend.put("key", bytes([value]) * size, False)

        writer = threading.Thread(target=write)
        writer.start()
        found = [backend.get("key", None, None) for _ in range(20)]
        enough.set()
        writer.join()
        assert all(data is not None and len(data) == size and len(set(data)) == 1 for data in found)

    def test_a_deleted_object_is_gone_and_deleting_nothing_does_nothing(self, backend: Backend) -> None:
        """An object may be deleted twice, and one that never was there too; its neighbours stay."""
        for key in ("a/key", "a/neighbour"):
            backend.put(key, b"x", False)
        for key in ("a/key", "a/key", "never/there"):
            backend.delete(key)
        assert not backend.exists("a/key")
        assert list(backend.list("")) == ["a/neighbour"]

    def test_put_if_creates_only_what_is_missing(self, backend: Backend) -> None:
        """Without a version ``put_if`` stores an object that is not there, and refuses to replace one that is."""
        version = backend.put_if("key", b"first", None)
        assert version is not None
        assert backend.put_if("key", b"second", None) is None
        assert backend.get_versioned("key") == (b"first", version)

    def test_put_if_replaces_only_the_version_that_it_names(self, backend: Backend) -> None:
        """With a version ``put_if`` replaces that version, and refuses a later one and a missing object."""
        backend.put("key", b"plain", False)
        found = backend.get_versioned("key")
        assert found is not None
        second = backend.put_if("key", b"second", found[1])
        assert second not in (None, found[1])
        assert backend.put_if("key", b"late", found[1]) is None
        assert backend.get("key", None, None) == b"second"
        backend.delete("key")
        assert backend.put_if("key", b"too late", second) is None
        assert not backend.exists("key")

    def test_of_several_writers_one_succeeds(self, backend: Backend) -> None:
        """Of four threads that replace one version at once, exactly one is told that it did."""
        version = backend.put_if("key", b"first", None)
        start, won = threading.Barrier(4), []

        def write() -> None:
            mine = uuid.uuid4().bytes
            start.wait()
            if backend.put_if("key", mine, version):
                won.append(mine)

        threads = [threading.Thread(target=write) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert backend.get("key", None, None) == won[0]
