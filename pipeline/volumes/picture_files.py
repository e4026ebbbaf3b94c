"""PNG and JPEG files: what their headers say, and their pixels.

Read: grey of 1 to 16 bits and colour (red, green, blue) of 8 bits. Refused, each with its remedy: transparency, tables
of colours, 16 bits of colour (which are read as 8), CMYK, turned JPEGs (EXIF) and moving pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from pipeline.errors import VolumeError
from pipeline.storage import as_storage_error
from pipeline.volumes.stacks import COLOURS, Kind

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff"
KINDS: dict[str, tuple[str, int | None]] = {
    "1": ("uint8", None),
    "L": ("uint8", None),
    "I;16": ("uint16", None),
    "RGB": ("uint8", COLOURS),
}
"""Type and channels of the pixels of each mode that is read; bits that are set in mode 1 are 255."""
UPRIGHT = (None, 1)
"""Values of the EXIF orientation of a picture that is not turned."""
ORIENTATION = 0x0112
SIXTEEN_BITS_OF_COLOUR = ("RGB;16", "RGBA;16", "LA;16")
"""Beginnings of what the decoder is told about pixels whose lower bits it would drop."""


@dataclass(frozen=True)
class Picture:
    """A PNG or JPEG file whose header was looked at."""

    path: Path
    kind: Kind

    def pixels(self) -> np.ndarray:
        """The pixels, (y, x) or (3, y, x).

        Raises ``ValueError`` for bytes that cannot be decoded, ``VolumeError`` if the file is another one by now.
        """
        with opened(self.path) as image:
            if _kind(self.path, image) != self.kind:
                raise VolumeError(f"{self.path} was replaced by another picture while it was read; start again")
            array = _decoded(self.path, image)
        return np.moveaxis(array, -1, 0) if self.kind.channels else array


def look_at(path: Path) -> Picture:
    """Read the header of a file; ``VolumeError`` unless its pixels can be read as they are."""
    with opened(path) as image:
        return Picture(path, _kind(path, image))


def opened(path: Path) -> PngImageFile | JpegImageFile:
    """Open a PNG or JPEG file by its first bytes, of whatever size: sections may have more pixels than a photograph."""
    try:
        with path.open("rb") as file:
            begins = file.read(len(PNG))
    except OSError as error:
        raise as_storage_error(error, "read", str(path)) from error
    reader: Any = PngImageFile if begins == PNG else JpegImageFile if begins.startswith(JPEG) else None
    if reader is None:
        raise VolumeError(f"{path} is neither PNG nor JPEG by its first bytes; correct its name, or write it again")
    try:
        return reader(str(path))  # type: ignore[no-any-return]
    except MemoryError:
        raise
    except Exception as error:  # damaged chunks can raise any error
        raise VolumeError(f"{path} cannot be opened ({type(error).__name__}: {error}); is it complete?") from error


def _kind(path: Path, image: Any) -> Kind:
    """The kind of the pixels; ``VolumeError`` if they are not read as they are."""
    if problem := _problem(image):
        raise VolumeError(f"{path} {problem}")
    dtype, channels = KINDS[image.mode]
    return Kind((image.height, image.width), np.dtype(dtype), channels)


def _problem(image: Any) -> str | None:
    """What speaks against a picture, with the remedy; ``None`` if nothing does."""
    if getattr(image, "n_frames", 1) > 1:
        return f"holds {image.n_frames} pictures; only one a file is read: write each to a file of its own"
    if image.mode == "P" or image.palette is not None:
        return (
            "has a table of colours, so its values are no brightness; save it as a grey or colour picture without one "
            f"({_command(image, '-type Grayscale')})"
        )
    if image.mode in ("LA", "RGBA", "La", "RGBa", "PA") or "transparency" in image.info:
        return (
            f"has transparent pixels (mode {image.mode}), which no volume has; save it without them "
            f"({_command(image, '-alpha off')})"
        )
    if any(str(tile.args).startswith(SIXTEEN_BITS_OF_COLOUR) for tile in image.tile):
        return (
            "has 16 bits for each of its colours; colours are read with 8, and grey with 16: save it so "
            f"({_command(image, '-depth 8')}), or as a TIFF"
        )
    if image.mode not in KINDS:
        return (
            f"has pixels of kind {image.mode}; grey and red-green-blue are read: convert it "
            f"({_command(image, '-colorspace sRGB')})"
        )
    if isinstance(image, JpegImageFile) and (turned := image.getexif().get(ORIENTATION)) not in UPRIGHT:
        return (
            f"says that it is to be turned before it is shown (EXIF orientation {turned}); save it upright "
            f"({_command(image, '-auto-orient')})"
        )
    return None


def _command(image: Any, how: str) -> str:
    """A command that writes the picture as it is needed."""
    return f"magick {Path(image.filename).name} {how} new.png"


def _decoded(path: Path, image: Any) -> np.ndarray:
    """The pixels as they are stored, (y, x) or (y, x, 3)."""
    try:
        array = np.asarray(image)
    except OSError as error:
        if error.errno is None:  # the decoder's word for bytes that end too early
            raise ValueError(f"{path}: {error}") from error
        raise
    except SyntaxError as error:  # the decoder's word for a wrong checksum
        raise ValueError(f"{path}: {error}") from error
    return array * np.uint8(255) if array.dtype == bool else array
