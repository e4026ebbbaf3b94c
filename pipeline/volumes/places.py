"""Where volumes and folders really are: whether one place is, holds, or lies in another.

Paths are compared as the files that they lead to, through links, relative parts and all forms of an address; URLs are
compared as texts without relative parts.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from pathlib import Path

from pipeline.storage import local_path
from pipeline.volumes.location import parse_location


def place_of(url: str) -> str:
    """The file or folder of a volume, without format, dataset and options; ``memory://`` names stay as they are."""
    location = parse_location(url)
    if not location.entry.lasting:
        return f"{location.format}://{location.base}"
    return real(location.base)


def real(place: str) -> str:
    """A path without links and relative parts, or a URL without relative parts."""
    path = local_path(place)
    if path is not None:
        return str(path.resolve())
    scheme, _, rest = place.partition("://")
    server, marker, inner = rest.partition("://")  # s3://https://server/bucket/...
    rest = f"{server}://{posixpath.normpath(inner)}" if marker else posixpath.normpath(rest)
    return f"{scheme}://{rest}"


def overlap(first: str, second: str) -> str:
    """What the place ``first`` has to do with the place ``second``, in words; empty if they are apart."""
    if _lies_in(first, second):
        return "is" if _lies_in(second, first) else "lies in"
    return "holds" if _lies_in(second, first) else ""


def links_below(place: str) -> Iterator[str]:
    """The places to which links in a local folder lead, at any depth; links are not followed further."""
    path = local_path(place)
    for entry in path.rglob("*") if path is not None and path.is_dir() else ():
        if entry.is_symlink():
            yield str(entry.resolve())


def _lies_in(inner: str, outer: str) -> bool:
    """True if ``inner`` is ``outer`` or lies below it."""
    paths = local_path(inner), local_path(outer)
    if paths[0] is None or paths[1] is None:
        return paths == (None, None) and f"{inner}/".startswith(f"{outer.rstrip('/')}/")
    return any(_same(part, paths[1]) for part in (paths[0], *paths[0].parents))


def _same(first: Path, second: Path) -> bool:
    """True for one file under two names too, as a folder that is mounted twice has them."""
    if first == second:
        return True
    try:
        return first.samefile(second)
    except OSError:  # one of them does not exist
        return False
