"""A file for libraries that cannot close a file which they could not write, such as HDF5 on a full disk."""

from __future__ import annotations

import io
from typing import Any


class LateErrors(io.FileIO):
    """A new file to write and read: its first failed write is kept, and this one and all later ones seem to succeed.

    Whoever has closed it calls ``raise_error``. With the error at once, HDF5 would fail to close and end the process.
    """

    error: OSError | None = None

    def write(self, data: Any, /) -> int:
        """Write all bytes of a buffer at the present place; their number."""
        view = memoryview(data).cast("B")
        done = 0
        while self.error is None and done < len(view):
            try:
                done += super().write(view[done:]) or 0
            except OSError as error:
                self.error = error
        return len(view)

    def truncate(self, size: int | None = None, /) -> int:
        """Make the file so many bytes long; that number."""
        length = self.tell() if size is None else size
        if self.error is None:
            try:
                super().truncate(length)
            except OSError as error:
                self.error = error
        return length

    def raise_error(self) -> None:
        """Raise the error of the first write that failed, if one did."""
        if self.error is not None:
            raise self.error
