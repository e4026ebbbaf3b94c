"""The coarser levels of a zarr volume that petaseg made: arrays beside level 0, listed when all of them are complete.

<url>/zarr.json       lists the levels that a reader may see
<url>/1/zarr.json     the array of level 1, with voxels of at most twice the size; and so on

A level is opened by what its writer knows about it, so it can be written before it is listed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import VolumeError
from pipeline.storage import ObjectStore
from pipeline.volumes import describe_volume, open_volume, parse_target
from pipeline.volumes.base import VolumeSpec
from pipeline.volumes.removal import MARK, refuse_occupied
from pipeline.volumes.spec_checks import check_spec, differences


@dataclass(frozen=True)
class StoredLevel:
    """A level of a volume; of level 0, only that it is the volume itself."""

    volume_url: str
    number: int
    spec: VolumeSpec

    @property
    def place(self) -> str:
        """The folder of the array."""
        return f"{self.volume_url}/{self.number}"

    @property
    def url(self) -> str:
        """What ``open_volume`` takes, whether the level is listed or not."""
        return self.volume_url if self.number == 0 else self.unlisted_url

    @property
    def unlisted_url(self) -> str:
        """The same without a look at the metadata of the volume, also for level 0."""
        axes = "zyx" if self.spec.channels is None else "czyx"
        resolution = ",".join(map(repr, self.spec.resolution_nm))
        offset = ",".join(map(str, self.spec.bounds.start))
        return f"{self.place}#axes={axes}&resolution={resolution}&offset={offset}"

    def create(self) -> None:
        """Make the empty array, unless an equal one is there; another one is replaced."""
        from pipeline.volumes.ome_zarr import create_array  # it imports zarr

        check_spec(self.url, self.spec)
        if not self._is_there():
            store = ObjectStore(self.place)
            _delete_all(store)
            create_array(store, self.spec)

    def _is_there(self) -> bool:
        try:
            return not differences(open_volume(self.url, mode="r+").spec, self.spec)
        except VolumeError:
            return False


def list_levels(url: str, levels: Sequence[StoredLevel]) -> None:
    """Say in the metadata of a volume which levels it has, all at once; nothing is written if they say so already.

    Raises ``VolumeError`` if petaseg did not make the volume.
    """
    describe_volume(url, attributes_of(url, levels))


def attributes_of(url: str, levels: Sequence[StoredLevel]) -> Mapping[str, Any]:
    """The attributes of a group with these levels, the finest first; of none, an empty table."""
    from pipeline.volumes.ome_metadata import multiscale_attributes
    from pipeline.volumes.ome_zarr import name_of

    specs = {str(level.number): level.spec for level in levels}
    return multiscale_attributes(name_of(parse_target(url)), specs) if specs else {"ome": {"version": "0.5"}}


def listed_levels(url: str) -> tuple[str, ...]:
    """The levels that a volume lists, the finest first, each as ``open_volume`` takes it."""
    from pipeline.volumes.ome_metadata import parse_multiscale

    group = json.loads(ObjectStore(url).get_or_none("zarr.json") or b"{}")
    image = parse_multiscale(url, group.get("attributes", {}))
    return () if image is None else tuple(f"{url}#mip={mip}" for mip in range(len(image.levels)))


def make_group(url: str) -> None:
    """Make a group without levels, marked as petaseg's, unless one is there; ``VolumeError`` among foreign files."""
    from pipeline.volumes.ome_zarr import GROUP, OWN

    store = ObjectStore(url)
    if not store.exists("zarr.json"):
        refuse_occupied(store, OWN)
        attributes = {**attributes_of(url, []), **MARK}
        store.put("zarr.json", json.dumps({**GROUP, "attributes": attributes}, indent=2).encode())


def remove_levels_above(url: str, number: int) -> None:
    """Delete the arrays of all levels above this one: those of an earlier run with more levels."""
    store = ObjectStore(url)
    while store.exists(f"{(number := number + 1)}/zarr.json"):
        _delete_all(ObjectStore(f"{url}/{number}"))


def _delete_all(store: ObjectStore) -> None:
    """Delete the objects of an array, its metadata last, so that it may be repeated."""
    for key in sorted(store.list(), key=lambda key: key == "zarr.json"):
        store.delete(key)
