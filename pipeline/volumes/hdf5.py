"""HDF5 datasets, read-only: ``file.h5:dataset``, and the variables of MATLAB 7.3 files, ``file.mat:variable``.

Attributes of the dataset, or else of the groups above it and of the file, as in ``attributes.py``; labels of dimensions
name the axes, too.
"""

from __future__ import annotations

import errno
import posixpath
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pipeline.config.base import STORAGE_CHUNK
from pipeline.errors import VolumeError, counted
from pipeline.geometry import BoundingBox, Vec
from pipeline.storage import local_path
from pipeline.volumes.attribute_names import axis_names, names_above
from pipeline.volumes.attributes import stated_by
from pipeline.volumes.axes import Axes, given_axes
from pipeline.volumes.base import Mode, VolumeSpec
from pipeline.volumes.checked import CheckedVolume
from pipeline.volumes.location import Location
from pipeline.volumes.matlab import is_from_matlab, matlab_axes, refuse_matlab_objects
from pipeline.volumes.placement import placement, refuse_writing

LABELS = "DIMENSION_LABELS"
"""The attribute with the labels of dimension scales."""
SHOWN = 5
"""How many files a message lists."""


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
        axes = Axes(location.url, _axis_names(location, dataset), dataset.shape)
        stated = stated_by(location.url, dataset.attrs, axes, _attributes_above(dataset))
        resolution, bounds = placement(location, stated, axes.extent)
        chunk = Vec(*axes.spatial(dataset.chunks)) if dataset.chunks else STORAGE_CHUNK  # in one piece
        spec = VolumeSpec(bounds, resolution, dataset.dtype.newbyteorder("="), axes.channels, chunk)
        return cls(location.url, spec, dataset, axes)

    @property
    def is_stored(self) -> bool:
        """See ``Volume``; HDF5 counts nothing for voxels that are kept in other files."""
        elsewhere = self._dataset.is_virtual or bool(self._dataset.external)
        return elsewhere or self._dataset.id.get_storage_size() > 0

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
        state = "is a folder, and an HDF5 volume is a file" if path.is_dir() else "does not exist"
        raise VolumeError(f"{location.url}: {path} {state}; correct the path")
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
    if "signature not found" not in text:
        return "is it complete?"
    return "it is no HDF5 file: correct the path, or save it with save(..., '-v7.3') if it is MATLAB's"


def _find_dataset(location: Location, file: h5py.File) -> h5py.Dataset:
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if _is_volume(item) else None)
    name = location.dataset or (names[0] if len(names) == 1 else None)
    _refuse_dead_link(location, file, name or "")
    if name is None or not isinstance(file.get(name), h5py.Dataset):
        raise VolumeError(
            f"{location.url} names no dataset; {location.base} holds {', '.join(names) or 'none'}: "
            f"write {location.base}:{names[0] if names else 'dataset'}"
        )
    refuse_matlab_objects(location.url, file[name])
    _refuse_filters(location, file[name])
    _refuse_lacking_parts(location, file[name])
    return file[name]


def _refuse_dead_link(location: Location, file: h5py.File, name: str) -> None:
    """Refuse a name in the file that leads to nothing: another file that is not there, or a name that is gone."""
    link = file.get(name, getlink=True) if name else None
    if isinstance(link, h5py.SoftLink | h5py.ExternalLink) and file.get(name) is None:
        place = link.path if isinstance(link, h5py.SoftLink) else f"{link.filename}:{link.path}"
        raise VolumeError(f"{location.url} is a link to {place}, which is not there; bring it, or name another dataset")


def _refuse_lacking_parts(location: Location, dataset: h5py.Dataset) -> None:
    """Refuse a virtual dataset of files that are not there: HDF5 reads such parts as a fill value, without a word."""
    if not dataset.is_virtual:
        return
    own = Path(dataset.file.filename)
    files = sorted({source.file_name for source in dataset.virtual_sources()} - {"."})
    lacking = [name for name in files if "%" not in name and not _is_there(own.parent, name)]  # %b counts blocks
    if lacking:
        raise VolumeError(
            f"{location.url} is put together from {counted(len(files), 'file')}, of which {len(lacking)} are not there"
            f": {', '.join(lacking[:SHOWN])}; bring them beside {own}, since HDF5 would read their voxels as a fill "
            "value"
        )


def _is_there(folder: Path, name: str) -> bool:
    """True if a file of a virtual dataset is where it says, counted from here or from the folder, or in the folder."""
    return any(place.is_file() for place in (Path(name), folder / name, folder / Path(name).name))


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


def _attributes_above(dataset: h5py.Dataset) -> dict[str, Any]:
    """The attributes of the groups above a dataset by the names of the groups, the nearest first, and of the file."""
    place, found = dataset.name, {}
    while place != "/":
        place = posixpath.dirname(place)
        found[place] = dataset.file[place].attrs
    return found


def _axis_names(location: Location, dataset: h5py.Dataset) -> list[str] | None:
    """The letters of the axes, from the URL, the dataset, what is above it, or the order in which MATLAB stores."""
    if (given := given_axes(location)) is not None:
        return given
    if (names := axis_names(location.url, dataset.attrs, _dimension_labels(dataset))) is not None:
        return names
    names = names_above(location.url, _attributes_above(dataset), dataset.ndim)
    return matlab_axes(location.url, dataset.shape) if names is None and is_from_matlab(dataset) else names


def _dimension_labels(dataset: h5py.Dataset) -> dict[str, list[Any]]:
    """The labels of the dimension scales, if any; HDF5's own call for them crashes on texts of fixed length."""
    labels = np.atleast_1d(dataset.attrs.get(LABELS, [])).tolist()
    return {LABELS: labels} if any(labels) else {}
