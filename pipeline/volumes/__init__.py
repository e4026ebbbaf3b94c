"""Volumes in any storage format behind one protocol: z, y, x, global voxel coordinates, nanometres.

``open_volume`` finds the format by looking; ``create_volume`` may be called again and again. Axis order x, y, z
exists only inside ``pipeline/volumes/precomputed.py``. A format is a class (``base.Format``) and a line in ``VOLUMES``.
"""

from __future__ import annotations

from importlib import import_module
from typing import cast

from pipeline.errors import ConfigError, VolumeError
from pipeline.volumes.base import Format, Mode, Volume, VolumeSpec, spec_like
from pipeline.volumes.location import Location, detect_format, parse_location, require_format
from pipeline.volumes.marker import refuse_unfinished
from pipeline.volumes.spec_checks import check_spec, differences

__all__ = ["VOLUMES", "Volume", "VolumeSpec", "create_volume", "open_volume", "spec_like"]

VOLUMES = {
    "zarr": "pipeline.volumes.ome_zarr:ZarrVolume",
    "precomputed": "pipeline.volumes.precomputed:PrecomputedVolume",
    "memory": "pipeline.volumes.memory:MemoryVolume",
    "hdf5": "pipeline.volumes.hdf5:Hdf5Volume",
    "npy": "pipeline.volumes.npy:NpyVolume",
    "tiff": "pipeline.volumes.tiff:TiffVolume",
}
"""Storage formats by name; loaded when asked for."""


USED_BY = {"mip": ("zarr", "precomputed"), "axes": ("zarr", "hdf5", "npy")}
"""Options of a URL that mean something to these formats only."""


def open_volume(url: str, *, mode: Mode = "r") -> Volume:
    """Open an existing volume.

    url: a path or a URL (``file://``, ``s3://``, ``gs://``, ``https://``, ``memory://name``), of a zarr array or
        multiscale group, a precomputed layer, ``file.h5:dataset``, a ``.npy`` file or TIFF images. After ``#``,
        joined by ``&``: ``mip=1`` picks a level, ``resolution=8,8,8`` and ``offset=0,0,0`` (z, y, x) replace what the
        file says or does not say, ``axes=zyx`` names the order of an array that does not name its axes.
    mode: ``r`` or ``r+`` (read and write).

    Raises ``VolumeError`` (missing, not usable, or ``petaseg ingest`` has not finished it),
    ``ConfigError`` (not a URL of a volume), ``StorageError``.
    """
    location = parse_location(url)
    name = location.format or require_format(location)
    _refuse_options(location, name)
    kind = _format(name)
    if mode == "r" and kind.creatable:
        refuse_unfinished(location)
    return kind.open(location, mode)


def create_volume(url: str, spec: VolumeSpec, *, format: str | None = None, overwrite: bool = False) -> Volume:
    """Make an empty volume and open it for reading and writing; an existing equal one is opened as it is.

    format: a creatable name in ``VOLUMES``; left out, the URL's own (``precomputed://``, ``memory://``) or zarr.
    overwrite: delete an existing volume first.

    Raises ``VolumeError`` if something different is there, or the specification cannot be stored.
    """
    location = parse_location(url)
    name = format or location.format or "zarr"
    if location.format not in (None, name):
        raise VolumeError(f"{url} is {location.format}, but the format asked for is {name}; leave one of the two out")
    kind = _format(name)
    if not kind.creatable:
        raise VolumeError(f"{name} volumes such as {url} are only read; create a zarr or precomputed volume instead")
    check_spec(url, spec)
    _refuse_other_format(location, name)
    if overwrite or not kind.exists(location):
        return kind.create(location, spec)
    volume = kind.open(location, "r+")
    _refuse_different(volume, spec)
    return volume


def _refuse_options(location: Location, name: str) -> None:
    for option in location.options:
        formats = USED_BY.get(option, (name,))
        if name not in formats:
            raise ConfigError(f"{location.url}: {option} is for {' and '.join(formats)}, not for {name}; leave it out")


def _refuse_different(volume: Volume, spec: VolumeSpec) -> None:
    if problems := differences(volume.spec, spec):
        raise VolumeError(
            f"{volume.url} exists already and is different: {'; '.join(problems)}; "
            "choose another place, delete it, or overwrite it"
        )


def _refuse_other_format(location: Location, name: str) -> None:
    found = detect_format(location) if location.format is None else None
    if found not in (None, name):
        raise VolumeError(
            f"{location.url} holds a {found} volume, so no {name} can be made there: choose another place"
        )


def _format(name: str) -> type[Format]:
    if name not in VOLUMES:
        raise VolumeError(f"there is no volume format {name!r}; there are {', '.join(VOLUMES)}")
    module, _, attribute = VOLUMES[name].partition(":")
    return cast(type[Format], getattr(import_module(module), attribute))
