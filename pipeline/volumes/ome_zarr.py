"""Zarr volumes: v2 and v3, sharded, plain arrays and OME-Zarr multiscales; created as OME-Zarr 0.5 (zarr v3).

<url>/zarr.json      the group, with axes, units, scale and translation; written last: without it there is no volume
<url>/0/zarr.json    the array of the only level, (z, y, x) or (c, z, y, x), zstd with a checksum
<url>/0/c/...        chunks (or shards); a missing one is all 0

Attributes of both say that petaseg made them (``removal.MARK``).
"""

from __future__ import annotations

import errno
import json
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import zarr
from zarr.codecs import ZstdCodec

from pipeline.errors import PetasegError, StorageError, VolumeError
from pipeline.geometry import BoundingBox, Vec
from pipeline.storage import ObjectStore, parent_of
from pipeline.volumes.attribute_names import axis_names, names_above
from pipeline.volumes.attributes import stated_by, stated_twice
from pipeline.volumes.axes import Axes, given_axes, letters
from pipeline.volumes.base import Mode, VolumeSpec
from pipeline.volumes.checked import CheckedVolume
from pipeline.volumes.formats import VOLUMES
from pipeline.volumes.location import Location
from pipeline.volumes.ome_metadata import Multiscale, multiscale_attributes, parse_multiscale, parse_multiscales
from pipeline.volumes.placement import placement
from pipeline.volumes.presence import FEW
from pipeline.volumes.removal import MARK, is_marked, make_room, may_delete
from pipeline.volumes.zarr_store import ZarrStore

LEVEL = "0"
"""The name of a created volume's array."""
OWN = re.compile(r"zarr\.json|\d{1,2}/zarr\.json|\d{1,2}/c(/\d+)+")
"""The objects of a created volume, with its coarser levels."""
METADATA = ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")
"""The names of objects that hold no voxels."""
GROUP = {"zarr_format": 3, "node_type": "group"}
"""What the metadata of a group say beside its attributes."""
MAX_DEPTH = 3
"""The number of folders above an array in which its multiscale group is searched."""


