"""HDF5 datasets, read-only: ``file.h5:dataset``.

Attributes of the dataset, or else of the file, as in ``attributes.py``; labels of dimensions name the axes, too.
"""

from __future__ import annotations

import errno
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import h5py
import numpy as np

from pipeline.config.base import STORAGE_CHUNK
from pipeline.errors import VolumeError
from pipeline.geometry import BoundingBox, Vec
from pipeline.storage import local_path
from pipeline.volumes.attributes import axis_names, names_in, stated_by
from pipeline.volumes.axes import Axes, given_axes
from pipeline.volumes.base import Mode, VolumeSpec
from pipeline.volumes.checked import CheckedVolume
from pipeline.volumes.location import Location
from pipeline.volumes.placement import placement, refuse_writing

LABELS = "DIMENSION_LABELS"
"""The attribute with the labels of dimension scales."""


class Hdf5Volume(CheckedVolume):
    """One dataset of an HDF5 file."""

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
        axes = Axes(location.url, _axis_names(location, dataset), dataset.shape)
        resolution, bounds = placement(location, stated_by(location.url, attributes, axes), axes.extent)
        chunk = Vec(*axes.spatial(dataset.chunks)) if dataset.chunks else STORAGE_CHUNK  # in one piece
        spec = VolumeSpec(bounds, resolution, dataset.dtype.newbyteorder("="), axes.channels, chunk)
        return cls(location.url, spec, dataset, axes)

    def _load(self, box: BoundingBox) -> np.ndarray:
        try:
            return self._axes.to_zyx(self._dataset[self._axes.index(box, self.spec.bounds.start)])
        except OSError as error:  # HDF5 has one error for a failing disk, which gives a number, and for damaged bytes
            if error.errno is None and "errno" not in str(error):
                raise ValueError(str(error)) from error
            raise


def _open_file(location: Location) -> h5py.File:
    path = local_path(location.base)
    if path is None:
        raise VolumeError(f"{location.url} is not on this machine; HDF5 is read from local files: copy it first")
    if not path.is_file():
        raise VolumeError(f"{location.url}: {path} does not exist; correct the path")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise VolumeError(f"{path} cannot be opened as HDF5 ({error}); {_remedy(error)}") from error


def _remedy(error: OSError) -> str:
    text = str(error)
    if "lock file" in text:
        return (
            "another program has it open for writing: close that, or set HDF5_USE_FILE_LOCKING=FALSE if the file "
            "system has no locks"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return "give this user the right to read it"
    return "it is no HDF5 file: correct the path" if "signature not found" in text else "is it complete?"


def _find_dataset(location: Location, file: h5py.File) -> h5py.Dataset:
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if _is_volume(item) else None)
    name = location.dataset or (names[0] if len(names) == 1 else None)
    if name is None or not isinstance(file.get(name), h5py.Dataset):
        raise VolumeError(
            f"{location.url} names no dataset; {location.base} holds {', '.join(names) or 'none'}: "
            f"write {location.base}:{names[0] if names else 'dataset'}"
        )
    _refuse_filters(location, file[name])
    return file[name]


def _refuse_filters(location: Location, dataset: h5py.Dataset) -> None:
    """Refuse a compression that this HDF5 does not have; ``hdf5plugin`` brings many, and is loaded if it is there."""
    plan = dataset.id.get_create_plist()
    for number in range(plan.get_nfilters()):
        code, *_, name = plan.get_filter(number)
        if not h5py.h5z.filter_avail(code) and find_spec("hdf5plugin"):
            import_module("hdf5plugin")
        if not h5py.h5z.filter_avail(code):
            raise VolumeError(
                f"{location.url} is compressed with HDF5 filter {code} ({name.decode(errors='replace') or 'unnamed'}), "
                "which is not installed: run pip install hdf5plugin, or write the dataset again with gzip"
            )


def _is_volume(item: Any) -> bool:
    return isinstance(item, h5py.Dataset) and item.ndim >= 3


def _axis_names(location: Location, dataset: h5py.Dataset) -> list[str] | None:
    """The letters of the axes; an attribute of the file whose length does not fit belongs to another dataset."""
    if (given := given_axes(location)) is not None:
        return given
    if (names := axis_names(location.url, dataset.attrs)) is not None:
        return names
    if (labels := _dimension_labels(location, dataset)) is not None:
        return labels
    names = axis_names(location.url, dataset.file.attrs)
    return names if names is not None and len(names) == dataset.ndim else None


def _dimension_labels(location: Location, dataset: h5py.Dataset) -> list[str] | None:
    """The labels of the dimension scales; HDF5's own call for them crashes on texts of fixed length."""
    labels = np.atleast_1d(dataset.attrs.get(LABELS, [])).tolist()
    return names_in(location.url, LABELS, labels) if any(labels) else None
