"""Tile sets as other programs describe them in a JSON file, parsed into one form: which file holds which tile.

    PyTorch Connectomics (TileDataset)    image: a path for each section, with {row} and {column}; height, width,
                                          depth, tile_size, tile_st (the first row and column), dtype, ndim (channels)
    VAST (.vsvi)                          SourceFileNameTemplate with %d for the letters of SourceParamSequence:
                                          section s, row r, column c; SourceMinS, SourceTileSizeX, TargetDataSizeX ...

Both may hold petaseg's own ``resolution_nm`` and ``offset`` (z, y, x); paths count from the folder of the JSON file.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import VolumeError, counted
from pipeline.geometry import Vec, product
from pipeline.storage import as_storage_error
from pipeline.volumes.stacks import COLOURS

FIELD = re.compile(r"\{(row|column)(?::0(\d{1,2})d?)?\}")
"""``{row}``, or ``{row:03d}`` with leading zeros."""
PRINTED = re.compile(r"%(0?\d{0,2})d")
"""``%d``, or ``%04d`` with leading zeros."""
TYPES = ("uint8", "uint16", "uint32", "uint64")
MOST = 2**31
"""What sides, counts and numbers of a tile set must be less than."""
MOST_TILES = 10**8
"""The largest number of tiles: each is looked for when the volume is opened."""


@dataclass(frozen=True)
class TileSet:
    """The tiles of a volume."""

    extent: Vec
    """Voxels (z, y, x)."""
    tile: tuple[int, int]
    """Rows and columns of a tile; those at the end may be smaller or larger."""
    dtype: np.dtype
    channels: int | None
    path: Callable[[int, int, int], Path]
    """The file of the tile at a section, row and column, all counted from 0."""
    metadata: Mapping[str, Any]
    """What the JSON file holds."""

    @property
    def grid(self) -> Vec:
        """The number of sections, rows and columns of tiles."""
        return self.extent.ceil_div(Vec(1, *self.tile))


def read_tile_set(path: Path) -> TileSet:
    """Parse the description of a tile set; ``VolumeError`` for one that is not understood."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise as_storage_error(error, "read", str(path)) from error
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise VolumeError(f"{path} is no JSON ({error}); correct it, or name the volume that is meant") from error
    keys = found if isinstance(found, dict) else {}
    parse = _tile_dataset if "image" in keys else _vast if "SourceFileNameTemplate" in keys else None
    if parse is None:
        raise VolumeError(
            f"{path} describes no tiles: it has neither the key image (PyTorch Connectomics) nor "
            "SourceFileNameTemplate (VAST); name the file that lists the tiles"
        )
    tiles = parse(_Table(path, keys))
    if product(tiles.grid) > MOST_TILES:
        raise VolumeError(
            f"{path} states {product(tiles.grid):,} tiles (sections, rows, columns: {list(tiles.grid)}); at most "
            f"{MOST_TILES:,} are read: correct the sizes, or describe a part of the volume"
        )
    return tiles


@dataclass(frozen=True)
class _Table:
    """The keys of a description, each checked when it is taken."""

    path: Path
    values: Mapping[str, Any]

    def whole(self, key: str, least: int = 0, default: int | None = None) -> int:
        """A whole number."""
        value = self.values.get(key, default)
        if type(value) is float and value.is_integer():
            value = int(value)
        if type(value) is not int or not least <= value < MOST:
            raise self.wrong(key, f"a whole number of at least {least}")
        return value

    def wrong(self, key: str, rule: str) -> VolumeError:
        """The refusal of a key's value."""
        found = repr(self.values[key]) if key in self.values else "missing"
        return VolumeError(f"{self.path}: {key} is {found[:100]}; it must be {rule}: correct it")

    def dtype(self) -> np.dtype:
        """The type of a voxel."""
        name = self.values.get("dtype", TYPES[0])
        if name not in TYPES:
            raise self.wrong("dtype", f"one of {', '.join(TYPES)}")
        return np.dtype(name)

    def channels(self, count: int, key: str) -> int | None:
        """Channels of a voxel: none for grey, and for labels, which are numbers of up to three bytes."""
        if count not in (1, COLOURS):
            raise self.wrong(key, f"1 (grey) or {COLOURS} (red, green, blue)")
        return COLOURS if count == COLOURS and self.dtype().itemsize <= 2 else None


