"""A line of text within a PNG picture, by which a program knows what the picture shows."""

from __future__ import annotations

from zlib import crc32

from pipeline.errors import CorruptError

END = b"\0\0\0\0IEND\xae\x42\x60\x82"
"""The last chunk of every PNG file."""


def with_text(png: bytes, text: str) -> bytes:
    """The same picture with a comment (plain characters); ``CorruptError`` if the bytes are no whole PNG file."""
    if not png.endswith(END):
        raise CorruptError(f"{len(png)} bytes do not end like a PNG file; draw the picture again")
    return png.removesuffix(END) + _chunk(text) + END


def has_text(png: bytes | None, text: str) -> bool:
    """True if these bytes are a whole picture with this comment."""
    return png is not None and png.endswith(_chunk(text) + END)


def _chunk(text: str) -> bytes:
    """The comment as a chunk: its length, its name, its contents and their checksum."""
    body = b"tEXtComment\0" + text.encode("ascii")
    return (len(body) - 4).to_bytes(4, "big") + body + crc32(body).to_bytes(4, "big")