@dataclass(frozen=True)
class _Above:
    """What lies above an array in its hierarchy."""

    image: Multiscale | None = None
    """The multiscale image that lists the array."""
    path: str = ""
    """The array's path in the image."""
    groups: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Without an image, the attributes of the groups, by their place, the nearest first."""


class ZarrVolume(CheckedVolume):
    """One array of a zarr hierarchy."""

    def __init__(self, url: str, spec: VolumeSpec, array: zarr.Array[Any], axes: Axes, *, writable: bool) -> None:
        super().__init__(url, spec, writable=writable)
        self._array = array
        self._axes = axes

    @classmethod
    def open(cls, location: Location, mode: Mode) -> ZarrVolume:
        """Open an array, or a level of a multiscale group."""
        store = ObjectStore(location.base)
        node = _read_node(store)
        if node is None:
            raise VolumeError(f"{location.url} is no zarr array or group; there is no zarr.json, .zarray or .zgroup")
        kind, attributes = node
        if kind == "array":
            if location.mip:
                raise VolumeError(f"{location.url} is one array, without levels; leave mip={location.mip} out")
            return cls._open_array(location, store, mode, _above(location))
        image = parse_multiscale(location.url, attributes)
        if image is None:
            raise VolumeError(f"{location.url} is a zarr group without multiscales; open an array in it by its path")
        path = image.level(location.url, location.mip).path
        return cls._open_array(location, ObjectStore(f"{location.base}/{path}"), mode, _Above(image, path))

    @classmethod
    def _open_array(cls, location: Location, store: ObjectStore, mode: Mode, above: _Above) -> ZarrVolume:
        array = _open_array(location.url, store, mode)
        axes = Axes(location.url, _axis_names(location, above, array), array.shape)
        stated = stated_by(location.url, array.attrs, axes, above.groups)
        if above.image:
            stated = stated_twice(location.url, above.image.stated(location.url, above.path, axes), stated)
        resolution, bounds = placement(location, stated, axes.extent)
        spec = VolumeSpec(
            bounds=bounds,
            resolution_nm=resolution,
            dtype=array.dtype.newbyteorder("="),
            channels=axes.channels,
            storage_chunk=Vec(*axes.spatial(array.chunks)),
            storage_shard=Vec(*axes.spatial(array.shards)) if array.shards else None,
        )
        return cls(location.url, spec, array, axes, writable=mode == "r+")

    @classmethod
    def exists(cls, location: Location) -> bool:
        """True if there is a zarr array or group."""
        return _read_node(ObjectStore(location.base)) is not None

    @classmethod
    def is_own(cls, location: Location) -> bool:
        """True if the attributes say that petaseg made the image."""
        return _is_made_by_petaseg(ObjectStore(location.base))

    @classmethod
    def create(cls, location: Location, spec: VolumeSpec) -> ZarrVolume:
        """Make an empty OME-Zarr 0.5 image with one level, replacing one that petaseg made there."""
        cls.remove(location)
        store = ObjectStore(location.base)
        create_array(ObjectStore(f"{location.base}/{LEVEL}"), spec)
        attributes = {**multiscale_attributes(name_of(location), {LEVEL: spec}), **MARK}
        store.put("zarr.json", json.dumps({**GROUP, "attributes": attributes}, indent=2).encode())
        return cls.open(location, "r+")

    @classmethod
    def describe(cls, location: Location, attributes: Mapping[str, Any]) -> None:
        """Add attributes to those of the group, unless it has them; ``VolumeError`` if petaseg did not make it."""
        store = ObjectStore(location.base)
        if not _is_made_by_petaseg(store):
            raise VolumeError(f"{location.url} does not say that petaseg made it, so nothing is written into it")
        group = _json(store, store.get("zarr.json"))
        before = _table(store, group.get("attributes") or {})
        after = {**before, **attributes}
        if after != before:
            store.put("zarr.json", json.dumps({**group, "attributes": after}, indent=2).encode())

    @classmethod
    def may_remove(cls, location: Location) -> bool:
        """False if there is nothing; ``VolumeError`` for anything that petaseg did not make."""
        store = ObjectStore(location.base)
        return may_delete(store, OWN, marked=_is_made_by_petaseg(store))

    @classmethod
    def remove(cls, location: Location) -> None:
        """Delete the volume, or what an interrupted creation has left of it; see ``may_remove``."""
        store = ObjectStore(location.base)
        make_room(store, OWN, VOLUMES["zarr"].markers, marked=_is_made_by_petaseg(store))

    @property
    def is_stored(self) -> bool:
        """See ``Volume``: anything beside the array's metadata."""
        names = cast(ZarrStore, self._array.store).objects.some(FEW)
        return names is None or any(posixpath.basename(name) not in METADATA for name in names)

    def _load(self, box: BoundingBox) -> np.ndarray:
        stored = np.asarray(self._array[self._axes.index(box, self.spec.bounds.start)])
        return self._axes.to_zyx(stored)

    def _store(self, box: BoundingBox, data: np.ndarray) -> None:
        self._array[self._axes.index(box, self.spec.bounds.start)] = self._axes.from_zyx(data)


def create_array(store: ObjectStore, spec: VolumeSpec) -> None:
    """Make an empty array of a volume, zarr v3, marked as petaseg's; one that is there is replaced."""
    channels = () if spec.channels is None else (spec.channels,)
    zarr.create_array(
        ZarrStore(store),
        shape=spec.array_shape(spec.bounds),
        dtype=spec.dtype,
        chunks=(*channels, *spec.storage_chunk),
        shards=(*channels, *spec.storage_shard) if spec.storage_shard else None,
        compressors=ZstdCodec(level=1, checksum=True),
        fill_value=0,
        dimension_names=[*("c" for _ in channels), "z", "y", "x"],
        attributes=dict(MARK),
        zarr_format=3,
        overwrite=True,
    )


