"""Neuroglancer precomputed layers through cloud-volume. Axes are x, y, z here, as in webknossos.py.

    <url>/info                     the layer; resolution, size, voxel_offset and chunk_sizes of each mip are x, y, z
    <url>/<key>/x0-x1_y0-y1_z0-z1  one chunk, (x, y, z, c) in Fortran order: the bytes of (c, z, y, x) in C order

cloud-volume understands the metadata and has the codecs. All bytes go through ``ObjectStore``: cloud-volume's own local
files are neither atomic nor plain (it compresses them, and other readers treat ``.gz`` files as missing), and its
access to buckets supports neither other S3 servers in an address nor credentials without a session token.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import cloudvolume
import numpy as np
from cloudfiles.compression import decompress
from cloudvolume import chunks as codecs

from pipeline.errors import PetasegError, VolumeError
from pipeline.geometry import BoundingBox, Vec
from pipeline.storage import ObjectStore
from pipeline.volumes.base import Mode, VolumeSpec
from pipeline.volumes.checked import CheckedVolume
from pipeline.volumes.compressed_segmentation import check_compressed_segmentation
from pipeline.volumes.location import Location
from pipeline.volumes.placement import Stated, placement, tidy
from pipeline.volumes.precomputed_info import DTYPES, check_scale
from pipeline.volumes.precomputed_shards import NOWHERE, ShardedChunks
from pipeline.volumes.presence import FEW, require_stored
from pipeline.volumes.removal import MARK, is_marked, make_room

LOSSLESS = ("raw", "compressed_segmentation", "compresso", "crackle", "png")
"""Encodings in which a written voxel is read back unchanged."""
CHUNK, SHARD = re.compile(r"-?\d+--?\d+_-?\d+--?\d+_-?\d+--?\d+(\.\w+)?"), re.compile(r".*\.shard")
"""The objects of a scale that hold voxels."""
OWN = re.compile(r"info|[\d.]+_[\d.]+_[\d.]+/-?\d+--?\d+_-?\d+--?\d+_-?\d+--?\d+")
"""The objects of a created layer."""
COMPRESSED = {".gz": "gzip", ".br": "br", ".zstd": "zstd", ".xz": "xz", ".bz2": "bz2"}
"""Endings under which cloud-volume stores compressed local files; in a bucket it sets the content encoding instead."""


class PrecomputedVolume(CheckedVolume):
    """One mip of a precomputed layer."""

    def __init__(self, location: Location, spec: VolumeSpec, layer: cloudvolume.CloudVolume, *, writable: bool) -> None:
        super().__init__(location.url, spec, writable=writable)
        mip = int(layer.mip)
        self._encoding = str(layer.meta.encoding(mip))
        self._block = tuple(layer.meta.compressed_segmentation_block_size(mip) or (8, 8, 8))
        self._objects = ObjectStore(posixpath.join(location.base, layer.meta.key(mip)))
        self._shards: ShardedChunks | None = None
        if layer.image.is_sharded(mip):
            grid = spec.bounds.shape.ceil_div(spec.storage_chunk)
            self._shards = ShardedChunks(self._objects, layer.meta.scale(mip)["sharding"], grid[::-1])

    @classmethod
    def open(cls, location: Location, mode: Mode) -> PrecomputedVolume:
        """Open a mip of a layer."""
        layer = _open_layer(location)
        mip = layer.mip
        start, extent = _zyx(layer.meta.voxel_offset(mip)), _zyx(layer.meta.volume_size(mip))
        stated = Stated(lambda: tidy([float(r) for r in layer.meta.resolution(mip)[::-1]]), lambda: start)
        resolution, bounds = placement(location, stated, extent)
        if bounds.start != start:
            raise VolumeError(
                f"{location.url}: the offset of a precomputed layer is in its info file; leave #offset out"
            )
        spec = VolumeSpec(
            bounds=bounds,
            resolution_nm=resolution,
            dtype=np.dtype(layer.meta.data_type),
            channels=layer.num_channels if layer.num_channels > 1 else None,
            storage_chunk=_zyx(layer.meta.chunk_size(mip)),
            storage_shard=_zyx(layer.image.shard_shape(mip)) if layer.image.is_sharded(mip) else None,
        )
        volume = cls(location, spec, layer, writable=mode == "r+")
        volume._refuse_writing()
        if mode == "r":
            require_stored(volume)
        return volume

    @classmethod
    def exists(cls, location: Location) -> bool:
        """True if there is an info file."""
        return ObjectStore(location.base).exists("info")

    @classmethod
    def is_own(cls, location: Location) -> bool:
        """True if the info file says that petaseg made the layer."""
        return _is_made_by_petaseg(ObjectStore(location.base))

    @classmethod
    def create(cls, location: Location, spec: VolumeSpec) -> PrecomputedVolume:
        """Make an empty layer with one mip, replacing one of petaseg's: labels (uint32, uint64) as segmentation."""
        if spec.dtype.name not in DTYPES:
            raise VolumeError(f"{location.url} would hold {spec.dtype}; precomputed layers hold {', '.join(DTYPES)}")
        if spec.storage_shard is not None:
            raise VolumeError(
                f"{location.url} would have shards; precomputed is written in chunks: use zarr for shards"
            )
        store = ObjectStore(location.base)
        make_room(store, OWN, ["info"], marked=_is_made_by_petaseg(store))
        store.put("info", json.dumps({**_info(spec), **MARK}, indent=2).encode())
        return cls.open(location, "r+")

    @property
    def is_stored(self) -> bool:
        """See ``Volume``: a chunk, or a shard, in the folder of the mip."""
        names = self._objects.some(FEW)
        return names is None or any(map((SHARD if self._shards else CHUNK).fullmatch, names))

    def _load(self, box: BoundingBox) -> np.ndarray:
        result = np.zeros(self.spec.array_shape(box), self.spec.dtype)
        chunks = list(self._chunks(box))
        for chunk, content in zip(chunks, self._contents(chunks), strict=True):
            if content is not None:
                part = chunk.intersect(box)
                decoded = self._decode(chunk, content)
                result[(..., *part.slices(box.start))] = decoded[(..., *part.slices(chunk.start))]
        return result

    def _contents(self, chunks: Sequence[BoundingBox]) -> Sequence[bytes | None]:
        """The stored bytes of each chunk; ``None`` for one that was not written."""
        if self._shards is None:
            return self._objects.each(self._content, [_chunk_name(chunk) for chunk in chunks])
        first, side = self.spec.bounds.start, self.spec.storage_chunk
        points = [((chunk.start - first) // side)[::-1] for chunk in chunks]
        return self._shards.get(points)

    def _content(self, name: str) -> bytes | None:
        data = self._objects.get_or_none(name)
        if data is None and self._objects.local_path is not None:
            for ending, encoding in COMPRESSED.items():
                packed = self._objects.get_or_none(name + ending)
                if packed is not None:
                    return bytes(decompress(packed, encoding, name))
        return data

    def _store(self, box: BoundingBox, data: np.ndarray) -> None:
        self._objects.each(lambda chunk: self._store_part(chunk, box, data), list(self._chunks(box)))

    def _store_part(self, chunk: BoundingBox, box: BoundingBox, data: np.ndarray) -> None:
        """Store one chunk, and keep its voxels outside of the box."""
        part = chunk.intersect(box)
        if part == chunk:
            voxels = data[(..., *chunk.slices(box.start))]
        else:
            voxels = self._load(chunk)
            voxels[(..., *part.slices(chunk.start))] = data[(..., *part.slices(box.start))]
        self._store_chunk(_chunk_name(chunk), voxels)

    def _store_chunk(self, name: str, voxels: np.ndarray) -> None:
        if voxels.any():
            stored = np.asfortranarray(voxels.reshape(-1, *voxels.shape[-3:]).T)  # (x, y, z, c)
            self._objects.put(name, codecs.encode(stored, self._encoding, self._block))
        else:
            self._objects.delete(name)
        if self._objects.local_path is not None:  # else cloud-volume's file would reappear
            for ending in COMPRESSED:
                self._objects.delete(name + ending)

    def _decode(self, chunk: BoundingBox, content: bytes) -> np.ndarray:
        if not content:
            raise ValueError(f"the object of chunk {_chunk_name(chunk)} has no bytes")
        shape = (*chunk.shape[::-1], self.spec.channels or 1)
        if self._encoding == "compressed_segmentation":
            check_compressed_segmentation(content, shape[:3], self._block, self.spec.dtype.itemsize)
        stored = codecs.decode(content, self._encoding, shape, self.spec.dtype, self._block)
        return self._from_xyzc(stored.reshape(shape, order="F"))

    def _from_xyzc(self, stored: np.ndarray) -> np.ndarray:
        array = stored.T  # (c, z, y, x)
        return array[0] if self.spec.channels is None else array

    def _chunks(self, box: BoundingBox) -> Iterator[BoundingBox]:
        """The stored chunks that a box touches, clipped to the bounds; their lattice begins at the bounds' start."""
        bounds, side = self.spec.bounds, self.spec.storage_chunk
        first = bounds.start + (box.start - bounds.start) // side * side
        z, y, x = map(range, first, box.stop, side)
        for corner in product(z, y, x):
            yield BoundingBox.from_shape(side, corner).intersect(bounds)

    def _refuse_writing(self) -> None:
        if self.writable and (self._shards or self._encoding not in LOSSLESS):
            kind = "sharded" if self._shards else f"encoded as {self._encoding}, which loses detail"
            raise VolumeError(f"{self.url} is {kind}; open it with mode='r', and write to a new volume")


def _is_made_by_petaseg(store: ObjectStore) -> bool:
    try:
        return is_marked(json.loads(store.get_or_none("info") or b"{}"))
    except ValueError:
        return False


def _open_layer(location: Location) -> cloudvolume.CloudVolume:
    data = ObjectStore(location.base).get_or_none("info")
    if data is None:
        raise VolumeError(f"{location.url} is no precomputed layer: there is no {location.base}/info; correct the path")
    try:
        info = json.loads(data)
        if moved := info.get("redirect"):
            raise VolumeError(f"{location.url} has moved to {moved}: name that instead")
        check_scale(location, info)
        return cloudvolume.CloudVolume(NOWHERE, info=info, provenance={}, mip=location.mip, progress=False)
    except PetasegError:
        raise
    except Exception as error:  # wrong metadata can raise any error
        raise VolumeError(
            f"{location.url} cannot be opened ({type(error).__name__}: {error}); check its info and mip"
        ) from error


def _info(spec: VolumeSpec) -> dict[str, Any]:
    labels = spec.channels is None and spec.dtype.name in ("uint32", "uint64")
    info: dict[str, Any] = cloudvolume.CloudVolume.create_new_info(
        num_channels=spec.channels or 1,
        layer_type="segmentation" if labels else "image",
        data_type=spec.dtype.name,
        encoding="compressed_segmentation" if labels else "raw",
        resolution=[int(r) if float(r).is_integer() else float(r) for r in spec.resolution_nm[::-1]],
        voxel_offset=spec.bounds.start[::-1],
        volume_size=spec.bounds.shape[::-1],
        chunk_size=spec.storage_chunk[::-1],
    )
    return info


def _chunk_name(chunk: BoundingBox) -> str:
    return "_".join(f"{a}-{b}" for a, b in zip(chunk.start[::-1], chunk.stop[::-1], strict=True))


def _zyx(values: Any) -> Vec:
    x, y, z = (int(v) for v in list(values)[:3])
    return Vec(z, y, x)
