"""Tile sets are read tile by tile; what their description leaves open is refused, and nothing is black unasked."""

from __future__ import annotations

import json
from contextlib import suppress
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.errors import ConfigError, CorruptError, PetasegError, StorageError, VolumeError
from pipeline.geometry import BoundingBox
from pipeline.volumes import open_volume, tiles
from pipeline.volumes.ingest import ingest
from tests.volumes.test_hostile_metadata import VALUES, broken

BRIEF = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
DATA = np.random.default_rng(0).integers(1, 256, (3, 10, 13), "uint8")
GOOD: dict[str, Any] = {
    "ndim": 1,
    "dtype": "uint8",
    "image": [f"{number}/{{row}}_{{column}}.png" for number in range(3)],
    "height": 10,
    "width": 13,
    "depth": 3,
    "n_rows": 3,
    "n_columns": 4,
    "tile_size": 4,
    "tile_st": [0, 0],
    "tile_ratio": 1,
    "resolution_nm": [40, 8, 8],
}
VSVI: dict[str, Any] = {
    "Comment": "made up",
    "ServerType": "imagetiles",
    "SourceFileNameTemplate": ".\\%d\\%d_%d.png",
    "SourceParamSequence": "src",
    "SourceMinS": 0,
    "SourceMaxS": 2,
    "SourceMinR": 0,
    "SourceMaxR": 2,
    "SourceMinC": 0,
    "SourceMaxC": 3,
    "SourceTileSizeX": 4,
    "SourceTileSizeY": 4,
    "SourceBytesPerPixel": 1,
    "MissingImagePolicy": "nearest",
    "TargetDataSizeX": 13,
    "TargetDataSizeY": 10,
    "TargetDataSizeZ": 3,
    "OffsetX": 0,
    "OffsetY": 0,
    "OffsetZ": 0,
    "OffsetMip": 0,
    "TargetVoxelSizeXnm": 8.0,
    "TargetVoxelSizeYnm": 8.0,
    "TargetVoxelSizeZnm": 40.0,
}


