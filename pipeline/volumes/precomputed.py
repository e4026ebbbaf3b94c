"""Neuroglancer precomputed layers through cloud-volume. The only file that knows axis order x, y, z.

    <url>/info                     the layer; resolution, size, voxel_offset and chunk_sizes of each mip are x, y, z
    <url>/<key>/x0-x1_y0-y1_z0-z1  one chunk, (x, y, z, c) in Fortran order: the bytes of (c, z, y, x) in C order

cloud-volume reads the metadata and sharded layers and has the codecs; chunks are put as whole objects here, since
its own local files are neither atomic nor plain: it compresses them, and other readers take ``.gz`` files for missing.
"""

from __future__ import annotations

import json
import posixpath
import re
import zlib
from collections.abc import Iterator
from itertools import product
from typing import Any

import cloudvolume
import numpy as np
from cloudfiles import CloudFiles
from cloudfiles.paths import add_alias
from cloudfiles.secrets import aws_credentials
from cloudvolume import chunks as codecs

from pipeline.errors import VolumeError
from pipeline.geometry import BoundingBox
from pipeline.storage import ObjectStore, local_path, storage_errors
from pipeline.volumes.base import Mode, VolumeSpec
from pipeline.volumes.checked import CheckedVolume
from pipeline.volumes.compressed_segmentation import check_compressed_segmentation
from pipeline.volumes.location import Location
from pipeline.volumes.placement import placement, tidy
from pipeline.volumes.removal import refuse_occupied, remove_volume

LOSSLESS = ("raw", "compressed_segmentation", "compresso", "crackle", "png")
"""Encodings in which a written voxel is read back unchanged."""
DTYPES = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "float32")
"""What the format can hold (Neuroglancer specification of precomputed volumes)."""
S3_SERVER = re.compile(r"^s3://https?://[^/]+/")
"""S3 storage other than Amazon's: ``s3://https://host/bucket/path``, an address that cloud-volume refuses."""
COMPRESSED = (".gz", ".br", ".zstd", ".xz", ".bz2")
"""Endings that cloud-files looks for beside a local object."""


class PrecomputedVolume(CheckedVolume):
    """One mip of a precomputed layer."""

    creatable = True

    def __init__(self, location: Location, spec: VolumeSpec, layer: cloudvolume.CloudVolume, *, writable: bool) -> None:
        super().__init__(location.url, spec, writable=writable)
        self._layer = layer
        self._mip = int(layer.mip)
        self._sharded = bool(layer.image.is_sharded(self._mip))
        self._encoding = str(layer.meta.encoding(self._mip))
        self._block = tuple(layer.meta.compressed_segmentation_block_size(self._mip) or (8, 8, 8))
        folder = posixpath.join(_absolute(location.base), layer.meta.key(self._mip))
        self._files = CloudFiles(folder, progress=False)
        self._objects = ObjectStore(folder)

    @classmethod
    def open(cls, location: Location, mode: Mode) -> PrecomputedVolume:
        """Open a mip of a layer."""
        layer = _open_layer(location)
        mip = layer.mip
        start, extent = _zyx(layer.meta.voxel_offset(mip)), _zyx(layer.meta.volume_size(mip))
        found = (tidy([float(r) for r in layer.meta.resolution(mip)[::-1]]), start)
        resolution, bounds = placement(location, found, extent)
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
        return volume

    @classmethod
    def exists(cls, location: Location) -> bool:
        """True if there is an info file."""
        return ObjectStore(location.base).exists("info")

    @classmethod
    def create(cls, location: Location, spec: VolumeSpec) -> PrecomputedVolume:
        """Make an empty layer with one mip, replacing any that is there: labels (uint32, uint64) as segmentation."""
        if spec.dtype.name not in DTYPES:
            raise VolumeError(f"{location.url} would hold {spec.dtype}; precomputed layers hold {', '.join(DTYPES)}")
        if spec.storage_shard is not None:
            raise VolumeError(
                f"{location.url} would have shards; precomputed is written in chunks: use zarr for shards"
            )
        store = ObjectStore(location.base)
        if cls.exists(location):
            remove_volume(store, ["info"])
        refuse_occupied(store)
        store.put("info", json.dumps(_info(spec), indent=2).encode())
        return cls.open(location, "r+")

    def _load(self, box: BoundingBox) -> np.ndarray:
        if self._sharded:
            stop = box.stop[::-1]
            stored = self._layer.image.download(cloudvolume.Bbox(box.start[::-1], stop), self._mip)
            return self._from_xyzc(np.asarray(stored))
        result = np.zeros(self.spec.array_shape(box), self.spec.dtype)
        places = {_chunk_name(chunk): chunk for chunk in self._chunks(box)}
        for item in self._files.get(list(places)):
            chunk = places[item["path"]]
            if item["content"] is not None:
                part = chunk.intersect(box)
                decoded = self._decode(chunk, item["content"])
                result[(..., *part.slices(box.start))] = decoded[(..., *part.slices(chunk.start))]
        return result

    def _store(self, box: BoundingBox, data: np.ndarray) -> None:
        for chunk in self._chunks(box):
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
        if self._objects.supports_append:  # a local file of another writer, which would shadow this one
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
        axes = zip(box.start, box.stop, bounds.start, side, strict=True)
        for corner in product(*(range(b + (lo - b) // n * n, hi, n) for lo, hi, b, n in axes)):
            yield BoundingBox.from_shape(side, corner).intersect(bounds)  # type: ignore[arg-type]

    def _refuse_writing(self) -> None:
        if self.writable and (self._sharded or self._encoding not in LOSSLESS):
            kind = "sharded" if self._sharded else f"encoded as {self._encoding}, which loses detail"
            raise VolumeError(f"{self.url} is {kind}; open it with mode='r', and write to a new volume")


def _open_layer(location: Location) -> cloudvolume.CloudVolume:
    store = ObjectStore(location.base)
    if not store.exists("info"):
        raise VolumeError(f"{location.url} is no precomputed layer: there is no {location.base}/info; correct the path")
    options: dict[str, Any] = {"mip": location.mip, "fill_missing": True, "progress": False, "compress": False}
    url = _absolute(location.base)
    try:
        with storage_errors("open", location.url):
            if match := S3_SERVER.match(url):
                alias = f"server{zlib.crc32(match[0].encode()):08x}"
                add_alias(alias, match[0])
                url, options["secrets"] = f"{alias}://{url[match.end() :]}", aws_credentials()
            return cloudvolume.CloudVolume(url, **options)
    except OSError as error:
        cause = error.__cause__ or error
        raise VolumeError(
            f"{location.url} cannot be opened ({type(cause).__name__}: {cause}); check its info and mip"
        ) from error


def _absolute(url: str) -> str:
    """A URL as cloud-volume wants it: local paths absolute, with their scheme."""
    path = local_path(url)
    return url if path is None else f"file://{path.resolve()}"


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


def _zyx(values: Any) -> tuple[int, int, int]:
    x, y, z = (int(v) for v in list(values)[:3])
    return z, y, x
