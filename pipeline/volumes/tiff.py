"""TIFF images, read-only: a multi-page file, or a folder with one file for each section in the order of their numbers.

The voxel size comes from OME or ImageJ metadata, else from the URL: ``stack/#resolution=50,4.6,4.6``. A box is read
section by section; of uncompressed sections, only the needed rows are read.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import tifffile

from pipeline.errors import VolumeError
from pipeline.geometry import BoundingBox, Vec
from pipeline.storage import local_path
from pipeline.volumes.base import Mode, VolumeSpec
from pipeline.volumes.checked import CheckedVolume
from pipeline.volumes.formats import VOLUMES
from pipeline.volumes.location import Location
from pipeline.volumes.placement import Resolution, Stated, placement, refuse_writing
from pipeline.volumes.tiff_metadata import voxel_size_nm

NUMBER = re.compile(r"(\d+)")
SHOWN = 10
"""How many file names or numbers a message lists."""


@dataclass(frozen=True)
class Page:
    """One section: its file and page, its shape and its type."""

    path: Path
    index: int
    shape: tuple[int, ...]
    dtype: np.dtype


class TiffVolume(CheckedVolume):
    """Sections of equal shape and type, stacked along z."""

    def __init__(self, url: str, spec: VolumeSpec, pages: list[Page]) -> None:
        super().__init__(url, spec)
        self._pages = pages

    @classmethod
    def open(cls, location: Location, mode: Mode) -> TiffVolume:
        """Look at every section's header; refuse mixed shapes and types, missing numbers and colour images."""
        refuse_writing(location, mode)
        files = _files(location)
        pages = [page for path in files for page in _pages(location, path)]
        if len(files) > 1 and len(pages) != len(files):
            raise VolumeError(
                f"{location.url} holds files of several pages; a folder has one section in each file: "
                "open multi-page files one by one"
            )
        _refuse_mixed(location, pages)
        resolution, bounds = placement(
            location, Stated(lambda: _voxel_size(files[0])), Vec(len(pages), *pages[0].shape)
        )
        spec = VolumeSpec(bounds, resolution, pages[0].dtype.newbyteorder("="))
        return cls(location.url, spec, pages)

    def _load(self, box: BoundingBox) -> np.ndarray:
        result = np.empty(box.shape, self.spec.dtype)
        sections, rows, columns = box.slices(self.spec.bounds.start)
        for section, image in zip(result, _images(self._pages[sections]), strict=True):
            section[...] = image[rows, columns]
        return result


def natural_key(name: str) -> list[tuple[int, int | str]]:
    """Sort key that puts ``z9`` before ``z10``."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in NUMBER.split(name)]


def missing_numbers(names: Iterable[str]) -> list[int]:
    """Section numbers that a sequence of file names leaves out; its step is the smallest that occurs.

    A section's number is the last number in its name that differs between names.
    """
    numbers = [[int(part) for part in NUMBER.findall(name)] for name in names]
    columns = list(zip(*numbers, strict=False))
    counting = [sorted(set(column)) for column in columns if len(set(column)) > 1]
    if not counting:
        return []
    found = counting[-1]
    step = min(b - a for a, b in pairwise(found))
    return sorted(set(range(found[0], found[-1] + 1, step)) - set(found))


def _files(location: Location) -> list[Path]:
    path = local_path(location.base)
    if path is None or not path.exists():
        raise VolumeError(f"{location.url} does not exist on this machine; TIFF is read from local files")
    if path.is_file():
        return [path]
    is_image = VOLUMES["tiff"].holds
    names = sorted((p.name for p in path.iterdir() if is_image(p.name) and p.name[0] != "."), key=natural_key)
    if missing := missing_numbers(names):
        shown = ", ".join(map(str, missing[:SHOWN])) + (" ..." if len(missing) > SHOWN else "")
        raise VolumeError(
            f"{location.url} lacks {len(missing)} of its numbered sections: {shown}; "
            "bring them, or put a copy of a neighbour or a black image in their places"
        )
    return [path / name for name in names]


def _pages(location: Location, path: Path) -> list[Page]:
    try:
        with tifffile.TiffFile(path) as file:
            series = file.series[0]
            _refuse_axes(path, {axis: side for axis, side in zip(series.axes, series.shape, strict=True) if side > 1})
            _refuse_compression(path, file.pages.first.compression)
            if len(file.pages) == 1 and series.ndim > 2:  # ImageJ: one header for a large stack
                shape = series.shape[-2:]
                return [Page(path, index, shape, series.dtype) for index in range(series.size // (shape[0] * shape[1]))]
            return [Page(path, index, page.shape, page.dtype) for index, page in enumerate(file.pages)]  # type: ignore[arg-type]
    except (tifffile.TiffFileError, ValueError, IndexError) as error:
        raise VolumeError(f"{path} cannot be opened as TIFF ({error}); is it complete?") from error


def _refuse_axes(path: Path, sides: dict[str, int]) -> None:
    """Refuse channels, and more than one axis beside y and x; a single other axis is read as z."""
    others = set(sides) - {"Y", "X"}
    if len(others) > 1 or others & {"C", "S"}:
        raise VolumeError(
            f"{path} has axes {sides}; only z, y and x may be there: split channels and times, or make it grey"
        )


def _refuse_compression(path: Path, compression: int) -> None:
    if compression not in tifffile.TIFF.DECOMPRESSORS:
        name = tifffile.COMPRESSION(compression).name
        raise VolumeError(f"{path} is compressed with {name}; run pip install imagecodecs, or store it uncompressed")


def _refuse_mixed(location: Location, pages: list[Page]) -> None:
    kinds = Counter((page.shape, str(page.dtype)) for page in pages)
    if len(kinds) > 1:
        usual = kinds.most_common(1)[0][0]
        odd = [f"{p.path.name} page {p.index}: {p.shape} {p.dtype}" for p in pages if (p.shape, str(p.dtype)) != usual]
        raise VolumeError(
            f"{location.url} has sections of {usual[0]} {usual[1]}, but {len(odd)} differ: {'; '.join(odd[:SHOWN])}; "
            "crop, pad or convert them first"
        )


def _voxel_size(path: Path) -> Resolution | None:
    with tifffile.TiffFile(path) as file:
        return voxel_size_nm(str(path), file)


def _images(pages: list[Page]) -> Iterator[np.ndarray]:
    """The sections one after the other, (y, x); a file is opened once for all its pages in a row."""
    for path in dict.fromkeys(page.path for page in pages):
        with tifffile.TiffFile(path) as file:
            for page in (page for page in pages if page.path == path):
                yield _image(file, page)


def _image(file: tifffile.TiffFile, page: Page) -> np.ndarray:
    if len(file.pages) == 1 and page.index > 0:
        stack = file.series[0].asarray(out="memmap")
        return stack.reshape(-1, *page.shape)[page.index]
    found = file.pages[page.index]
    return found.asarray(out="memmap" if found.is_memmappable else None)
