"""Volumes in any storage format behind one protocol: z, y, x, global voxel coordinates, nanometres.

``open_volume`` finds the format by looking; ``create_volume`` may be called again and again. Axis order x, y, z
exists only inside ``pipeline/volumes/precomputed.py``. A format is a class (``base.Format``) and a row in ``VOLUMES``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from pipeline.errors import ConfigError, PetasegError, VolumeError
from pipeline.registry import load
from pipeline.volumes.base import CreatableFormat, Format, Mode, Volume, VolumeSpec, spec_like
from pipeline.volumes.formats import DEFAULT_FORMAT, VOLUMES, creatable, either, entry_of, understood_by
from pipeline.volumes.location import Location, detect_format, parse_location, require_format
from pipeline.volumes.marker import refuse_unfinished
from pipeline.volumes.one_channel import chosen_channel
from pipeline.volumes.scaled import scaled
from pipeline.volumes.spec_checks import check_spec, differences
from pipeline.volumes.zeros_and_ones import without_bool

__all__ = [
    "VOLUMES",
    "Volume",
    "VolumeSpec",
    "create_volume",
    "describe_volume",
    "open_volume",
    "parse_target",
    "spec_like",
]


def open_volume(url: str, *, mode: Mode = "r") -> Volume:
    """Open an existing volume.

    url: a path or a URL (``file://``, ``s3://``, ``gs://``, ``https://``, ``memory://name``), of a zarr array or
        multiscale group, a precomputed layer, ``file.h5:dataset``, a ``.npy`` file, TIFF, PNG or JPEG images, or a
        JSON file that lists tiles. After ``#``, joined by ``&``: ``mip=1`` picks a level, ``channel=0`` one channel
        (read-only), ``resolution=8,8,8`` and ``offset=0,0,0`` (z, y, x) replace or add what the file states, which is
        then not looked at, and so does ``axes=zyx`` with the order of the axes. Stored bool is uint8, 0 and 1.
        ``scale=100`` reads the value 100 as 255 and others in proportion, as uint8.
    mode: ``r`` or ``r+`` (read and write).

    Raises ``VolumeError`` (missing, not usable, or ``petaseg ingest`` has not finished it),
    ``ConfigError`` (not a URL of a volume), ``StorageError``.
    """
    location = parse_location(url)
    name = location.format or require_format(location)
    _refuse_options(location, name)
    if mode == "r" and entry_of(name).creatable:
        refuse_unfinished(location)
    kind = cast(type[Format], load(entry_of(name).path))
    try:
        volume = without_bool(chosen_channel(location, kind.open(location, mode), mode))
        volume = scaled(location, volume)
    except (PetasegError, OSError, MemoryError):
        raise
    except Exception as error:  # wrong metadata can raise any error
        raise VolumeError(
            f"{url} has metadata that cannot be understood ({type(error).__name__}: {error}); correct it, or replace "
            "it by options after # where there are some"
        ) from error
    _refuse_type(volume)
    return volume


def _refuse_type(volume: Volume) -> None:
    if volume.spec.dtype.kind not in "iuf":
        raise VolumeError(f"{volume.url} holds {volume.spec.dtype}; voxels must be integers or floats: convert them")


def create_volume(url: str, spec: VolumeSpec, *, format: str | None = None, overwrite: bool = False) -> Volume:
    """Make an empty volume and open it for reading and writing; an existing equal one is opened as it is.

    format: a creatable name in ``VOLUMES``; left out, the URL's own (``precomputed://``, ``memory://``) or zarr.
    overwrite: delete an existing volume first.

    Raises ``VolumeError`` if something different or somebody else's is there, or the specification cannot be stored.
    """
    location = parse_target(url)
    name = format or location.format or DEFAULT_FORMAT
    if location.format not in (None, name):
        raise VolumeError(f"{url} is {location.format}, but the format asked for is {name}; leave one of the two out")
    if not entry_of(name).creatable:
        raise VolumeError(f"{name} volumes such as {url} are only read; create a {either(creatable())} volume instead")
    kind = cast(type[CreatableFormat], load(entry_of(name).path))
    check_spec(url, spec)
    _refuse_other_format(location, name)
    if overwrite or not kind.exists(location):
        return kind.create(location, spec)
    volume = kind.open(location, "r+")
    _refuse_different(volume, spec)
    if not kind.is_own(location):
        raise VolumeError(
            f"{url} exists already and does not say that petaseg made it, and only such a volume is written on: "
            "choose another place, or move it away"
        )
    return volume


def describe_volume(url: str, attributes: Mapping[str, Any]) -> None:
    """Add attributes to the metadata of a zarr volume that petaseg made; nothing is written if it has them.

    attributes: JSON by name; an attribute of the same name is replaced.
    """
    from pipeline.volumes.ome_zarr import ZarrVolume  # it imports zarr

    ZarrVolume.describe(parse_target(url), attributes)


def parse_target(url: str) -> Location:
    """The location of a volume to be made; ``ConfigError`` for options, which say how to read one."""
    location = parse_location(url)
    if location.options:
        raise ConfigError(f"{url}: options after # say how to read a volume; leave them out where one is made")
    return location


def _refuse_options(location: Location, name: str) -> None:
    for option in location.options:
        if option not in entry_of(name).options:
            formats = " and ".join(understood_by(option))
            raise ConfigError(f"{location.url}: {option} is for {formats}, not for {name}; leave it out")


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
