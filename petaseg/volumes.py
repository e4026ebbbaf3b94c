"""Volumes in any storage format, indexed like arrays."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike, fspath

import numpy as np
from numpy.typing import DTypeLike

from petaseg.checks import checked_resolution
from pipeline.config.base import STORAGE_CHUNK
from pipeline.errors import ConfigError
from pipeline.geometry import ZERO, BoundingBox, as_vec
from pipeline.volumes import Volume, VolumeSpec, create_volume, open_volume
from pipeline.volumes.base import Mode


def open(path: str | PathLike[str], mode: Mode = "r") -> Volume:
    """Open a volume; no voxel is read before one is asked for.

    ``volume[z, y, x]`` (``volume[c, z, y, x]`` with channels) counts from the volume's first voxel, as numpy does;
    ``volume.read(BoundingBox(start, stop))`` takes global voxels, in which a volume begins at ``volume.bounds.start``.
    ``volume.shape``, ``dtype``, ``resolution_nm`` (z, y, x) and ``np.asarray(volume)`` are there too.

    Args:
        path: a path or URL: zarr, OME-Zarr, precomputed, ``file.h5:dataset``, npy, image files, tiles; ``#mip=1``,
            ``#resolution=8,8,8`` and other options may follow.
        mode: ``r`` reads; ``r+`` also writes, ``volume[z, y, x] = array``.

    Raises ``VolumeError`` if there is no volume or it cannot be used.
    """
    return open_volume(fspath(path), mode=mode)


def create(
    path: str | PathLike[str],
    shape: Sequence[int],
    dtype: DTypeLike,
    resolution: Sequence[float],
    *,
    offset: Sequence[int] = ZERO,
    chunk: Sequence[int] = STORAGE_CHUNK,
    shard: Sequence[int] | None = None,
    format: str | None = None,
    overwrite: bool = False,
) -> Volume:
    """Make an empty volume and open it for writing; ``volume[...] = array`` fills it.

    Args:
        path: a path or URL.
        shape: voxels, (z, y, x), or (c, z, y, x) with channels.
        dtype: the type of a voxel, such as ``"uint8"``.
        resolution: nanometres per voxel, z, y, x.
        offset: the first voxel in global coordinates, z, y, x.
        chunk, shard: voxels (z, y, x) of a stored chunk, and of a stored object that holds several.
        format: ``zarr``, ``precomputed`` or ``memory``; the path's own if left out, or zarr.
        overwrite: delete a volume first that petaseg has made there; else an equal one is opened as it is.

    Raises ``VolumeError`` if something different is there, ``ConfigError`` for a wrong argument.
    """
    if len(shape) not in (3, 4):
        raise ConfigError(f"shape is {tuple(shape)}; it must be (z, y, x), or (c, z, y, x) with channels: add an axis")
    spec = VolumeSpec(
        bounds=BoundingBox.from_shape(as_vec(shape[-3:], "shape"), as_vec(offset, "offset")),
        resolution_nm=checked_resolution(resolution),
        dtype=np.dtype(dtype),
        channels=int(shape[0]) if len(shape) == 4 else None,
        storage_chunk=as_vec(chunk, "chunk"),
        storage_shard=None if shard is None else as_vec(shard, "shard"),
    )
    return create_volume(fspath(path), spec, format=format, overwrite=overwrite)
