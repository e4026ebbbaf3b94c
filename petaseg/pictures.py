"""Pictures of arrays, for notebooks and files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from petaseg.checks import Array, checked_resolution


@dataclass(frozen=True, repr=False)
class Picture:
    """A picture; a notebook shows it as the value of a cell."""

    png: bytes

    def save(self, path: str | PathLike[str]) -> None:
        """Write the PNG file."""
        Path(path).write_bytes(self.png)

    def _repr_png_(self) -> bytes:
        return self.png

    def __repr__(self) -> str:
        return f"<picture, png of {len(self.png):,} bytes>"


def draw(
    labels: Array,
    *,
    image: Array | None = None,
    affinities: Array | None = None,
    truth: Array | None = None,
    resolution: Sequence[float] = (1, 1, 1),
    title: str = "",
) -> Picture:
    """The middle xy and xz planes of labels, side by side with what else is given.

    A segment has the colour of the true object of which it is the largest part, if truth is given: another colour is an
    error.

    Args:
        labels: ids (z, y, x); 0 has no colour.
        image: uint8 (z, y, x).
        affinities: uint8 (3, z, y, x), drawn as red, green, blue.
        truth: ids (z, y, x); 0 has no colour.
        resolution: nanometres per voxel, z, y, x: the shape of a voxel in the picture.
        title: above the picture.

    Raises ``VolumeError`` if the shapes differ.
    """
    from pipeline.evaluation.plots import comparison_picture

    given = {"segmentation": labels, "image": image, "affinities": affinities, "truth": truth}
    arrays = {name: np.asarray(array) for name, array in given.items() if array is not None}
    size = checked_resolution(resolution)
    with TemporaryDirectory(prefix="petaseg-") as folder:
        path = Path(folder) / "picture.png"
        comparison_picture(path, **arrays, resolution_nm=size, title=title)  # type: ignore[arg-type]
        return Picture(path.read_bytes())
