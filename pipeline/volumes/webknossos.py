"""The folders of a WEBKNOSSOS dataset, written with zarr; here and in precomputed.py alone axes are x, y, z.

<dataset>/datasource-properties.json              layers, size of a voxel, attachments
<dataset>/<layer>/1/                              voxels: zarr v3 (channel, x, y, z) from voxel 0, sharded
<dataset>/<layer>/agglomerates/<name>/            a group of sharded arrays: ``handover/webknossos.py``
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import TransposeCodec, ZstdCodec

from pipeline.errors import VolumeError
from pipeline.geometry import BoundingBox, Vec
from pipeline.storage import ObjectStore
from pipeline.volumes.zarr_store import ZarrStore

CHUNK, SHARD = 32, 256
"""Voxels along each side of a stored chunk, and of a shard: the file that is written at once."""
ROW_CHUNK_BYTES, ROW_SHARD_BYTES = 1 << 18, 1 << 26
"""Bytes of a chunk and of a shard of an array of rows."""
IMAGE_TYPES = ("uint8", "uint16", "uint32")
LARGEST_PLACE = 2**31
AXES = {"c": 0, "x": 1, "y": 2, "z": 3}


@dataclass(frozen=True)
class Layer:
    """A layer of a dataset at its finest level."""

    name: str
    category: str
    """``segmentation`` or ``color``"""
    dtype: np.dtype
    box: BoundingBox
    more: Mapping[str, Any]
    """What ``datasource-properties.json`` says of it besides."""

    @property
    def shards(self) -> BoundingBox:
        """The box in numbers of shards, whose lattice begins at voxel 0."""
        return BoundingBox(self.box.start // SHARD, self.box.stop.ceil_div(SHARD))

    def create(self, dataset: Path) -> zarr.Array[Any]:
        """Make the empty array of the layer."""
        extent = self.box.stop.ceil_div(SHARD) * SHARD
        return zarr.create_array(
            ZarrStore(ObjectStore(dataset / self.name / "1")),
            shape=(1, *extent[::-1]),
            dtype=self.dtype,
            chunks=(1, CHUNK, CHUNK, CHUNK),
            shards=(1, SHARD, SHARD, SHARD),
            filters=[TransposeCodec(order=(3, 2, 1, 0))],
            compressors=ZstdCodec(level=5, checksum=True),
            fill_value=0,
            dimension_names=list(AXES),
            zarr_format=3,
        )

    def properties(self) -> dict[str, Any]:
        """What ``datasource-properties.json`` says of it."""
        x, y, z = self.box.shape[::-1]
        return {
            "name": self.name,
            "category": self.category,
            "boundingBox": {"topLeft": list(self.box.start[::-1]), "width": x, "height": y, "depth": z},
            "dataFormat": "zarr3",
            "mags": [{"mag": [1, 1, 1], "path": f"./{self.name}/1", "axisOrder": AXES}],
            "numChannels": 1,
            "elementClass": self.dtype.name,
            **self.more,
        }


def check_place(box: BoundingBox) -> None:
    """``VolumeError`` unless WEBKNOSSOS can have voxels at this place."""
    if min(box.start) < 0 or max(box.stop) > LARGEST_PLACE:
        raise VolumeError(
            f"the region of interest is {box}, and voxels of WEBKNOSSOS lie from 0 to 2^31 along each axis: give the "
            "input another place (#offset=z,y,x) and run again, or export to parquet"
        )


def write_box(array: zarr.Array[Any], box: BoundingBox, voxels: np.ndarray) -> None:
    """Store voxels (z, y, x) of a box in the array of a layer; a box within one shard is written in one go."""
    array[(0, *box.slices()[::-1])] = voxels.T


def write_properties(dataset: Path, layers: Sequence[Layer], resolution_nm: Sequence[float]) -> None:
    """Write ``datasource-properties.json``, which makes the folder a dataset."""
    properties = {
        "id": {"name": "petaseg", "team": ""},
        "scale": {"factor": [float(side) for side in resolution_nm[::-1]], "unit": "nanometer"},
        "dataLayers": [layer.properties() for layer in layers],
        "version": 1,
    }
    (dataset / "datasource-properties.json").write_text(json.dumps(properties, indent=4))


def write_group(folder: Path, attributes: Mapping[str, Any]) -> None:
    """Make a folder a zarr group."""
    node = {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}
    (folder / "zarr.json").write_text(json.dumps(node, indent=2))


class RowWriter:
    """A sharded zarr array that grows row by row; whole shards are written."""

    def __init__(self, folder: Path, dtype: np.dtype | str, columns: int = 0) -> None:
        """Make an empty array of shape (0,), or (0, columns)."""
        dtype, self._wide = np.dtype(dtype), (columns,) if columns else ()
        row = dtype.itemsize * (columns or 1)
        chunk = ROW_CHUNK_BYTES // row
        self._shard = chunk * max(1, ROW_SHARD_BYTES // (chunk * row))
        self._waiting: list[np.ndarray] = [np.zeros((0, *self._wide), dtype)]
        self._array = zarr.create_array(
            ZarrStore(ObjectStore(folder)),
            shape=(0, *self._wide),
            dtype=dtype,
            chunks=(chunk, *self._wide),
            shards=(self._shard, *self._wide),
            compressors=ZstdCodec(level=5, checksum=True),
            fill_value=0,
            zarr_format=3,
        )

    def add(self, rows: np.ndarray) -> None:
        """Add rows at the end."""
        self._waiting.append(rows.astype(self._array.dtype))
        if sum(map(len, self._waiting)) >= self._shard:
            rows = np.concatenate(self._waiting)
            whole = len(rows) // self._shard * self._shard
            self._write(rows[:whole])
            self._waiting = [rows[whole:]]

    def close(self) -> None:
        """Write what waits."""
        self._write(np.concatenate(self._waiting))
        self._waiting = self._waiting[:1]

    def _write(self, rows: np.ndarray) -> None:
        at = self._array.shape[0]
        self._array.resize((at + len(rows), *self._wide))
        for start in range(0, len(rows), self._shard):
            part = rows[start : start + self._shard]
            self._array[at + start : at + start + len(part)] = part


def shard_boxes(layer: Layer) -> list[BoundingBox]:
    """The parts of a layer's box that lie in one shard each."""
    from pipeline.volumes.export import blocks

    numbers = (Vec(*part.start) for part in blocks(layer.shards, Vec(1, 1, 1)))
    side = Vec(SHARD, SHARD, SHARD)
    return [BoundingBox.from_shape(side, number * SHARD).intersect(layer.box) for number in numbers]