def name_of(location: Location) -> str:
    """The name of an image, for its metadata."""
    return posixpath.basename(location.base).removesuffix(".zarr")


def _is_made_by_petaseg(store: ObjectStore) -> bool:
    """True if the group says so, or the lone array that an interrupted creation leaves."""
    node = _read_node(store) or _read_node(ObjectStore(f"{store.url}/{LEVEL}"))
    return node is not None and is_marked(node[1])


def _read_node(store: ObjectStore) -> tuple[str, dict[str, Any]] | None:
    """Kind ("array" or "group") and attributes of a zarr node of either version; ``None`` if there is none."""
    if data := store.get_or_none("zarr.json"):
        node = _json(store, data)
        return node.get("node_type", "array"), _table(store, node.get("attributes") or {})
    for marker, kind in ((".zarray", "array"), (".zgroup", "group")):
        if store.exists(marker):
            return kind, _json(store, store.get_or_none(".zattrs") or b"{}")
    return None


def _json(store: ObjectStore, data: bytes) -> dict[str, Any]:
    try:
        result = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise VolumeError(f"{store.url} has metadata that is not JSON ({error}); restore it from a copy") from error
    return _table(store, result)


def _table(store: ObjectStore, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise VolumeError(f"{store.url} has metadata that is no JSON object; restore it from a copy")
    return value


def _above(location: Location) -> _Above:
    """What lies above an array, up to the multiscale image that lists it, if any; the image then says everything.

    Metadata above the array is only looked at if the URL's options leave something to it.
    """
    if location.options.keys() >= {"axes", "resolution", "offset"}:
        return _Above()
    below, path, groups = location.base, "", {}
    for _ in range(MAX_DEPTH):
        parent = parent_of(below)
        if parent is None:
            break
        name = posixpath.basename(below)
        path = posixpath.join(name, path) if path else name
        node = _read_node_if_allowed(ObjectStore(parent))
        for image in parse_multiscales(parent, node[1]) if node else []:
            if image.has(path):
                return _Above(image, path)
        groups[parent] = node[1] if node else {}
        below = parent
    return _Above(groups=groups)


def _read_node_if_allowed(store: ObjectStore) -> tuple[str, dict[str, Any]] | None:
    """Like ``_read_node``, but ``None`` if access is denied, as it may be for the folders above an array."""
    try:
        return _read_node(store)
    except StorageError as error:
        if error.errno == errno.EACCES:
            return None
        raise


def _open_array(url: str, store: ObjectStore, mode: Mode) -> zarr.Array[Any]:
    try:
        return zarr.open_array(ZarrStore(store, read_only=mode == "r"), mode=mode)
    except (PetasegError, MemoryError):
        raise
    except zarr.errors.ArrayNotFoundError:
        raise VolumeError(
            f"{url} lists an array at {store.url}, which is not there; bring it, or name another level"
        ) from None
    except Exception as error:  # wrong metadata can raise any error
        raise VolumeError(
            f"{url} has an array at {store.url} that zarr {zarr.__version__} cannot open "
            f"({type(error).__name__}: {error}); check its metadata, and that the package of its codec is installed"
        ) from error


def _axis_names(location: Location, above: _Above, array: zarr.Array[Any]) -> list[str] | None:
    """The letters of the axes; ``VolumeError`` if the image and the array state different ones."""
    if (given := given_axes(location)) is not None:
        return given
    written: Any = getattr(array.metadata, "dimension_names", None)
    dimensions = {"dimension_names": list(written)} if written and any(written) else {}
    if above.image is None or above.image.names is None:
        names = axis_names(location.url, array.attrs, dimensions)
        return names_above(location.url, above.groups, len(array.shape)) if names is None else names
    known = {key: names for key, names in dimensions.items() if "?" not in letters(list(map(str, names)))}
    return axis_names(location.url, array.attrs, {"multiscales": above.image.names, **known})
