"""Make room for a new volume: only what petaseg made, and has marked, is ever deleted.

The metadata that petaseg writes for a new volume hold ``MARK``. A folder is deleted if its metadata are marked and it
holds nothing but the objects of such a volume; anything else in it belongs to somebody, and nothing is touched.
"""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Collection, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline.errors import VolumeError
from pipeline.storage import PARTIAL, ObjectStore, is_hidden, storage_errors

MARK: Mapping[str, Any] = {"petaseg": {"made": True}}
"""What the metadata of a volume say if petaseg made it."""
NAMED = 5
"""The number of foreign objects that a message names."""


def is_marked(metadata: Any) -> bool:
    """True if metadata say that petaseg made the volume."""
    return isinstance(metadata, Mapping) and all(metadata.get(key) == value for key, value in MARK.items())


def make_room(store: ObjectStore, own: re.Pattern[str], markers: Collection[str], *, marked: bool) -> None:
    """Delete the volume that is in a folder, if petaseg made it; nothing happens in an empty folder.

    own: matches the keys of the objects that such a volume consists of.
    markers: keys that are deleted last where a folder cannot be deleted at once, so that it can be repeated.
    marked: whether the metadata there say that petaseg made it.

    Raises ``VolumeError``, and deletes nothing, if anything there was not made by petaseg.
    """
    if may_delete(store, own, marked=marked):
        _remove(store, markers)


def may_delete(store: ObjectStore, own: re.Pattern[str], *, marked: bool) -> bool:
    """True if there is a volume that petaseg made, False if there is nothing; ``VolumeError`` for anything else."""
    refuse_occupied(store, own)
    if next(iter(object_names(store)), None) is None:
        return False
    if not marked:
        raise VolumeError(
            f"{store.url} holds a volume that does not say that petaseg made it (another program did, or a petaseg "
            "that did not mark its volumes), and only what petaseg made is deleted: choose another place, or delete it "
            "yourself"
        )
    return True


def refuse_occupied(store: ObjectStore, own: re.Pattern[str]) -> None:
    """``VolumeError`` if there is a file, or a folder that holds anything but the objects of a volume of petaseg."""
    path = store.local_path
    if path is not None and os.path.lexists(path) and not path.is_dir():
        kind = "a link to nothing" if path.is_symlink() else "a file"
        raise VolumeError(f"{store.url} is {kind}, and a volume is a folder; choose another place")
    foreign = list(islice((name for name in object_names(store) if not own.fullmatch(name)), NAMED))
    if foreign:
        raise VolumeError(
            f"{store.url} is a folder with other things in it ({', '.join(foreign)}), which petaseg did not make and "
            "does not delete; choose a new or empty folder, or delete it yourself"
        )


def object_names(store: ObjectStore) -> Iterator[str]:
    """The keys below a folder; a link is one object, whatever it points to."""
    if store.local_path is None:
        yield from store.list()
    elif store.local_path.is_dir():
        with storage_errors("list", store.url):
            yield from _names_below(store.local_path, "")


def _names_below(folder: Path, prefix: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _names_below(folder / entry.name, f"{prefix}{entry.name}/")
            elif entry.is_symlink() or not is_hidden(entry.name):
                yield prefix + entry.name


def _remove(store: ObjectStore, markers: Collection[str]) -> None:
    """Delete a folder of petaseg's: at once, or object by object in a bucket and behind a link, which stays."""
    path = store.local_path
    if path is None or path.is_symlink():
        for key in sorted(store.list(), key=lambda key: key in markers):
            store.delete(key)
        return
    hidden = path.with_name(f".{path.name}.{uuid.uuid4().hex}{PARTIAL}")
    with storage_errors("delete", store.url):
        path.rename(hidden)
        shutil.rmtree(hidden)
