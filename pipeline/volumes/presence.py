"""Whether anything of a volume was ever stored.

Formats with chunks leave out those that hold nothing. If not one chunk is there, somebody copied the metadata alone,
or named the wrong folder: all voxels would be the fill value, without a word.
"""

from __future__ import annotations

from typing import cast

from pipeline.errors import VolumeError
from pipeline.registry import load
from pipeline.volumes.base import CreatableFormat, Volume
from pipeline.volumes.formats import DEFAULT_FORMAT, entry_of
from pipeline.volumes.location import detect_format, parse_location

FEW = 16
"""Names of objects that are looked at: more than there are objects with metadata."""


def require_stored(volume: Volume) -> None:
    """Raise ``VolumeError`` for a volume of which not one chunk is stored, unless petaseg made it.

    petaseg stores no chunk of zeros, so that a volume of zeros that it made has none.
    """
    if not volume.is_stored and not _is_made_by_petaseg(volume.url):
        raise VolumeError(
            f"{volume.url} has not one stored chunk, so that all its voxels would be the same: bring its chunks if "
            "only its metadata are here, or correct the path"
        )


def _is_made_by_petaseg(url: str) -> bool:
    location = parse_location(url)
    entry = entry_of(location.format or detect_format(location) or DEFAULT_FORMAT)
    return entry.creatable and cast(type[CreatableFormat], load(entry.path)).is_own(location)
