"""The storage formats: one row each says where its class is, how its volumes are recognised and what a URL may say.

A new format is a class (``base.Format``) in a file of its own, and a row in ``VOLUMES``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.errors import VolumeError
from pipeline.registry import find


@dataclass(frozen=True)
class Entry:
    """The row of a storage format."""

    path: str
    """``module:class`` of the ``Format``; loaded when a volume of it is opened."""
    creatable: bool = False
    """True if the class is a ``CreatableFormat``; the others are only read."""
    options: tuple[str, ...] = ()
    """What may be written after ``#`` in a URL."""
    markers: tuple[str, ...] = ()
    """Names of objects by which a folder is recognised as a volume of this format."""
    suffixes: tuple[str, ...] = ()
    """Endings of file names, in small letters, by which a file is recognised."""
    has_datasets: bool = False
    """True if a file holds several volumes: ``file.h5:name``."""
    in_folders: bool = False
    """True if a folder that holds such files is one volume."""
    has_scheme: bool = False
    """True if ``<name>://`` in front of an address chooses this format."""
    lasting: bool = True
    """False if volumes are gone when the process ends."""

    def parse(self, address: str) -> tuple[str, str | None] | None:
        """The file and the dataset that an address names; ``None`` if it is not a file of this format."""
        dataset = "(?::(?P<dataset>.*))?" if self.has_datasets else "(?P<dataset>)"
        found = re.match(rf"^(?P<file>.*{self._ending}){dataset}$", address, re.IGNORECASE)
        return (found["file"], found["dataset"] or None) if found and self.suffixes else None

    def holds(self, name: str) -> bool:
        """True if a file of this name has one of the endings."""
        return bool(self.suffixes) and name.lower().endswith(self.suffixes)

    @property
    def _ending(self) -> str:
        return f"(?:{'|'.join(map(re.escape, self.suffixes))})"


VOLUMES = {
    "zarr": Entry(
        "pipeline.volumes.ome_zarr:ZarrVolume",
        creatable=True,
        options=("mip", "resolution", "offset", "axes", "channel", "scale"),
        markers=("zarr.json", ".zarray", ".zgroup"),
        has_scheme=True,
    ),
    "precomputed": Entry(
        "pipeline.volumes.precomputed:PrecomputedVolume",
        creatable=True,
        options=("mip", "resolution", "offset", "channel", "scale"),
        markers=("info",),
        has_scheme=True,
    ),
    "memory": Entry("pipeline.volumes.memory:MemoryVolume", creatable=True, has_scheme=True, lasting=False),
    "hdf5": Entry(
        "pipeline.volumes.hdf5:Hdf5Volume",
        options=("resolution", "offset", "axes", "channel", "scale"),
        suffixes=(".h5", ".hdf5", ".hdf", ".mat"),
        has_datasets=True,
    ),
    "npy": Entry(
        "pipeline.volumes.npy:NpyVolume",
        options=("resolution", "offset", "axes", "channel", "scale"),
        suffixes=(".npy",),
    ),
    "tiff": Entry(
        "pipeline.volumes.tiff:TiffVolume",
        options=("resolution", "offset", "files", "order", "channel", "scale"),
        suffixes=(".tif", ".tiff"),
        in_folders=True,
    ),
    "pictures": Entry(
        "pipeline.volumes.pictures:PictureVolume",
        options=("resolution", "offset", "files", "order", "channel", "scale"),
        suffixes=(".png", ".jpg", ".jpeg"),
        in_folders=True,
    ),
    "tiles": Entry(
        "pipeline.volumes.tiles:TileVolume",
        options=("resolution", "offset", "missing", "channel", "scale"),
        suffixes=(".json", ".vsvi"),
    ),
}
"""Storage formats by name, in the order in which a folder is asked whether it is one of them."""

DEFAULT_FORMAT = "zarr"
"""What a new volume is if neither its URL nor its maker names a format."""


def entry_of(name: str) -> Entry:
    """The row of a format; ``VolumeError`` if there is none of this name."""
    return find(VOLUMES, name, "there is no volume format", error=VolumeError)


def all_options() -> list[str]:
    """Every option that some format understands."""
    return list(dict.fromkeys(option for entry in VOLUMES.values() for option in entry.options))


def understood_by(option: str) -> list[str]:
    """The formats that understand an option."""
    return [name for name, entry in VOLUMES.items() if option in entry.options]


def schemes() -> list[str]:
    """The formats that a URL may name in front of ``://``."""
    return [name for name, entry in VOLUMES.items() if entry.has_scheme]


def creatable() -> list[str]:
    """The formats in which volumes can be made that outlive the process."""
    return [name for name, entry in VOLUMES.items() if entry.creatable and entry.lasting]


def kinds_of_volumes() -> str:
    """What may be a volume, for messages: folders by their markers, folders of files, files by their endings."""
    markers = [marker for entry in VOLUMES.values() for marker in entry.markers]
    stacks = [f"a folder of {' or '.join(entry.suffixes)} files" for entry in VOLUMES.values() if entry.in_folders]
    return f"{', '.join([f'a folder with {either(markers)}', *stacks])}, or a file {either(list(_endings()))}"


def either(words: list[str]) -> str:
    """The words with commas, and "or" before the last."""
    return " or ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def _endings() -> Iterator[str]:
    for entry in VOLUMES.values():
        yield from (f"{suffix}:dataset" if entry.has_datasets else suffix for suffix in entry.suffixes)
