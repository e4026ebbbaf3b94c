"""TIFF images, read-only: a multi-page file, or a folder with one file for each section in the order of their numbers.

The voxel size comes from OME or ImageJ metadata, else from the URL: ``stack/#resolution=50,4.6,4.6``. A box is read
section by section; of uncompressed sections, only the needed rows are read.
"""

from __future__ import annotations

from collections import Counter
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
from pipeline.storage import as_storage_error, local_path
from pipeline.volumes.base import Mode, VolumeSpec
from pipeline.volumes.checked import CheckedVolume
from pipeline.volumes.formats import VOLUMES
from pipeline.volumes.location import Location
from pipeline.volumes.placement import Resolution, Stated, placement, refuse_writing
from pipeline.volumes.tiff_metadata import voxel_size_nm
from pipeline.volumes.tiff_names import SHOWN, in_order

PLAIN = ("generic", "uniform")
"""What tifffile calls files without metadata that tells images apart: every page is a section."""
WHOLE_BYTES = (8, 16, 32, 64)
"""Bits of a voxel that are read without another package."""


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
        pages = [page for path in files for page in _pages(path)]
        if len(files) > 1 and len(pages) != len(files):
            raise VolumeError(
                f"{location.url} holds files of several pages; a folder has one section in each file: "
                "open multi-page files one by one"
            )
        _refuse_mixed(location, pages)
        resolution, bounds = placement(
            location, Stated(lambda: _voxel_size(location, files)), Vec(len(pages), *pages[0].shape)
        )
        spec = VolumeSpec(bounds, resolution, pages[0].dtype.newbyteorder("="))
        return cls(location.url, spec, pages)

    def _load(self, box: BoundingBox) -> np.ndarray:
        result = np.empty(box.shape, self.spec.dtype)
        sections, rows, columns = box.slices(self.spec.bounds.start)
        for section, image in zip(result, _images(self._pages[sections]), strict=True):
            section[...] = image[rows, columns]
        return result


def _files(location: Location) -> list[Path]:
    path = local_path(location.base)
    if path is None or not path.exists():
        raise VolumeError(f"{location.url} does not exist on this machine; TIFF is read from local files")
    if path.is_file():
        return [path]
    is_image = VOLUMES["tiff"].holds
    return [
        path / name
        for name in in_order(location, (p.name for p in path.iterdir() if is_image(p.name) and p.name[0] != "."))
    ]


def _pages(path: Path) -> list[Page]:
    """The sections of a file, in the order that its metadata states."""
    try:
        with tifffile.TiffFile(path) as file:
            _refuse_cut(path, file)
            series = file.series[0]
            _refuse_other_series(path, file)
            _refuse_axes(path, {axis: side for axis, side in zip(series.axes, series.shape, strict=True) if side > 1})
            for page in _sections(file):
                _refuse_page(path, page)
            if len(file.pages) == 1 and series.ndim > 2:  # ImageJ: one header for a large stack
                shape = series.shape[-2:]
                return [Page(path, index, shape, series.dtype) for index in range(series.size // (shape[0] * shape[1]))]
            return [Page(_file_of(page), page.index, page.shape, page.dtype) for page in _sections(file)]
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
    """Refuse channels, and more than one axis beside y and x; a single other axis is read as z."""
    others = set(sides) - {"Y", "X"}
    if len(others) > 1 or others & {"C", "S"}:
        raise VolumeError(
            f"{path} has axes {sides}; only z, y and x may be there: split channels and times, or make it grey"
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
        if bits not in WHOLE_BYTES
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


def _refuse_mixed(location: Location, pages: list[Page]) -> None:
    kinds = Counter((page.shape, str(page.dtype)) for page in pages)
    if len(kinds) > 1:
        usual = kinds.most_common(1)[0][0]
        odd = [f"{p.path.name} page {p.index}: {p.shape} {p.dtype}" for p in pages if (p.shape, str(p.dtype)) != usual]
        raise VolumeError(
            f"{location.url} has sections of {usual[0]} {usual[1]}, but {len(odd)} differ: {'; '.join(odd[:SHOWN])}; "
            "crop, pad or convert them first"
        )


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


def _images(pages: list[Page]) -> Iterator[np.ndarray]:
    """The sections one after the other, (y, x); a file is opened once for all its pages in a row."""
    for path, group in groupby(pages, lambda page: page.path):
        with tifffile.TiffFile(path) as file:
            for page in group:
                yield _image(file, page)


def _image(file: tifffile.TiffFile, page: Page) -> np.ndarray:
    if len(file.pages) == 1 and page.index > 0:
        stack = file.series[0].asarray(out="memmap")
        return stack.reshape(-1, *page.shape)[page.index]
    found = file.pages[page.index]
    return found.asarray(out="memmap" if found.is_memmappable else None)