def _tile_dataset(table: _Table) -> TileSet:
    """The form of PyTorch Connectomics."""
    patterns = table.values["image"]
    extent = Vec(*(table.whole(key, 1) for key in ("depth", "height", "width")))
    if not isinstance(patterns, list) or not all(isinstance(each, str) and each for each in patterns):
        raise table.wrong("image", "a list of paths, one for each section")
    if len(patterns) != extent[0]:
        raise VolumeError(
            f"{table.path}: image lists {counted(len(patterns), 'section')}, and depth is {extent[0]}; they must be "
            "equal: correct the one that is wrong"
        )
    if table.values.get("tile_ratio", 1) != 1:
        raise table.wrong(
            "tile_ratio",
            "1, since tiles are read as they are stored and never resampled (give height, width and tile_size of the "
            "stored tiles, and their resolution_nm)",
        )
    tile, first = _tile_size(table, extent), _first(table)
    _check_counts(table, extent, tile)
    _check_patterns(table, patterns, extent, tile)

    def path(section: int, row: int, column: int) -> Path:
        numbers = {"row": row + first[0], "column": column + first[1]}
        return table.path.parent / FIELD.sub(lambda f: f"{numbers[f[1]]:0{f[2] or 0}d}", patterns[section])

    channels = table.channels(table.whole("ndim", 1, 1), "ndim")
    return TileSet(extent, tile, table.dtype(), channels, path, table.values)


def _tile_size(table: _Table, extent: Vec) -> tuple[int, int]:
    """Rows and columns of a tile, from one number or two."""
    found = table.values.get("tile_size")
    sides: list[Any] = found if isinstance(found, list) else [found, found]
    if len(sides) != 2 or not all(type(side) is int and 0 < side < MOST for side in sides):
        raise table.wrong("tile_size", "a whole number of voxels, or two: rows and columns")
    rows, columns = map(int, sides)
    return min(rows, extent[1]), min(columns, extent[2])


def _first(table: _Table) -> tuple[int, int]:
    """The numbers of the first row and the first column."""
    found = table.values.get("tile_st", [0, 0])
    if not isinstance(found, list) or len(found) != 2 or not all(type(n) is int and abs(n) < MOST for n in found):
        raise table.wrong("tile_st", "two whole numbers: the first row and the first column")
    return found[0], found[1]


def _check_counts(table: _Table, extent: Vec, tile: tuple[int, int]) -> None:
    """Refuse counts of rows and columns that contradict the sizes."""
    for key, side, length in (("n_rows", extent[1], tile[0]), ("n_columns", extent[2], tile[1])):
        needed = math.ceil(side / length)
        if key in table.values and table.whole(key, 1) != needed:
            raise table.wrong(key, f"{needed}, the tiles of {length} voxels along {side}")


def _check_patterns(table: _Table, patterns: list[str], extent: Vec, tile: tuple[int, int]) -> None:
    """Refuse a path without a row or column where there are several: one file would be read in many places."""
    for number, pattern in enumerate(patterns):
        names = {found[1] for found in FIELD.finditer(pattern)}
        several = {name for name, axis in (("row", 1), ("column", 2)) if extent[axis] > tile[axis - 1]}
        if missing := sorted(several - names):
            raise VolumeError(
                f"{table.path}: the path of section {number}, {pattern!r}, has no {{{missing[0]}}}, and there are "
                f"several {missing[0]}s of tiles; name tiles by {{row}} and {{column}}, or give a larger tile_size"
            )


