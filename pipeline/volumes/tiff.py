"""TIFF images, read-only: a multi-page file, or a folder with one file for each section in the order of their numbers.

Sections are grey, or of red, green and blue, which are three channels. The voxel size comes from OME or ImageJ
metadata, else from the URL: ``stack/#resolution=50,4.6,4.6``. A box is read section by section; of uncompressed
sections, only the needed rows are read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from pipeline.errors import PetasegError, VolumeError
from pipeline.geometry import BoundingBox, Vec
from pipeline.storage import as_storage_error
from pipeline.volumes.base import Mode, VolumeSpec
from pipeline.volumes.checked import CheckedVolume
from pipeline.volumes.location import Location
from pipeline.volumes.placement import Resolution, Stated, placement, refuse_writing
from pipeline.volumes.stacks import COLOURS, Kind, common_kind, files_of
from pipeline.volumes.tiff_metadata import voxel_size_nm

PLAIN = ("generic", "uniform")
"""What tifffile calls files without metadata that tells images apart: every page is a section."""
EASY_BITS = (1, 8, 16, 32, 64)
"""Bits of a voxel that are read without another package; one bit is 0 or 1."""


@dataclass(frozen=True)
class Page:
    """One section: its file and page, and how its voxels are stored."""

    path: Path
    index: int
    shape: tuple[int, ...]
    """(y, x), or with the colours, S: (y, x, 3) or (3, y, x)."""
    dtype: np.dtype
    axes: str = "YX"

    @property
    def kind(self) -> Kind:
        """Rows and columns, type, and colours."""
        shape = tuple(side for axis, side in zip(self.axes, self.shape, strict=True) if axis != "S")
        return Kind(shape, self.dtype.newbyteorder("="), COLOURS if "S" in self.axes else None)

    def channels_first(self, stored: np.ndarray) -> np.ndarray:
        """The stored array as (y, x) or (3, y, x)."""
        return np.moveaxis(stored, self.axes.index("S"), 0) if "S" in self.axes else stored


class TiffVolume(CheckedVolume):
    """Sections of equal shape and type, stacked along z."""

    def __init__(self, url: str, spec: VolumeSpec, pages: list[Page]) -> None:
        super().__init__(url, spec)
        self._pages = pages

    @classmethod
    def open(cls, location: Location, mode: Mode) -> TiffVolume:
        """Look at every section's header; refuse mixed shapes and types, and missing numbers."""
        refuse_writing(location, mode)
        files = files_of(location, "tiff")
        pages = [page for path in files for page in pages_of(path)]
        if len(files) > 1 and len(pages) != len(files):
            raise VolumeError(
                f"{location.url} holds files of several pages; a folder has one section in each file: "
                "open multi-page files one by one"
            )
        kind = common_kind(location.url, [(f"{page.path.name} page {page.index}", page.kind) for page in pages])
        stated = Stated(lambda: _voxel_size(location, files))
        resolution, bounds = placement(location, stated, Vec(len(pages), *kind.shape))
        return cls(location.url, VolumeSpec(bounds, resolution, kind.dtype, kind.channels), pages)

    def _load(self, box: BoundingBox) -> np.ndarray:
        result = np.empty(self.spec.array_shape(box), self.spec.dtype)
        sections, rows, columns = box.slices(self.spec.bounds.start)
        for place, image in enumerate(images_of(self._pages[sections])):
            result[..., place, :, :] = image[..., rows, columns]
        return result


def pages_of(path: Path) -> list[Page]:
    """The sections of a file, in the order that its metadata states."""
    try:
        with tifffile.TiffFile(path) as file:
            _refuse_cut(path, file)
            series = file.series[0]
            _refuse_other_series(path, file)
            for page in _sections(file):
                _refuse_page(path, page)
            _refuse_axes(path, {axis: side for axis, side in zip(series.axes, series.shape, strict=True) if side > 1})
            if len(file.pages) == 1 and series.ndim > file.pages.first.ndim:  # ImageJ: one header for a large stack
                only = file.pages.first
                count = series.size // only.size
                return [Page(path, index, only.shape, series.dtype, only.axes) for index in range(count)]
            return [Page(_file_of(page), page.index, page.shape, page.dtype, page.axes) for page in _sections(file)]
    except (PetasegError, MemoryError):
        raise
    except OSError as error:
        if path.is_symlink() and not path.exists():
            raise VolumeError(f"{path} is a link to {path.readlink()}, which is not there; bring that file") from error
        raise as_storage_error(error, "read", str(path)) from error
    except Exception as error:  # wrong tags can raise any error
        raise VolumeError(
            f"{path} cannot be opened as TIFF ({type(error).__name__}: {error}); is it complete?"
        ) from error


def _sections(file: tifffile.TiffFile) -> list[Any]:
    """The pages of the stack: all, unless metadata of OME or another kind says which follow each other."""
    series = file.series[0]
    return list(file.pages) if series.kind in PLAIN else list(series.pages)


def _file_of(page: Any) -> Path:
    """An OME-TIFF may keep pages in files beside it."""
    return Path(page.parent.filehandle.path)


def _refuse_cut(path: Path, file: tifffile.TiffFile) -> None:
    """Refuse a file whose pages or voxels go on behind its end: tifffile leaves them out, or fails far later."""
    last, handle, place = file.pages[len(file.pages) - 1], file.filehandle, file.pages.next_page_offset
    if place is not None:
        handle.seek(place)
    follows = place is not None and any(handle.read(file.tiff.offsetsize))
    ends = max((o + n for o, n in zip(last.dataoffsets, last.databytecounts, strict=True)), default=0)
    if follows or ends > handle.size:
        raise VolumeError(
            f"{path} says that it goes on behind its end, at {handle.size:,} bytes; it was cut off, in a copy or while "
            "it was written: bring the whole file"
        )


