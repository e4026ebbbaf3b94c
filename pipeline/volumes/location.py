"""The parts of a string that names a volume: its location, its format, and options."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.errors import ConfigError, VolumeError
from pipeline.storage import ObjectStore, local_path

OPTIONS = ("mip", "resolution", "offset", "axes")
SCHEMES = ("file", "s3", "gs", "https", "http", "mem", "memory")
PREFIXES = ("precomputed", "zarr")
HDF5 = re.compile(r"^(?P<file>.*\.(?:h5|hdf5|hdf))(?::(?P<dataset>.*))?$", re.IGNORECASE)
TIFF = re.compile(r"\.tiff?$", re.IGNORECASE)
MARKERS = {"zarr.json": "zarr", ".zarray": "zarr", ".zgroup": "zarr", "info": "precomputed"}


@dataclass(frozen=True)
class Location:
    """A parsed volume URL."""

    url: str
    """The URL as the user wrote it."""
    base: str
    """Path or URL of the file or folder."""
    format: str | None = None
    """The format, if the URL itself names it."""
    dataset: str | None = None
    """The name inside the file, for HDF5."""
    options: Mapping[str, str] = field(default_factory=dict)
    """The options after ``#``."""

    @property
    def mip(self) -> int:
        """The level to open: 0 is the finest."""
        text = self.options.get("mip", "0")
        if not text.isdecimal():
            raise ConfigError(f"{self.url}: mip is {text!r}; it must be a whole number, 0 for the finest level")
        return int(text)

    def numbers(self, option: str) -> tuple[float, float, float] | None:
        """Three numbers z, y, x of an option; ``None`` if it was not given."""
        if option not in self.options:
            return None
        try:
            z, y, x = (float(part) for part in self.options[option].split(","))
        except ValueError:
            z = y = x = math.nan
        if not all(map(math.isfinite, (z, y, x))):
            raise ConfigError(f"{self.url}: {option} is {self.options[option]!r}; it must be three numbers z,y,x")
        return z, y, x


def parse_location(url: str) -> Location:
    """Take a volume URL apart; ``ConfigError`` for unknown options and schemes."""
    text, _, fragment = str(url).partition("#")
    options = _options(str(url), fragment)
    scheme, marker, rest = text.partition("://")
    if marker and scheme in PREFIXES:
        return Location(str(url), rest.rstrip("/"), scheme, None, options)
    if marker and scheme not in SCHEMES:
        raise ConfigError(f"{url}: unknown kind of address {scheme}://; use a path, {'://, '.join(SCHEMES)}://")
    if scheme == "memory":
        return Location(str(url), rest, "memory", None, options)
    if match := HDF5.match(text):
        return Location(str(url), match["file"], "hdf5", match["dataset"] or None, options)
    return Location(str(url), text.rstrip("/") or "/", _format_of_file(text), None, options)


def detect_format(location: Location) -> str | None:
    """The format of what lies at a location, by its metadata files; ``None`` if nothing is recognised."""
    store = ObjectStore(location.base)
    for marker, name in MARKERS.items():
        if store.exists(marker):
            return name
    path = store.local_path
    if path and path.is_dir() and any(TIFF.search(child.name) for child in path.iterdir()):
        return "tiff"
    return None


def require_format(location: Location) -> str:
    """Like ``detect_format``; ``VolumeError`` if nothing is recognised."""
    if found := detect_format(location):
        return found
    path = local_path(location.base)
    state = "exists but is no volume" if path and path.exists() else "does not exist"
    raise VolumeError(
        f"{location.url} {state}; a volume is a folder with zarr.json, .zarray, .zgroup or info, a folder of TIFF "
        "images, or a file .h5:dataset, .npy or .tif"
    )


def _options(url: str, fragment: str) -> dict[str, str]:
    options = dict(part.partition("=")[::2] for part in fragment.split("&") if part)
    for name in options:
        if name not in OPTIONS:
            raise ConfigError(f"{url}: unknown option {name!r} after #; there are {', '.join(OPTIONS)}")
    return options


def _format_of_file(text: str) -> str | None:
    if text.lower().endswith(".npy"):
        return "npy"
    return "tiff" if TIFF.search(text) else None