def _vast(table: _Table) -> TileSet:
    """The form of VAST's descriptions of image stacks (.vsvi)."""
    extent = Vec(*(table.whole(f"TargetDataSize{axis}", 1) for axis in "ZYX"))
    sides = table.whole("SourceTileSizeY", 1), table.whole("SourceTileSizeX", 1)
    tile = min(sides[0], extent[1]), min(sides[1], extent[2])
    first = {letter: table.whole(f"SourceMin{letter.upper()}", 0, 0) for letter in "src"}
    sections = _section_order(table, extent[0], first["s"])
    if table.values.get("OffsetMip", 0) != 0:
        raise table.wrong("OffsetMip", "0, since only the finest tiles are read")
    _check_last(table, extent, tile, first)
    template, letters = _template(table, extent, tile)

    def path(section: int, row: int, column: int) -> Path:
        numbers = {"s": sections[section], "r": row + first["r"], "c": column + first["c"]}
        values = iter(letters)
        return table.path.parent / PRINTED.sub(lambda f: f"{numbers[next(values)]:{f[1]}d}", template)

    channels = table.channels(table.whole("SourceBytesPerPixel", 1, 1), "SourceBytesPerPixel")
    return TileSet(extent, tile, table.dtype(), channels, path, _with_place(table))


def _section_order(table: _Table, depth: int, first: int) -> list[int] | range:
    """The numbers of the sections in their order."""
    text = table.values.get("SourceSectionOrder", "")
    if text == "":
        return range(first, first + depth)
    if not isinstance(text, str) or not re.fullmatch(r"\s*\d{1,9}(\s*,\s*\d{1,9})*\s*", text):
        raise table.wrong("SourceSectionOrder", "numbers of sections with commas between them, or left out")
    numbers = [int(part) for part in text.split(",")]
    if len(numbers) != depth:
        raise table.wrong("SourceSectionOrder", f"{depth} numbers, as many as TargetDataSizeZ says")
    return numbers


def _check_last(table: _Table, extent: Vec, tile: tuple[int, int], first: Mapping[str, int]) -> None:
    """Refuse last numbers that leave voxels of the stated size without a tile."""
    counts = dict(zip("src", extent.ceil_div(Vec(1, *tile)), strict=True))
    for letter in "rc" if table.values.get("SourceSectionOrder") else "src":
        key, needed = f"SourceMax{letter.upper()}", first[letter] + counts[letter] - 1
        if key in table.values and table.whole(key) < needed:
            raise table.wrong(key, f"at least {needed}, so that the tiles cover TargetDataSize")


def _template(table: _Table, extent: Vec, tile: tuple[int, int]) -> tuple[str, str]:
    """The path with its ``%d``, and the letter of each; backslashes are slashes."""
    template, letters = table.values["SourceFileNameTemplate"], table.values.get("SourceParamSequence")
    if not isinstance(template, str) or "*" in template or "%" in PRINTED.sub("", template):
        raise table.wrong("SourceFileNameTemplate", "a path with %d or %04d for each number, and no *")
    if not isinstance(letters, str) or set(letters) - set("src") or len(letters) != len(PRINTED.findall(template)):
        raise table.wrong("SourceParamSequence", f"a letter s, r or c for each %d of {template!r}")
    several = zip("src", extent, (1, *tile), strict=True)
    if missing := [letter for letter, side, length in several if side > length and letter not in letters]:
        raise table.wrong("SourceParamSequence", f"of letters with {missing[0]} among them: there are several of it")
    return template.replace("\\", "/"), letters


def _with_place(table: _Table) -> Mapping[str, Any]:
    """The size of a voxel and the offset under petaseg's names, unless the file has these itself."""
    values = table.values
    size = [values.get(f"TargetVoxelSize{axis}nm") for axis in "ZYX"]
    offset = [values.get(f"Offset{axis}", 0) for axis in "ZYX"]
    stated = {"offset": offset} if None in size else {"offset": offset, "resolution_nm": size}
    return {**stated, **values}
