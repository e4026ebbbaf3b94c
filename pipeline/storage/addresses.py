"""Functions that treat paths and URLs as text, both in the same way. Nothing is opened here."""

from __future__ import annotations

import os.path
import posixpath
import re
from pathlib import Path
from urllib.parse import unquote

from pipeline.errors import ConfigError

SCHEMES = ("file", "s3", "gs", "https", "http", "mem", "memory")
"""Kinds of addresses that are no paths with a format in front."""
USER = re.compile(r"://[^/]*@")
BUCKET = re.compile(r"^(?P<bucket>(?:s3://https?://[^/]+/|\w+://)[^/]+)(?P<path>/.*)?$")
"""The parts of a URL; the bucket, or the server of a web address, has no parent folder."""


def refuse_credentials(url: str) -> None:
    """Raise ``ConfigError`` if a URL names a user, since URLs are written to run files, messages and logs."""
    if found := USER.search(url):
        shown = f"{url[: found.start()]}://...@{url[found.end() :].partition('/')[0]}"
        raise ConfigError(f"{shown} holds credentials; they belong in the environment, never in a URL")


def local_path(url: str) -> Path | None:
    """The path that a URL names on this machine; ``None`` for any other scheme than ``file``.

    In a ``file://`` URL, ``%20`` is a blank, as in every URL; a plain path is taken as it is.
    """
    scheme, marker, rest = url.partition("://")
    if not marker:
        return _expanded(url)
    return Path(unquote(rest.removeprefix("localhost"))) if scheme == "file" else None


def _expanded(path: str) -> Path:
    """A path with the home folder for ``~`` and ``~user``; of a user that there is not, the text, as in a shell."""
    return Path(os.path.expanduser(path))  # Path.expanduser raises RuntimeError


def parent_of(url: str) -> str | None:
    """The folder that holds a file or folder; ``None`` above a bucket or a root."""
    path = local_path(url)
    if path is not None:
        return str(path.parent) if path.parent != path else None
    found = BUCKET.match(url.rstrip("/"))
    return f"{found['bucket']}{posixpath.dirname(found['path'])}".rstrip("/") if found and found["path"] else None


def absolute(url: str | Path, folder: str) -> str:
    """A relative path counted from a folder, which may be a URL; what is absolute stays as it is.

    A path with the name of a format in front, ``precomputed://layer``, is a path, too.
    """
    text = str(url)
    scheme, marker, rest = text.partition("://")
    if marker and (scheme in SCHEMES or "://" in rest):
        return text
    if marker:  # a format in front of a path: zarr://image.zarr
        return f"{scheme}://{absolute(rest, folder)}"
    base, path = local_path(folder), _expanded(text)
    if base is not None or path.is_absolute():
        return str(((base or Path()) / path).resolve())
    found = BUCKET.match(folder)
    return folder if found is None else found["bucket"] + posixpath.normpath(f"{found['path'] or ''}/{path}")
