"""The parts of a string that names a volume: its location, its format, and options."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from pipeline.config.base import finite_number
from pipeline.errors import ConfigError, VolumeError
from pipeline.formats import MARK
from pipeline.storage import ObjectStore, local_path
from pipeline.volumes.formats import DEFAULT_FORMAT, VOLUMES, Entry, all_options, entry_of, kinds_of_volumes, schemes

SCHEMES = ("file", "s3", "gs", "https", "http", "mem")
"""Kinds of addresses under which volumes of several formats may lie."""

MIP = re.compile(r"[0-9]{1,3}", re.ASCII)
"""The number of a level; no image has a thousand."""
OPTIONS = re.compile(r"^(?:[^/=&#]+=[^/=&#]*(?:&|$))*$")
"""What may follow the last # of a URL: options, or nothing."""
RESULTS = ("labels.zarr", "mask.zarr", "objects.zarr")
"""The results in a run directory, which are named before its other volumes."""


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
    def entry(self) -> Entry:
        """The row of the format, or of the one that is made by default if the URL does not tell."""
        return entry_of(self.format or DEFAULT_FORMAT)

    @property
    def mip(self) -> int:
        """The level to open: 0 is the finest."""
        text = self.options.get("mip", "0")
        if not MIP.fullmatch(text):
            raise ConfigError(f"{self.url}: mip is {text[:80]!r}; it must be a whole number, 0 for the finest level")
        return int(text)

    def numbers(self, option: str) -> tuple[float, float, float] | None:
        """Three numbers z, y, x of an option; ``None`` if it was not given."""
        if option not in self.options:
            return None
        try:
            z, y, x = (finite_number(part.strip()) for part in self.options[option].split(","))
        except ValueError:
            z = y = x = math.nan
        if not all(map(math.isfinite, (z, y, x))):
            raise ConfigError(f"{self.url}: {option} is {self.options[option]!r}; it must be three numbers z,y,x")
        return z, y, x


def parse_location(url: str) -> Location:
    """Take a volume URL apart; ``ConfigError`` for unknown options and schemes."""
    text, fragment = split_options(str(url))
    options = _options(str(url), fragment)
    scheme, marker, rest = text.partition("://")
    if marker and scheme in schemes():
        return Location(str(url), rest.rstrip("/"), scheme, None, options)
    if marker and scheme not in SCHEMES:
        known = "://, ".join((*SCHEMES, *schemes()))
        raise ConfigError(f"{url}: unknown kind of address {scheme}://; use a path, {known}://")
    for name, entry in VOLUMES.items():
        if found := entry.parse(text):
            return Location(str(url), found[0], name, found[1], options)
    return Location(str(url), text.rstrip("/") or "/", None, None, options)


def split_options(url: str) -> tuple[str, str]:
    """The address and the options of a URL; a ``#`` in a path stays in it.

    Options are what follows the last ``#``, if that is nothing but ``name=value``, joined by ``&``, without a slash.
    A ``#`` at the very end is left out, and ends a path that looks as if it had options: ``scan#a=1#``.
    """
    text, marker, fragment = url.rpartition("#")
    return (text, fragment) if marker and OPTIONS.match(fragment) else (url, "")


def detect_format(location: Location) -> str | None:
    """The format of what lies at a location, by its markers or files; ``None`` if nothing is recognised."""
    store = ObjectStore(location.base)
    for name, entry in VOLUMES.items():
        if any(map(store.exists, entry.markers)):
            return name
    stacks = _stacks(location, store.local_path)
    if len(stacks) > 1:
        found = " and ".join(f"{name} ({', '.join(VOLUMES[name].suffixes)})" for name in stacks)
        raise VolumeError(
            f"{location.url} holds image files of several formats, {found}; a stack is of one: name it by adding "
            f"#files=*{VOLUMES[stacks[0]].suffixes[0]}, or move the others away"
        )
    return next(iter(stacks), None)


def _stacks(location: Location, folder: Path | None) -> list[str]:
    """The formats of which a folder holds image files, of those that the URL names with ``files=``."""
    if folder is None or not folder.is_dir():
        return []
    pattern = location.options.get("files", "*")
    names = [child.name for child in folder.iterdir() if child.name[0] != "."]
    entries = {name: entry for name, entry in VOLUMES.items() if entry.in_folders}
    chosen = [name for name in names if fnmatchcase(name, pattern)]
    found = [name for name, entry in entries.items() if any(map(entry.holds, chosen))]
    return found or [name for name, entry in entries.items() if any(map(entry.holds, names))]


def require_format(location: Location) -> str:
    """Like ``detect_format``; ``VolumeError`` if nothing is recognised."""
    if found := detect_format(location):
        return found
    path = local_path(location.base)
    if path and (path / MARK.name).is_file():
        names = sorted((child.name not in RESULTS, child.name) for child in path.glob("*.zarr"))
        there = [name for _, name in names] or [RESULTS[0]]
        raise VolumeError(
            f"{location.url} is a run directory, and no volume; name a volume in it ({', '.join(there)}), like "
            f"{location.url.rstrip('/')}/{there[0]}"
        )
    state = "exists but is no volume" if path and path.exists() else "does not exist"
    hint = " (options after # are name=value, such as mip=1)" if "#" in location.base else ""
    raise VolumeError(f"{location.url} {state}; a volume is {kinds_of_volumes()}{hint}")


def _options(url: str, fragment: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for name, _, value in (part.partition("=") for part in fragment.split("&") if part):
        if name not in all_options():
            raise ConfigError(
                f"{url}: unknown option {name!r} after #; there are {', '.join(all_options())} (if the # is part of "
                "the path, put another # at the end)"
            )
        if name in options:
            raise ConfigError(f"{url}: {name} is given twice, as {options[name]} and {value}; leave one out")
        options[name] = value
    return options
