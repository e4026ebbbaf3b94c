"""One object into and out of a bucket, with its checksum. ``store`` is one of obstore's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.storage.base import md5
from pipeline.storage.errors import DamagedError

DIGEST, WRITER = "petaseg-md5", "petaseg-writer"
"""Metadata of an object: the MD5 of its bytes; for ``put_if`` also a name of the attempt that wrote it."""
RECOVER = "the network or the store damages data: run again, then see `petaseg verify`"

Span = tuple[int, int] | dict[str, int] | None
"""A range as obstore names it; ``None`` for a whole object."""


@dataclass(frozen=True)
class Fetched:
    """An object, or a range of it, read from a bucket."""

    data: bytes
    version: str
    """The version by which S3 and GCS recognise this state of the object in a conditional write, as JSON."""
    writer: str | None


def byte_range(start: int | None, stop: int | None) -> Span:
    """The range from ``start`` up to, not including, ``stop``; a negative start counts from the end and reaches the
    end.
    """
    if start is not None and start < 0:
        if stop is not None:
            raise ValueError(f"a range from {start} to {stop}; one that counts from the end must reach the end")
        return {"suffix": -start}
    if stop is None:
        return {"offset": start} if start else None
    return start or 0, stop


def fetch(store: Any, path: str, span: Span = None) -> Fetched:
    """An object or a range of it; ``FileNotFoundError`` if there is none, ``DamagedError`` if its bytes are wrong."""
    try:
        answer = store.get(path, options={"range": span} if span else None)
    except Exception as error:
        if "status code: 416" in str(error):  # the range begins behind the end
            return Fetched(b"", "", None)
        raise
    data: bytes = answer.bytes().to_bytes()
    first, last = answer.range
    if len(data) != last - first:
        raise DamagedError(f"{len(data)} bytes came instead of {last - first}", RECOVER, transient=True)
    known = answer.attributes
    if span is None:
        if known.get(DIGEST) not in (None, md5(data)):
            raise DamagedError("its bytes do not fit the checksum stored with them", RECOVER, transient=True)
        data = unpacked(data, known)
    return Fetched(data, version_of(answer.meta), known.get(WRITER))


def read_back(store: Any, path: str, digest: str) -> None:
    """Read an object that was just stored; ``DamagedError`` if it is not what was sent."""
    try:
        found = md5(store.get(path).bytes().to_bytes())
    except FileNotFoundError:
        found = ""
    if found != digest:
        raise DamagedError("what is stored there is not what was sent", RECOVER, transient=True)


def attributes(digest: str, writer: str | None = None) -> dict[str, str]:
    """The metadata of an object of ours; caches on the way must not keep it."""
    marks = {DIGEST: digest} if writer is None else {DIGEST: digest, WRITER: writer}
    return {"Cache-Control": "no-cache", **marks}


def tag(answer: Mapping[str, Any]) -> str:
    """The ETag of an answer, without quotes."""
    return str(answer.get("e_tag") or "").strip('"')


def version_of(answer: Mapping[str, Any]) -> str:
    """The version in an answer, as text that ``put_if`` takes: ETag (S3) and generation (GCS)."""
    return json.dumps({name: answer[name] for name in ("e_tag", "version") if answer.get(name)})


def unpacked(data: bytes, known: Mapping[str, str]) -> bytes:
    """The bytes of an object that another program has stored compressed (``Content-Encoding``)."""
    encoding = known.get("Content-Encoding")
    if not encoding or encoding == "identity" or "aws-chunked" in encoding:
        return data
    from cloudfiles.compression import decompress  # the import takes one to two seconds

    return bytes(decompress(data, encoding))
