"""Named arrays as the bytes of one object."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pipeline.errors import CorruptError

ZIP_DATE = (1980, 1, 1, 0, 0, 0)
END = 22
"""Bytes of the record at the end of a zip file of less than 4 GiB without a comment."""
BUFFER = 1 << 16


def pack_arrays(arrays: Mapping[str, np.ndarray], *, compress: bool = False) -> bytes:
    """Named arrays as the bytes of an npz file. Its members are in name order and dated 1980, so equal arrays give
    equal bytes.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in sorted(arrays):
            member = zipfile.ZipInfo(f"{name}.npy", ZIP_DATE)
            member.compress_type = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
            with archive.open(member, "w", force_zip64=True) as file:
                array = np.asarray(arrays[name], order="C")
                np.lib.format.write_array(file, array, version=(1, 0), allow_pickle=False)  # type: ignore[arg-type]
    return buffer.getvalue()


def unpack_arrays(data: bytes, name: str = "object") -> dict[str, np.ndarray]:
    """The named arrays in the bytes of an npz file; every member's CRC is checked (``CorruptError``)."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return {info.filename.removesuffix(".npy"): _read_member(archive, info) for info in archive.infolist()}
    except Exception as error:
        raise CorruptError(
            f"{name} is damaged ({error}): its bytes are not the arrays that were written; "
            "`petaseg verify RUN --repair` finds it, and the next `petaseg run RUN` makes it again"
        ) from error


def read_array(read: Callable[[int, int | None], bytes], member: str, name: str = "object") -> np.ndarray | None:
    """One of the arrays in an npz file, without the others; ``None`` if the file has no such array.

    read: the bytes from a place to another, ``None`` for the end; a negative place counts from the end. A few calls are
    made, whatever the size of the file. Its CRC is checked (``CorruptError``).
    """
    try:
        end = read(-END, None)
        last = int.from_bytes(end[12:16], "little") + int.from_bytes(end[16:20], "little") + END
        with zipfile.ZipFile(io.BufferedReader(_Ranges(read, last), BUFFER)) as archive:
            found = f"{member}.npy" in archive.namelist()
            return _read_member(archive, archive.getinfo(f"{member}.npy")) if found else None
    except Exception as error:
        raise CorruptError(
            f"{name} is damaged ({error}): its bytes are not the arrays that were written; "
            "`petaseg verify RUN --repair` finds it, and the next `petaseg run RUN` makes it again"
        ) from error


class _Ranges(io.RawIOBase):
    """A file that is read by ranges."""

    def __init__(self, read: Callable[[int, int | None], bytes], size: int) -> None:
        self._read, self._size, self._at = read, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        stop = min(self._at + len(buffer), self._size)
        data = self._read(self._at, stop) if stop > self._at else b""
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    """One array, unpacked straight into its memory: a ledger of a hundred million chunks is not copied twice."""
    with archive.open(info) as file:
        array: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
        file.read()  # reading to the end checks the CRC
    return array
