"""Remove an existing volume completely, and never touch a folder that holds anything else."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Collection

from pipeline.errors import VolumeError
from pipeline.storage import PARTIAL, ObjectStore, storage_errors


def remove_volume(store: ObjectStore, markers: Collection[str]) -> None:
    """Remove a volume: a local one at once; in a bucket, marker files go last, so that it can be repeated."""
    if store.local_path is None:
        for key in sorted(store.list(), key=lambda key: key in markers):
            store.delete(key)
        return
    hidden = store.local_path.with_name(f".{store.local_path.name}.{uuid.uuid4().hex}{PARTIAL}")
    with storage_errors("delete", store.url):
        store.local_path.rename(hidden)
        shutil.rmtree(hidden)


def refuse_occupied(store: ObjectStore, leftovers: Collection[str] = ()) -> None:
    """``VolumeError`` if a local folder holds anything but what an interrupted creation may have left."""
    path = store.local_path
    if path is None or not path.is_dir():
        return
    names = (child.name for child in path.iterdir())
    if unknown := sorted(name for name in names if name not in leftovers and not name.endswith(PARTIAL)):
        raise VolumeError(
            f"{store.url} is a folder with other things in it ({', '.join(unknown[:5])}), not a volume; "
            "choose a new or empty folder"
        )
