"""What all stacks of image files share: the files of a folder in their order, and the refusal of unequal sections."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.errors import VolumeError
from pipeline.storage import local_path
from pipeline.volumes.formats import entry_of
from pipeline.volumes.location import Location
from pipeline.volumes.stack_names import SHOWN, in_order

COLOURS = 3
"""Channels of a colour image: red, green, blue."""


@dataclass(frozen=True)
class Kind:
    """What all sections of a stack have in common."""

    shape: tuple[int, ...]
    """Rows and columns (y, x)."""
    dtype: np.dtype
    channels: int | None = None
    """3 for red, green, blue; ``None`` for grey."""

    def __str__(self) -> str:
        return f"{self.shape} {self.dtype}{' in colour' if self.channels else ''}"


def files_of(location: Location, name: str) -> list[Path]:
    """The file, or the files of a folder in the order of their sections; ``name`` is their format.

    Raises ``VolumeError`` if there is nothing, or if names or numbers leave a choice.
    """
    path = local_path(location.base)
    if path is None or not path.exists():
        raise VolumeError(
            f"{location.url} does not exist on this machine; image files are read from local disks: correct the path, "
            "or copy them first"
        )
    if path.is_file():
        return [path]
    holds = entry_of(name).holds
    return [
        path / each
        for each in in_order(location, (p.name for p in path.iterdir() if holds(p.name) and p.name[0] != "."))
    ]


def common_kind(url: str, sections: Sequence[tuple[str, Kind]]) -> Kind:
    """The kind of all sections, given with their names; ``VolumeError`` if they differ."""
    kinds = Counter(kind for _, kind in sections)
    usual = kinds.most_common(1)[0][0]
    odd = [f"{name}: {kind}" for name, kind in sections if kind != usual]
    if odd:
        raise VolumeError(
            f"{url} has sections of {usual}, but {len(odd)} differ: {'; '.join(odd[:SHOWN])}; "
            "crop, pad or convert them first"
        )
    return usual