def put_tiles(
    folder: Path, data: np.ndarray = DATA, size: tuple[int, int] = (4, 4), first: tuple[int, int] = (0, 0)
) -> None:
    """Write ``<section>/<row>_<column>.png``."""
    for number, section in enumerate(data):
        (folder / str(number)).mkdir(parents=True, exist_ok=True)
        for row, column in product(*(range(-(-a // b)) for a, b in zip(section.shape[:2], size, strict=True))):
            tile = section[row * size[0] : (row + 1) * size[0], column * size[1] : (column + 1) * size[1]]
            name = f"{number}/{row + first[0]}_{column + first[1]}.png"
            Image.fromarray(np.ascontiguousarray(tile)).save(folder / name)


def described(folder: Path, changes: dict[str, Any] | None = None, of: dict[str, Any] = GOOD) -> str:
    name = "tiles.json" if of is GOOD else "stack.vsvi"
    (folder / name).write_text(json.dumps({**of, **(changes or {})}))
    return f"{folder}/{name}"


def everything(url: str) -> np.ndarray:
    volume = open_volume(url)
    return volume.read(volume.bounds)


@BRIEF
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)),
    size=st.tuples(st.integers(1, 10), st.integers(1, 10)),
    first=st.tuples(st.integers(-2, 12), st.integers(0, 12)),
    kind=st.sampled_from(["uint8", "uint16", "colour"]),
    corners=st.tuples(*[st.floats(0, 1)] * 6),
)
def test_tiles_of_any_size_make_the_volume(
    shape: tuple[int, int, int], size: tuple[int, int], first: tuple[int, int], kind: str, corners: tuple[float, ...]
) -> None:
    """Any box of a tile set has the voxels of the image that was cut into tiles."""
    colour = kind == "colour"
    dtype = "uint8" if colour else kind
    whole = (*shape, 3) if colour else shape
    data = np.random.default_rng(0).integers(1, np.iinfo(dtype).max, whole, dtype)
    changes = {
        "ndim": 3 if colour else 1,
        "dtype": dtype,
        "image": [f"{number}/{{row}}_{{column}}.png" for number in range(shape[0])],
        **dict(zip(("depth", "height", "width"), shape, strict=True)),
        "n_rows": -(-shape[1] // size[0]),
        "n_columns": -(-shape[2] // size[1]),
        "tile_size": list(size),
        "tile_st": list(first),
        "offset": [5, -3, 7],
    }
    with TemporaryDirectory() as folder:
        put_tiles(Path(folder), data, size, first)
        volume = open_volume(described(Path(folder), changes))
        ends = [sorted((round(a * n), round(b * n))) for a, b, n in zip(corners[:3], corners[3:], shape, strict=True)]
        box = BoundingBox(tuple(a for a, _ in ends), tuple(b for _, b in ends)).translate((5, -3, 7))  # type: ignore[arg-type]
        expected = np.moveaxis(data, -1, 0) if colour else data
        assert (volume.shape, volume.bounds.start) == (expected.shape, (5, -3, 7))
        assert (volume.read(box) == expected[(..., *box.slices((5, -3, 7)))]).all()


def test_a_box_reads_only_the_tiles_that_it_touches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_tiles(tmp_path)
    volume, read = open_volume(described(tmp_path)), []
    whole = tiles._pixels
    monkeypatch.setattr(tiles, "_pixels", lambda path: read.append(f"{path.parent.name}/{path.stem}") or whole(path))
    assert (volume.read(BoundingBox((1, 3, 8), (2, 5, 12))) == DATA[1:2, 3:5, 8:12]).all()
    assert sorted(read) == ["1/0_2", "1/1_2"]


def test_descriptions_of_vast_are_read(tmp_path: Path) -> None:
    """Backslashes, a letter that comes twice, leading zeros, first numbers, an offset and an order of sections."""
    for number, section in enumerate(DATA):
        for row, column in product(range(3), range(4)):
            path = tmp_path / "mip0" / f"slice{number + 7:04d}" / f"{number + 7:04d}_tr{row + 1}-tc{column + 1}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(section[row * 4 : row * 4 + 4, column * 4 : column * 4 + 4].copy()).save(path)
    names = {"SourceFileNameTemplate": ".\\mip0\\slice%04d\\%04d_tr%d-tc%d.png", "SourceParamSequence": "ssrc"}
    numbers = {"SourceMinS": 7, "SourceMaxS": 9, "SourceMinR": 1, "SourceMaxR": 3, "SourceMinC": 1, "SourceMaxC": 4}
    volume = open_volume(described(tmp_path, {**names, **numbers, "OffsetZ": 7}, VSVI))
    assert (volume.resolution_nm, volume.bounds.start) == ((40.0, 8.0, 8.0), (7, 0, 0))
    assert (volume.read(volume.bounds) == DATA).all()
    backwards = described(tmp_path, {**names, **numbers, "SourceSectionOrder": "9, 8,7"}, VSVI)
    assert (everything(backwards) == DATA[::-1]).all()


def test_one_image_for_each_section_is_a_tile_set(tmp_path: Path) -> None:
    """A path without row and column names the whole section."""
    put_tiles(tmp_path, size=(100, 100))
    whole = {"image": [f"{number}/0_0.png" for number in range(3)], "n_rows": 1, "n_columns": 1, "tile_size": 100}
    assert (everything(described(tmp_path, whole)) == DATA).all()


def test_missing_tiles_are_refused_until_somebody_says_that_they_are_black(tmp_path: Path) -> None:
    put_tiles(tmp_path)
    url = described(tmp_path)
    for name in ("1/0_0.png", "2/2_3.png"):
        (tmp_path / name).unlink()
    with pytest.raises(VolumeError, match=r"lacks 2 of its tiles: .*1/0_0.png, .*2/2_3.png; .*#missing=black"):
        open_volume(url)
    expected = DATA.copy()
    expected[1, :4, :4] = expected[2, 8:, 12:] = 0
    assert (everything(f"{url}#missing=black") == expected).all()
    with pytest.raises(ConfigError, match="missing is 'white'; it is refuse or black"):
        open_volume(f"{url}#missing=white")


def test_a_tile_set_without_any_tile_is_never_black(tmp_path: Path) -> None:
    """A disk that is not mounted is no black volume."""
    for options in ("", "#missing=black"):
        with pytest.raises(VolumeError, match="lists 36 tiles, and none of them is there"):
            open_volume(described(tmp_path) + options)


def test_a_tile_that_vanishes_or_is_damaged_later_is_an_error(tmp_path: Path) -> None:
    put_tiles(tmp_path)
    volume = open_volume(f"{described(tmp_path)}#missing=black")
    victim = tmp_path / "2" / "1_1.png"
    victim.write_bytes(victim.read_bytes()[:-30])
    with pytest.raises((CorruptError, VolumeError), match=r"damaged|cannot be opened"):
        volume.read(volume.bounds)
    victim.unlink()
    with pytest.raises(StorageError, match=r"1_1\.png"):
        volume.read(volume.bounds)


def test_colours_of_labels_are_numbers(tmp_path: Path) -> None:
    """VAST stores a label as red x 65536 + green x 256 + blue; grey tiles of labels are widened."""
    labels = np.random.default_rng(1).integers(0, 2**24, (3, 10, 13), "uint32")
    colours = np.stack([labels >> 16, labels >> 8 & 255, labels & 255], -1).astype("uint8")
    put_tiles(tmp_path, colours)
    assert (everything(described(tmp_path, {"dtype": "uint32"})) == labels).all()
    assert (everything(described(tmp_path, {"SourceBytesPerPixel": 3, "dtype": "uint32"}, VSVI)) == labels).all()
    assert (everything(described(tmp_path, {"SourceBytesPerPixel": 3}, VSVI)) == np.moveaxis(colours, -1, 0)).all()
    put_tiles(tmp_path)
    assert everything(described(tmp_path, {"dtype": "uint64"})).tolist() == DATA.tolist()


def test_tiles_may_be_tiff_and_the_last_ones_larger(tmp_path: Path) -> None:
    """What a tile at the end holds beyond the volume is padding of the program that wrote it."""
    padded = np.pad(DATA, ((0, 0), (0, 2), (0, 3)))
    for number, row, column in product(range(3), range(3), range(4)):
        (tmp_path / str(number)).mkdir(exist_ok=True)
        tile = padded[number, row * 4 : row * 4 + 4, column * 4 : column * 4 + 4]
        tifffile.imwrite(tmp_path / f"{number}/{row}_{column}.tif", tile, photometric="minisblack")
    url = described(tmp_path, {"image": [f"{number}/{{row}}_{{column}}.tif" for number in range(3)]})
    assert (everything(url) == DATA).all()
    tifffile.imwrite(tmp_path / "0/0_0.tif", padded[:2, :4, :4], photometric="minisblack")
    with pytest.raises(VolumeError, match=r"0_0\.tif has 2 pages; a tile is a file of one"):
        everything(url)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depth": 4}, "image lists 3 sections, and depth is 4"),
        ({"image": "a.png"}, "image is 'a.png'; it must be a list of paths"),
        ({"image": ["0.png", "1.png", "2.png"]}, r"has no \{column\}, and there are several columns"),
        ({"height": 0}, "height is 0; it must be a whole number of at least 1"),
        ({"width": "13"}, "width is '13'; it must be a whole number"),
        ({"tile_size": 4.5}, "tile_size is 4.5; it must be a whole number of voxels, or two"),
        ({"tile_ratio": 0.5}, "tile_ratio is 0.5; it must be 1, since tiles are read as they are stored"),
        ({"tile_st": 1}, "tile_st is 1; it must be two whole numbers"),
        ({"n_rows": 4}, "n_rows is 4; it must be 3, the tiles of 4 voxels along 10"),
        ({"ndim": 2}, r"ndim is 2; it must be 1 \(grey\) or 3"),
        ({"ndim": 3}, r"0_0.png has grey of uint8; .* 3 channel\(s\) of uint8"),
        ({"dtype": "float32"}, "dtype is 'float32'; it must be one of uint8"),
        ({"dtype": "uint16"}, r"0_0.png has grey of uint8; .* 1 channel\(s\) of uint16"),
        ({"tile_size": 5, "n_rows": 2, "n_columns": 3}, "has 4 x 4 pixels; at its place .* there must be 5 x 5"),
        ({"resolution_nm": [8, 8]}, "resolution_nm = .*#resolution=z,y,x"),
        ({"resolution_nm": None}, "does not say how large its voxels are"),
        ({"height": 2**30, "n_rows": 2**28}, "at most 100,000,000 are read"),
    ],
)
def test_wrong_values_are_named_with_their_rule(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    put_tiles(tmp_path)
    with pytest.raises(VolumeError, match=message):
        open_volume(described(tmp_path, changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"SourceFileNameTemplate": "*/%d/%d_%d.png"}, r"a path with %d or %04d for each number, and no \*"),
        ({"SourceFileNameTemplate": "%d/%s_%d.png"}, "SourceFileNameTemplate is '%d/%s_%d.png'"),
        ({"SourceParamSequence": "sr"}, "SourceParamSequence is 'sr'; it must be a letter s, r or c for each %d"),
        ({"SourceParamSequence": "srr"}, "of letters with c among them"),
        ({"SourceMaxC": 2}, "SourceMaxC is 2; it must be at least 3, so that the tiles cover TargetDataSize"),
        ({"SourceSectionOrder": "1-3"}, "SourceSectionOrder is '1-3'; it must be numbers of sections with commas"),
        ({"SourceSectionOrder": "1,2"}, "it must be 3 numbers, as many as TargetDataSizeZ says"),
        ({"OffsetMip": 1}, "OffsetMip is 1; it must be 0"),
        ({"SourceBytesPerPixel": 2}, "SourceBytesPerPixel is 2"),
        ({"TargetVoxelSizeXnm": None}, "does not say how large its voxels are"),
    ],
)
def test_wrong_values_of_vast_are_named_with_their_rule(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    put_tiles(tmp_path)
    assert (everything(described(tmp_path, {}, VSVI)) == DATA).all()
    with pytest.raises(VolumeError, match=message):
        open_volume(described(tmp_path, changes, VSVI))


@pytest.mark.parametrize("text", ["", "[]", "3", "null", "{}", '{"nodes": []}', "[" * 100_000, "\x00"])
def test_other_json_files_are_no_tile_sets(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(VolumeError, match=r"describes no tiles|is no JSON"):
        open_volume(f"{tmp_path}/a.json")


@BRIEF
@given(st.data(), st.sampled_from([GOOD, VSVI]))
def test_descriptions_of_any_form_are_understood_or_refused(data: st.DataObject, of: dict[str, Any]) -> None:
    """One value that is anything else gives a volume, or petaseg's own error."""
    key = data.draw(st.sampled_from(sorted(of)))
    value = data.draw(VALUES) if data.draw(st.booleans()) else broken(of[key], data.draw)
    with TemporaryDirectory() as folder:
        put_tiles(Path(folder))
        url = described(Path(folder), {}, of)
        Path(url).write_text(json.dumps({**of, key: value}))
        with suppress(PetasegError):
            everything(url)


def test_a_tile_set_is_ingested(tmp_path: Path) -> None:
    put_tiles(tmp_path)
    report = ingest(described(tmp_path), f"{tmp_path}/image.zarr")
    assert (everything(f"{tmp_path}/image.zarr") == DATA).all()
    assert report.spec.resolution_nm == (40.0, 8.0, 8.0)
