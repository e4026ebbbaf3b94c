"""Tile sets, read-only: a JSON file that lists image files by section, row and column.

    tiles.json#resolution=30,4,4        a tile set of PyTorch Connectomics, or of VAST (.vsvi): ``tile_sets.py``

A box reads only the tiles that it touches. Tiles that are not there are counted when the volume is opened, and refused
unless ``#missing=black`` says that they are 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np

from pipeline.errors import ConfigError, VolumeError, counted
from pipeline.geometry import ZERO, BoundingBox, Vec
from pipeline.storage import local_path
from pipeline.volumes.attributes import stated_by
from pipeline.volumes.axes import Axes
from pipeline.volumes.base import Mode, VolumeSpec
from pipeline.volumes.checked import CheckedVolume
from pipeline.volumes.location import Location
from pipeline.volumes.picture_files import look_at
from pipeline.volumes.placement import placement, refuse_writing
from pipeline.volumes.stack_names import SHOWN
from pipeline.volumes.stacks import COLOURS
from pipeline.volumes.tiff import images_of, pages_of
from pipeline.volumes.tile_sets import TileSet, read_tile_set

TIFF = (".tif", ".tiff")
Place = tuple[int, int, int]
"""Section, row and column of a tile, counted from 0."""


class TileVolume(CheckedVolume):
    """Tiles in rows and columns, section by section."""

    def __init__(self, url: str, spec: VolumeSpec, tiles: TileSet, missing: frozenset[Place]) -> None:
        super().__init__(url, spec)
        self._tiles, self._missing = tiles, missing

    @classmethod
    def open(cls, location: Location, mode: Mode) -> TileVolume:
        """Read the description, and look which tiles are there; one of them is read."""
        refuse_writing(location, mode)
        tiles = read_tile_set(_description(location))
        axes = Axes(location.url, None, tiles.extent)
        resolution, bounds = placement(location, stated_by(location.url, tiles.metadata, axes), axes.extent)
        chunk = Vec(1, *tiles.tile)
        missing = _missing(location, tiles)
        spec = VolumeSpec(bounds, resolution, tiles.dtype, tiles.channels, chunk)
        volume = cls(location.url, spec, tiles, frozenset(missing))
        volume._tile(next(place for place in _between(ZERO, tiles.grid) if place not in volume._missing))
        return volume

    def _load(self, box: BoundingBox) -> np.ndarray:
        result = np.zeros(self.spec.array_shape(box), self.spec.dtype)
        inner = box.translate(-self.spec.bounds.start)
        size = Vec(1, *self._tiles.tile)
        for place in _between(inner.start // size, inner.stop.ceil_div(size)):
            if place not in self._missing:
                tile = self._box(place)
                common = tile.intersect(inner)
                result[(..., *common.slices(inner.start))] = self._tile(place)[(..., *common.slices(tile.start))]
        return result

    def _box(self, place: Place) -> BoundingBox:
        """The voxels of a tile, counted from the first of the volume."""
        size = Vec(1, *self._tiles.tile)
        return BoundingBox.from_shape(size, Vec(*place) * size).intersect(BoundingBox.from_shape(self._tiles.extent))

    def _tile(self, place: Place) -> np.ndarray:
        """The voxels of a tile, (1, y, x) or (3, 1, y, x); ``VolumeError`` if it is smaller or of another type."""
        path, (_, rows, columns) = self._tiles.path(*place), self._box(place).shape
        pixels = _pixels(path)
        shape = pixels.shape[-2:]
        if shape[0] < rows or shape[1] < columns:
            raise VolumeError(
                f"{path} has {shape[0]} x {shape[1]} pixels; at its place in {self.url} there must be {rows} x "
                f"{columns}: correct the size of tiles or volume there, or bring the whole tile"
            )
        return self._values(path, pixels)[..., None, :rows, :columns]

    def _values(self, path: Path, pixels: np.ndarray) -> np.ndarray:
        """The values of pixels (y, x) or (3, y, x): as they are, or the number that a label's colours stand for."""
        colours, dtype = pixels.ndim == 3, self.spec.dtype
        are_labels = self.spec.channels is None and dtype in (np.uint32, np.uint64)
        if colours == (self.spec.channels == COLOURS) and (
            pixels.dtype == dtype or (are_labels and np.can_cast(pixels.dtype, dtype))
        ):
            return pixels.astype(dtype, copy=False)
        if colours and are_labels and pixels.dtype == np.uint8:
            red, green, blue = pixels.astype(dtype)
            return red << 16 | green << 8 | blue  # type: ignore[no-any-return]
        raise VolumeError(
            f"{path} has {'three colours' if colours else 'grey'} of {pixels.dtype}; {self.url} says that tiles have "
            f"{self.spec.channels or 1} channel(s) of {dtype}: correct dtype (uint32 for labels in colours) and the "
            "number of channels there"
        )


def _description(location: Location) -> Path:
    path = local_path(location.base)
    if path is None or not path.is_file():
        raise VolumeError(
            f"{location.url} does not exist on this machine; tile sets are read from local disks: correct the path, or "
            "copy them first"
        )
    return path


def _between(first: Vec, last: Vec) -> Iterator[Place]:
    """The places from the first up to, and without, the last along each axis."""
    return product(*map(range, first, last))  # type: ignore[return-value]


def _missing(location: Location, tiles: TileSet) -> list[Place]:
    """The tiles that are not there, each folder being listed once.

    Raises ``VolumeError`` for missing tiles that nobody said are black, and if there is no tile at all.
    """
    wanted = location.options.get("missing", "refuse")
    if wanted not in ("refuse", "black"):
        raise ConfigError(f"{location.url}: missing is {wanted!r}; it is refuse or black")
    there = cache(_names)
    missing = []
    for place in _between(ZERO, tiles.grid):
        path = tiles.path(*place)
        if path.name not in there(path.parent):
            missing.append(place)
    if len(missing) == tiles.grid[0] * tiles.grid[1] * tiles.grid[2]:
        raise VolumeError(
            f"{location.url} lists {counted(len(missing), 'tile')}, and none of them is there, "
            f"{tiles.path(*missing[0])} for one; paths count from the folder of the JSON file: correct "
            "them, or bring the tiles"
        )
    if missing and wanted == "refuse":
        shown = ", ".join(str(tiles.path(*place)) for place in missing[:SHOWN])
        raise VolumeError(
            f"{location.url} lacks {len(missing)} of its tiles: {shown}{' ...' if len(missing) > SHOWN else ''}; bring "
            "them, or say that they are black by adding #missing=black"
        )
    return missing


def _names(folder: Path) -> frozenset[str]:
    try:
        return frozenset(child.name for child in folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()


def _pixels(path: Path) -> np.ndarray:
    """The pixels of an image file, (y, x) or (3, y, x)."""
    if not path.name.lower().endswith(TIFF):
        return look_at(path).pixels()
    pages = pages_of(path)
    if len(pages) != 1:
        raise VolumeError(f"{path} has {len(pages)} pages; a tile is a file of one: write each to a file of its own")
    return next(images_of(pages))
