"""``.npy`` files, read-only and memory-mapped: (z, y, x) or (c, z, y, x) unless ``#axes=`` says otherwise."""

from __future__ import annotations

import numpy as np

from pipeline.errors import VolumeError
from pipeline.geometry import ZERO, BoundingBox
from pipeline.storage import local_path
from pipeline.volumes.axes import Axes
from pipeline.volumes.base import Mode, VolumeSpec
from pipeline.volumes.checked import CheckedVolume
from pipeline.volumes.location import Location
from pipeline.volumes.placement import placement, refuse_writing


class NpyVolume(CheckedVolume):
    """The array of one file; its URL gives the voxel size: ``raw.npy#resolution=8,8,8``."""

    creatable = False

    def __init__(self, url: str, spec: VolumeSpec, array: np.ndarray, axes: Axes) -> None:
        super().__init__(url, spec)
        self._array = array
        self._axes = axes

    @classmethod
    def open(cls, location: Location, mode: Mode) -> NpyVolume:
        """Map the file; nothing is read yet."""
        refuse_writing(location, mode)
        array = _map_file(location)
        names = list(location.options["axes"]) if "axes" in location.options else None
        axes = Axes(location.url, names, array.shape)
        resolution, bounds = placement(location, (None, ZERO), axes.extent)
        spec = VolumeSpec(bounds, resolution, array.dtype.newbyteorder("="), axes.channels)
        return cls(location.url, spec, array, axes)

    @classmethod
    def exists(cls, location: Location) -> bool:
        """True if the file is there."""
        path = local_path(location.base)
        return path is not None and path.is_file()

    @classmethod
    def create(cls, location: Location, spec: VolumeSpec) -> NpyVolume:
        """Files of this kind are only read."""
        raise VolumeError(f"{location.url} cannot be created; .npy is only read: create a zarr volume")

    def _load(self, box: BoundingBox) -> np.ndarray:
        return self._axes.to_zyx(np.array(self._array[self._axes.index(box, self.spec.bounds.start)]))


def _map_file(location: Location) -> np.ndarray:
    path = local_path(location.base)
    if path is None or not path.is_file():
        raise VolumeError(f"{location.url} does not exist on this machine; .npy is read from local files")
    try:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise VolumeError(f"{path} cannot be opened as .npy ({error}); is it complete?") from error
    return array
