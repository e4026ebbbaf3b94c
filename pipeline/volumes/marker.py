"""The marker beside a volume that is being brought in: as long as it is there, the volume is not complete.

image.zarr                the volume
image.zarr.ingest.json    how far ``petaseg ingest`` is; gone when the last block is written
"""

from __future__ import annotations

import errno
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.errors import ConfigError, PetasegError, StorageError, VolumeError
from pipeline.formats import INGEST
from pipeline.storage import ObjectStore, parent_of
from pipeline.volumes.location import Location, parse_location

logger = logging.getLogger("petaseg.volumes")

ENDING = ".ingest.json"
READ_ONLY = ("http", "https")
"""Schemes of places that ``petaseg ingest`` cannot write to, so that no marker is looked for there."""


class Marker:
    """``<target>.ingest.json``: which source is being copied to a target, and how many blocks are done."""

    def __init__(self, target_url: str, fingerprint: str) -> None:
        self._target_url = target_url
        self._fingerprint = fingerprint
        location = parse_location(target_url)
        parent, _, self._key = location.base.rpartition("/")
        self._key += ENDING
        if parent.endswith(":/"):
            raise ConfigError(
                f"target {target_url} is a whole bucket; name a folder in it: {target_url.rstrip('/')}/image"
            )
        lasting = location.entry.lasting  # another target does not outlive an interruption
        self._store = ObjectStore(parent or ("/" if location.base.startswith("/") else ".")) if lasting else None

    def blocks_done(self) -> int | None:
        """Blocks that an interrupted call wrote; ``None`` if there was none.

        ``VolumeError`` if it was another call, if a newer petaseg wrote the marker, or if the marker is damaged.
        """
        data = self._store and self._store.get_or_none(self._key)
        if not data:
            return None
        place = f"{self._target_url}{ENDING}"
        try:
            state = json.loads(data)
            INGEST.check(state, place, VolumeError)
            fingerprint, blocks_done = str(state["fingerprint"]), int(state["blocks_done"])
        except (ValueError, TypeError, KeyError) as error:
            raise VolumeError(
                f"{place} is damaged, or not petaseg's ({error}); choose another target, or delete that file yourself"
            ) from error
        if fingerprint != self._fingerprint:
            raise VolumeError(
                f"{self._target_url} was begun from another source or with other settings and not finished; "
                "choose another target, or replace it with --overwrite"
            )
        return blocks_done

    def refuse_foreign(self) -> None:
        """``VolumeError`` if a file of the marker's name is there that no ingest wrote: it is somebody's."""
        data = self._store and self._store.get_or_none(self._key)
        if data and b'"fingerprint"' not in data:
            self.blocks_done()

    def put(self, blocks_done: int) -> None:
        """Record that the first ``blocks_done`` blocks are done."""
        if self._store:
            state = {**INGEST.stamp, "fingerprint": self._fingerprint, "blocks_done": blocks_done}
            self._store.put(self._key, json.dumps(state).encode())

    @contextmanager
    def kept_if_refused(self) -> Iterator[None]:
        """Leave the marker, or that there is none, as it was if the target is refused: nothing of it was touched."""
        before = self._store and self._store.get_or_none(self._key)
        try:
            yield
        except PetasegError:
            if self._store and before:
                self._store.put(self._key, before)
            else:
                self.delete()
            raise

    def delete(self) -> None:
        """Delete the marker: the target is complete."""
        if self._store:
            self._store.delete(self._key)


def refuse_unfinished(location: Location) -> None:
    """Raise ``VolumeError`` if ``petaseg ingest`` has not finished the volume there, or the volume that holds it."""
    if not location.entry.lasting or location.base.partition("://")[0] in READ_ONLY:
        return
    for place in (location.base, parent_of(location.base)):
        if place is not None and _is_marked(place):
            raise VolumeError(
                f"{location.url}: petaseg ingest has not finished writing it ({place}{ENDING} says so), and only "
                "complete volumes are read: give the same petaseg ingest command again, which goes on where it stopped"
            )


def _is_marked(place: str) -> bool:
    """True if there is a marker; where only the volume itself may be read, a warning says that nobody knows."""
    folder, name = parent_of(place), place.rstrip("/").rpartition("/")[2]
    if folder is None:
        return False
    try:
        return ObjectStore(folder).exists(name + ENDING)
    except StorageError as error:
        if error.errno != errno.EACCES:
            raise
        logger.warning("whether an ingest has finished %s is not known: %s", place, error)
        return False
