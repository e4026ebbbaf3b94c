"""What a zarr volume that petaseg made has stored outside of a box: found for a proof, or removed.

A stored chunk that lies outside is deleted; one that crosses the box keeps its voxels inside, and gets 0 outside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from pipeline.errors import CorruptError
from pipeline.geometry import BoundingBox, Vec
from pipeline.storage import ObjectStore
from pipeline.volumes import open_volume
from pipeline.volumes.base import Volume
from pipeline.volumes.levels import StoredLevel


def stored_outside(url: str, box: BoundingBox, level: StoredLevel | None = None) -> Iterator[str]:
    """The keys of stored chunks that hold anything outside of a box, in bounded memory; none without a volume.

    level: a coarser level of the volume, which is looked at instead; the box is in voxels of that level.
    """
    if (volume := _opened(url, level)) is not None:
        for key, stored in _chunks_beyond(url, volume, box, level):
            if stored.intersect(box).empty or _voxels_outside(volume, stored, box) is not None:
                yield key


def remove_outside(url: str, box: BoundingBox, may_write: Callable[[], None], level: StoredLevel | None = None) -> None:
    """Make everything outside of a box 0; may be repeated after an interruption. ``may_write`` may raise.

    level: see ``stored_outside``.
    """
    store = ObjectStore(url)
    if (volume := _opened(url, level)) is None:
        return
    for key, stored in _chunks_beyond(url, volume, box, level):
        may_write()
        if stored.intersect(box).empty:
            store.delete(key)
            continue
        try:
            kept = _voxels_outside(volume, stored, box)
        except CorruptError:  # its chunk is computed again, since its checksum differs
            store.delete(key)
        else:
            if kept is not None:
                volume.write(stored, kept)


def _opened(url: str, level: StoredLevel | None) -> Volume | None:
    """The volume, or its level, for reading and writing; ``None`` if there is none."""
    if not ObjectStore(url if level is None else level.place).exists("zarr.json"):
        return None
    return open_volume(url if level is None else level.url, mode="r+")


def _chunks_beyond(
    url: str, volume: Volume, box: BoundingBox, level: StoredLevel | None
) -> Iterator[tuple[str, BoundingBox]]:
    """The stored chunks that are not wholly in a box, with their voxels: one layer of chunks along z after another."""
    from pipeline.volumes.ome_zarr import LEVEL  # it imports zarr

    spec, store = volume.spec, ObjectStore(url)
    if box.contains(spec.bounds):
        return
    array = LEVEL if level is None else str(level.number)
    head = f"{array}/c/" if spec.channels is None else f"{array}/c/0/"
    for z in range(spec.bounds.shape.ceil_div(spec.storage_chunk)[0]):
        for key in store.list(f"{head}{z}/"):
            index = key.removeprefix(head).split("/")
            if len(index) != 3 or not all(map(str.isdecimal, index)):
                continue  # no chunk of the volume
            start = spec.bounds.start + Vec(*map(int, index)) * spec.storage_chunk
            stored = BoundingBox.from_shape(spec.storage_chunk, start).intersect(spec.bounds)
            if not box.contains(stored):
                yield key, stored


def _voxels_outside(volume: Volume, stored: BoundingBox, box: BoundingBox) -> np.ndarray | None:
    """The voxels that a chunk should hold, if some of its voxels outside of the box are not 0; else ``None``."""
    found, inside = volume.read(stored), stored.intersect(box).slices(stored.start)
    kept = np.zeros_like(found)
    kept[(..., *inside)] = found[(..., *inside)]
    return None if np.array_equal(kept, found) else kept
