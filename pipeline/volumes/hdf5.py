"""HDF5 datasets, read-only: ``file.h5:dataset``.

Attributes of the dataset, or else of the file: ``resolution_nm`` (z, y, x), ``offset`` (voxels), ``axes`` ("czyx").
"""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np

from pipeline.config.base import STORAGE_CHUNK
from pipeline.errors import VolumeError
from pipeline.geometry import BoundingBox, Vec
from pipeline.storage import local_path
from pipeline.volumes.axes import Axes
from pipeline.volumes.base import Mode, VolumeSpec
from pipeline.volumes.checked import CheckedVolume
from pipeline.volumes.location import Location
from pipeline.volumes.placement import from_attributes, placement, refuse_writing


class Hdf5Volume(CheckedVolume):
    """One dataset of an HDF5 file."""

    creatable = False

    def __init__(self, url: str, spec: VolumeSpec, dataset: h5py.Dataset, axes: Axes) -> None:
        super().__init__(url, spec)
        self._dataset = dataset
        self._axes = axes

    @classmethod
    def open(cls, location: Location, mode: Mode) -> Hdf5Volume:
        """Open a dataset; its name may be left out if the file has only one with three or more axes."""
        refuse_writing(location, mode)
        dataset = _find_dataset(location, _open_file(location))
        attributes = {**dataset.file.attrs, **dataset.attrs}
        axes = Axes(location.url, _axis_names(location, attributes, dataset.ndim), dataset.shape)
        resolution, bounds = placement(location, from_attributes(location.url, attributes), axes.extent)
        chunk = Vec(*axes.spatial(dataset.chunks)) if dataset.chunks else STORAGE_CHUNK  # in one piece
        spec = VolumeSpec(bounds, resolution, dataset.dtype.newbyteorder("="), axes.channels, chunk)
        return cls(location.url, spec, dataset, axes)

    @classmethod
    def exists(cls, location: Location) -> bool:
        """True if the file is there."""
        path = local_path(location.base)
        return path is not None and path.is_file()

    @classmethod
    def create(cls, location: Location, spec: VolumeSpec) -> Hdf5Volume:
        """HDF5 volumes are only read."""
        raise VolumeError(f"{location.url} cannot be created; HDF5 is only read: create a zarr volume")

    def _load(self, box: BoundingBox) -> np.ndarray:
        return self._axes.to_zyx(self._dataset[self._axes.index(box, self.spec.bounds.start)])


def _open_file(location: Location) -> h5py.File:
    path = local_path(location.base)
    if path is None:
        raise VolumeError(f"{location.url} is not on this machine; HDF5 is read from local files: copy it first")
    if not path.is_file():
        raise VolumeError(f"{location.url}: {path} does not exist; correct the path")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise VolumeError(f"{path} cannot be opened as HDF5 ({error}); is it complete?") from error


def _find_dataset(location: Location, file: h5py.File) -> h5py.Dataset:
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if _is_volume(item) else None)
    name = location.dataset or (names[0] if len(names) == 1 else None)
    if name is None or not isinstance(file.get(name), h5py.Dataset):
        raise VolumeError(
            f"{location.url} names no dataset; {location.base} holds {', '.join(names) or 'none'}: "
            f"write {location.base}:{names[0] if names else 'dataset'}, or --dataset"
        )
    return file[name]


def _is_volume(item: Any) -> bool:
    return isinstance(item, h5py.Dataset) and item.ndim >= 3


def _axis_names(location: Location, attributes: dict[str, Any], ndim: int) -> list[str] | None:
    """The letters of the axes; an attribute that does not fit the dataset belongs to another one of the file."""
    if "axes" in location.options:
        return list(location.options["axes"])
    words = str(attributes.get("axes", "")).split()
    return list(words[0]) if words and len(words[0]) == ndim else None
