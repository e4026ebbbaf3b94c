"""``.npy`` files, read-only and memory-mapped: (z, y, x) or (c, z, y, x) unless ``#axes=`` says otherwise."""

from __future__ import annotations

import numpy as np

from pipeline.errors import VolumeError
from pipeline.geometry import BoundingBox
from pipeline.storage import as_storage_error, local_path
from pipeline.volumes.axes import Axes, given_axes
from pipeline.volumes.base import Mode, VolumeSpec
from pipeline.volumes.checked import CheckedVolume
from pipeline.volumes.location import Location
from pipeline.volumes.placement import Stated, placement, refuse_writing

MAGIC = b"\x93NUMPY"
"""The first bytes of every .npy file."""


class NpyVolume(CheckedVolume):
    """The array of one file; its URL gives the voxel size: ``raw.npy#resolution=8,8,8``."""

    def __init__(self, url: str, spec: VolumeSpec, array: np.ndarray, axes: Axes) -> None:
        super().__init__(url, spec)
        self._array = array
        self._axes = axes

    @classmethod
    def open(cls, location: Location, mode: Mode) -> NpyVolume:
        """Map the file; nothing is read yet."""
        refuse_writing(location, mode)
        array = _map_file(location)
        axes = Axes(location.url, given_axes(location), array.shape)
        resolution, bounds = placement(location, Stated(), axes.extent)
        spec = VolumeSpec(bounds, resolution, array.dtype.newbyteorder("="), axes.channels)
        return cls(location.url, spec, array, axes)

    def _load(self, box: BoundingBox) -> np.ndarray:
        return self._axes.to_zyx(np.array(self._array[self._axes.index(box, self.spec.bounds.start)]))


def _map_file(location: Location) -> np.ndarray:
    path = local_path(location.base)
    if path is None or not path.is_file():
        state = "is a folder" if path and path.is_dir() else "does not exist on this machine"
        raise VolumeError(f"{location.url} {state}; .npy is read from local files: correct the path")
    try:
        with path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise VolumeError(f"{path} is no .npy file: correct the path, or write it with numpy.save")
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        remedy = "write its numbers with numpy.save" if "Python objects" in str(error) else "is it complete?"
        raise VolumeError(f"{path} cannot be opened as .npy ({error}); {remedy}") from error
    except OSError as error:
        raise as_storage_error(error, "read", str(path)) from error
    return array
