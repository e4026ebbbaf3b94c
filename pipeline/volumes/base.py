"""The protocol of a volume: an open dataset at one mip, read and written by boxes in global voxel coordinates."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import DTypeLike

from pipeline.config.base import STORAGE_CHUNK
from pipeline.geometry import BoundingBox, Triple, Vec, as_vec, product
from pipeline.volumes.indexing import described, fitted, select

if TYPE_CHECKING:
    from pipeline.volumes.location import Location

Mode = Literal["r", "r+"]
"""``r`` reads an existing volume, ``r+`` reads and writes one."""


@dataclass(frozen=True)
class VolumeSpec:
    """Everything needed to create an equal, empty volume."""

    bounds: BoundingBox
    """Extent in voxels of this mip; its start is the volume's offset."""
    resolution_nm: tuple[float, float, float]
    """Nanometres per voxel, z, y, x."""
    dtype: np.dtype
    channels: int | None = None
    """Number of channels, stored first: arrays are (c, z, y, x); ``None`` for plain (z, y, x)."""
    storage_chunk: Vec = STORAGE_CHUNK
    """Voxels (z, y, x) of a stored chunk."""
    storage_shard: Vec | None = None
    """Voxels (z, y, x) of a stored object that holds several chunks; writers must cover whole objects."""

    def __post_init__(self) -> None:
        dtype = np.dtype(self.dtype)
        if dtype.kind in "iu":  # C has two types of eight bytes, of which zarr knows one
            object.__setattr__(self, "dtype", np.dtype(dtype.str))
        object.__setattr__(self, "storage_chunk", as_vec(self.storage_chunk, "storage_chunk"))
        if self.storage_shard is not None:
            object.__setattr__(self, "storage_shard", as_vec(self.storage_shard, "storage_shard"))

    @property
    def write_unit(self) -> Vec:
        """The smallest box that one writer may own: the shard if there is one, else the storage chunk."""
        return self.storage_shard or self.storage_chunk

    def bytes_of(self, shape: Vec) -> int:
        """Uncompressed bytes of a box of this shape, all channels together."""
        return product(shape) * self.dtype.itemsize * (self.channels or 1)

    def array_shape(self, box: BoundingBox) -> tuple[int, ...]:
        """The shape of the array that holds a box: (z, y, x), or (c, z, y, x) with channels."""
        return box.shape if self.channels is None else (self.channels, *box.shape)


@runtime_checkable
class Volume(Protocol):
    """An open dataset at one mip; threads may share it. Only one writer at a time may own a ``write_unit``.

    Two ways lead to its voxels. ``read`` and ``write`` take boxes in global voxel coordinates, in which the volume
    begins at ``bounds.start``. ``volume[z, y, x]``, or ``volume[c, z, y, x]``, is an array of ``shape`` and counts from
    the volume's own first voxel, as numpy does: ``volume[...]`` is ``volume.read(volume.bounds)``. Either reads only
    the voxels that are asked for, of all channels; steps and channels are taken from what was read.
    """

    url: str
    spec: VolumeSpec

    @property
    def shape(self) -> tuple[int, ...]:
        """(z, y, x), or (c, z, y, x) with channels."""
        return tuple(self.spec.array_shape(self.bounds))

    @property
    def ndim(self) -> int:
        """The number of axes: 3, or 4 with channels."""
        return len(self.shape)

    @property
    def dtype(self) -> np.dtype:
        """The type of a voxel."""
        return self.spec.dtype

    @property
    def bounds(self) -> BoundingBox:
        """The extent in global voxel coordinates."""
        return self.spec.bounds

    @property
    def resolution_nm(self) -> tuple[float, float, float]:
        """Nanometres per voxel, z, y, x."""
        return self.spec.resolution_nm

    @property
    def is_stored(self) -> bool:
        """False if not one chunk is stored, so that all voxels are the fill value; True where nobody can tell."""
        return True

    def __getitem__(self, key: Any) -> Any:
        """The voxels that the index selects of an array of ``shape``; ``IndexError`` if there are none such."""
        selection = select(key, self.shape)
        return self.read(selection.box.translate(self.bounds.start))[selection.parts]

    def __setitem__(self, key: Any, value: Any) -> None:
        """Store a number or an array in the box that the index selects; errors as ``write``, and ``IndexError``."""
        selection = select(key, self.shape)
        box = selection.box.translate(self.bounds.start)
        self.write(box, fitted(value, selection, self.dtype, tuple(self.spec.array_shape(box)), self.url))

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        """All voxels, in memory, for ``np.asarray(volume)``."""
        if copy is False:
            raise ValueError(f"{self.url} is read into a new array; copy=False is not possible: leave it out")
        return self.read(self.bounds).astype(self.dtype if dtype is None else dtype, copy=False)

    def __repr__(self) -> str:
        return described(f"volume {self.url}", self.shape, self.dtype, self.resolution_nm, self.bounds.start)

    def read(self, box: BoundingBox) -> np.ndarray:
        """The voxels of a box, (z, y, x) or (c, z, y, x); unwritten voxels are 0. ``BoundsError`` outside."""
        ...

    def write(self, box: BoundingBox, data: np.ndarray) -> None:
        """Store the voxels of a box; ``BoundsError`` outside, ``VolumeError`` for a wrong shape or type."""
        ...


class Format(Protocol):
    """A storage format: the class of one row of ``pipeline.volumes.formats.VOLUMES``."""

    @classmethod
    def open(cls, location: Location, mode: Mode) -> Volume:
        """Open the volume there; ``VolumeError`` if it is missing or cannot be used."""
        ...


class CreatableFormat(Format, Protocol):
    """A storage format whose row is ``creatable``."""

    @classmethod
    def exists(cls, location: Location) -> bool:
        """True if a volume of this format is there."""
        ...

    @classmethod
    def is_own(cls, location: Location) -> bool:
        """True if petaseg made the volume that is there, so that it may be written on."""
        ...

    @classmethod
    def create(cls, location: Location, spec: VolumeSpec) -> Volume:
        """Make an empty volume, replacing any of this format that is there, and open it for writing."""
        ...


def spec_like(
    volume: Volume | VolumeSpec,
    *,
    dtype: DTypeLike | None = None,
    channels: int | None = None,
    storage_chunk: Triple | None = None,
    storage_shard: Triple | None = None,
) -> VolumeSpec:
    """The specification of an output on the same voxels: bounds and resolution of ``volume``, the rest as given.

    ``channels`` and ``storage_shard`` are not inherited; ``dtype`` and ``storage_chunk`` are if left out.
    """
    spec = volume if isinstance(volume, VolumeSpec) else volume.spec
    return replace(
        spec,
        dtype=spec.dtype if dtype is None else np.dtype(dtype),
        channels=channels,
        storage_chunk=as_vec(storage_chunk or spec.storage_chunk, "storage_chunk"),
        storage_shard=None if storage_shard is None else as_vec(storage_shard, "storage_shard"),
    )
