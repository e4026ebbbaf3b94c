"""The part of reading and writing that is the same in every format: bounds, shapes, types and errors."""

from __future__ import annotations

import gzip
import lzma
import struct
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from pipeline.errors import BoundsError, CorruptError, PetasegError, VolumeError
from pipeline.geometry import BoundingBox
from pipeline.storage import as_storage_error
from pipeline.volumes.base import Volume, VolumeSpec

DECODE_ERRORS = (
    ValueError,
    RuntimeError,
    EOFError,
    IndexError,
    AssertionError,
    struct.error,
    zlib.error,
    lzma.LZMAError,
    gzip.BadGzipFile,
)
"""The errors that codecs raise on bytes that they cannot decode."""


class CheckedVolume(Volume, ABC):
    """A volume whose subclass loads and stores voxels (``_load``, ``_store``); all checks are made here."""

    def __init__(self, url: str, spec: VolumeSpec, *, writable: bool = False) -> None:
        self.url = url
        self.spec = spec
        self.writable = writable

    @abstractmethod
    def _load(self, box: BoundingBox) -> np.ndarray:
        """The voxels of a non-empty box inside the bounds, (z, y, x) or (c, z, y, x)."""

    def _store(self, box: BoundingBox, data: np.ndarray) -> None:
        """Store the voxels of a non-empty box inside the bounds; shape and type are right."""
        raise NotImplementedError(f"{type(self).__name__} is read-only")

    def read(self, box: BoundingBox) -> np.ndarray:
        """The voxels of a box, (z, y, x) or (c, z, y, x), a C-contiguous copy that the caller may change; unwritten
        voxels are 0.

        Raises ``BoundsError`` outside the volume, ``CorruptError`` for stored bytes that cannot be decoded.
        """
        self._check_box(box)
        if box.empty:
            return np.zeros(self.spec.array_shape(box), self.spec.dtype)
        with self._named_errors("read", box):
            data = self._load(box)
        data = np.require(data, self.spec.dtype, ["C", "W"])
        return data

    def write(self, box: BoundingBox, data: np.ndarray) -> None:
        """Store the voxels of a box, (z, y, x) or (c, z, y, x).

        Raises ``BoundsError`` outside the volume, ``VolumeError`` for a wrong shape or type or a volume that is open
        for reading only, ``StorageError`` if the disk or the network fails.
        """
        if not self.writable:
            raise VolumeError(f"{self.url} is open for reading only; open it with mode='r+' to write")
        self._check_box(box)
        self._check_data(box, data)
        if not box.empty:
            with self._named_errors("write", box):
                self._store(box, data)

    def _check_box(self, box: BoundingBox) -> None:
        if not self.spec.bounds.contains(box):
            raise BoundsError(f"box {box} reaches outside {self.url}, which is {self.spec.bounds}; clip the box to it")

    def _check_data(self, box: BoundingBox, data: np.ndarray) -> None:
        if data.shape != self.spec.array_shape(box):
            raise VolumeError(
                f"data of shape {data.shape} for box {box} of {self.url}; it must be {self.spec.array_shape(box)}, "
                + ("(z, y, x)" if self.spec.channels is None else "(c, z, y, x)")
            )
        if data.dtype != self.spec.dtype:
            raise VolumeError(
                f"data of type {data.dtype} for {self.url}, which holds {self.spec.dtype}; convert it first"
            )

    @contextmanager
    def _named_errors(self, verb: str, box: BoundingBox) -> Iterator[None]:
        try:
            yield
        except (PetasegError, MemoryError):
            raise
        except DECODE_ERRORS as error:
            raise self._damaged(box, error) from error
        except ImportError as error:
            raise VolumeError(f"{self.url} needs a package that is not installed here: {error}") from error
        except Exception as error:
            if verb == "read" and not isinstance(error, OSError):
                raise self._damaged(box, error) from error
            raise as_storage_error(error, verb, f"box {box} of {self.url}") from error

    def _damaged(self, box: BoundingBox, error: Exception) -> CorruptError:
        return CorruptError(
            f"{self.url} holds damaged data in box {box}: {type(error).__name__}: {error}; "
            "compute or copy that part again"
        )