def _refuse_other_series(path: Path, file: tifffile.TiffFile) -> None:
    """Refuse a file whose metadata tells several images apart; nothing says which one is meant."""
    if len(file.series) > 1 and any(series.kind not in PLAIN for series in file.series):
        images = ", ".join(f"{series.name or number} {series.shape}" for number, series in enumerate(file.series))
        raise VolumeError(f"{path} holds {len(file.series)} images: {images}; write the one that is meant to a file")


def _refuse_axes(path: Path, sides: dict[str, int]) -> None:
    """Refuse channels, and more than one axis beside y, x and the colours; a single other axis is read as z."""
    others = set(sides) - {"Y", "X", "S"}
    if len(others) > 1 or "C" in others:
        raise VolumeError(
            f"{path} has axes {sides}; only z, y, x and colours (S) may be there: split channels and times"
        )


def _refuse_page(path: Path, page: Any) -> None:
    """Refuse a section that is missing, or stored in a way that cannot be read here."""
    if page is None:
        raise VolumeError(f"{path} says that it has sections that are not in it; bring the files that belong to it")
    page = page.keyframe  # sections with the same tags as another one have only a place of their own
    if max(page.imagedepth, page.tiledepth) > 1:
        raise VolumeError(
            f"{path} stores {page.imagedepth} sections in three-dimensional tiles (ImageDepth); only sections of their "
            "own are read: save it as a stack of pages, for example with Fiji"
        )
    if page.samplesperpixel > 1 and (page.samplesperpixel, page.photometric) != (COLOURS, tifffile.PHOTOMETRIC.RGB):
        raise VolumeError(
            f"{path} has {page.samplesperpixel} values a pixel ({_photometric(page.photometric)}); one (grey) and "
            "three (red, green, blue) are read: leave out transparency, or make it grey"
        )
    if (corner := page.tags.valueof("Orientation", 1)) != 1:
        raise VolumeError(
            f"{path} says that its first row is not at the top or its first column not on the left (Orientation "
            f"{corner}), which most programs ignore; turn the sections as they shall be, and save them with "
            "Orientation 1, which `tiffset -s 274 1 FILE` writes alone"
        )
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        raise VolumeError(
            f"{path} stores white as 0 (MinIsWhite), so its values are those of a negative; save it with black as 0, "
            "for example with Fiji (Edit > Invert, then Image > Lookup Tables > Grays)"
        )
    if page.colormap is not None and not _is_grey(page.colormap):
        raise VolumeError(
            f"{path} has a table of colours, so its values are no brightness; save it as a grey image without one"
        )
    if find_spec("imagecodecs"):
        return
    bits = page.bitspersample
    kind = (
        f"is compressed with {_compression(page.compression)}"
        if not _can_decompress(page.compression)
        else f"has {bits} bits a voxel"
        if bits not in EASY_BITS
        else f"has predictor {page.predictor}"
        if page.predictor not in tifffile.TIFF.UNPREDICTORS
        else None
    )
    if kind:
        raise VolumeError(f"{path} {kind}; run pip install imagecodecs, or store it uncompressed in whole bytes")


def _is_grey(colours: np.ndarray) -> bool:
    """True for a table (3, n) of colours that gives each value a grey of its own, from black to white."""
    return bool((colours == colours[0]).all() and (np.diff(colours[0].astype(int)) > 0).all())


def _can_decompress(code: int) -> bool:
    """True if a compression is known; some that are known need a module of a newer Python."""
    if code not in tifffile.TIFF.DECOMPRESSORS:
        return False
    try:
        tifffile.TIFF.DECOMPRESSORS[code](b"")
    except ImportError:
        return False
    except Exception:  # no bytes are no image: the method itself is there
        return True
    return True


def _compression(code: int) -> str:
    return tifffile.COMPRESSION(code).name if code in set(tifffile.COMPRESSION) else f"method {code}"


def _photometric(code: int) -> str:
    return tifffile.PHOTOMETRIC(code).name if code in set(tifffile.PHOTOMETRIC) else f"kind {code}"


def _voxel_size(location: Location, files: list[Path]) -> Resolution | None:
    """Nanometres as the files state them; ``VolumeError`` if two state different ones."""
    first, known = files[0], _stated_size(files[0])
    for path in files[1:]:
        if (other := _stated_size(path)) != known:
            raise VolumeError(
                f"{location.url} has sections of several voxel sizes: {first.name} states {known}, {path.name} "
                f"{other} nm (z, y, x): give the right one by adding #resolution=z,y,x"
            )
    return known


def _stated_size(path: Path) -> Resolution | None:
    with tifffile.TiffFile(path) as file:
        return voxel_size_nm(str(path), file)


def images_of(pages: list[Page]) -> Iterator[np.ndarray]:
    """The sections one after the other, (y, x) or (3, y, x); a file is opened once for all its pages in a row."""
    for path, group in groupby(pages, lambda page: page.path):
        with tifffile.TiffFile(path) as file:
            for page in group:
                yield page.channels_first(_image(file, page))


def _image(file: tifffile.TiffFile, page: Page) -> np.ndarray:
    if len(file.pages) == 1 and page.index > 0:
        stack = file.series[0].asarray(out="memmap")
        return stack.reshape(-1, *page.shape)[page.index]
    found = file.pages[page.index]
    return found.asarray(out="memmap" if found.is_memmappable else None)
