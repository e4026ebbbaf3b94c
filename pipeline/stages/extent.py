"""The extent of a stage: where its chunks store something; what is stored elsewhere is stray and is removed.

A run with another region of interest, or another chunk shape, leaves strays in the run directory.

    <run>/ledger/<stage>/extent.json    the layout to which the stored products of the stage were confined last

1. the ledger begins a log under the new fingerprint, so that no old mark counts
2. strays are removed: parts of other chunks, and voxels outside of the region of interest
3. the layout is recorded; a driver that dies before that leaves the second step to the next one
4. the first chunk is computed
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pipeline.errors import LedgerError
from pipeline.formats import EXTENT
from pipeline.geometry import BoundingBox, Vec
from pipeline.grid import ChunkGrid
from pipeline.stages import opened
from pipeline.stages.layout import Layout
from pipeline.storage import ObjectStore
from pipeline.volumes.levels import StoredLevel
from pipeline.volumes.outside import remove_outside, stored_outside

NAME = re.compile(r"(?:L(\d+)_)?(\d+)_(\d+)_(\d+)")
"""The name of a chunk: ``Chunk.name``."""


@dataclass(frozen=True)
class Region:
    """The voxels of a volume that a stage writes."""

    volume: str
    """Its name."""
    box: BoundingBox
    level: StoredLevel | None = None
    """The level that is written, whose voxels ``box`` counts; ``None`` for the volume itself."""


@dataclass(frozen=True)
class Extent:
    """The objects that the chunks of a stage may store."""

    layout: Layout
    stage: str
    regions: tuple[Region, ...]
    """What the stage writes of volumes."""
    grids: Sequence[ChunkGrid]
    """The grids whose chunks may have a part."""

    def strays(self) -> Iterator[str]:
        """The keys, within the run directory, of what is stored elsewhere."""
        yield from self._stray_parts()
        for region in self.regions:
            for key in stored_outside(self.layout.volume_url(region.volume), region.box, region.level):
                yield f"{region.volume}.zarr/{key}"

    def confine(self, may_write: Callable[[], None]) -> None:
        """Remove all strays and record that; may be repeated. ``may_write`` is asked before each change."""
        for key in self._stray_parts():
            may_write()
            self._store.delete(key)
        for region in self.regions:
            remove_outside(self.layout.volume_url(region.volume), region.box, may_write, region.level)
        may_write()
        record = {**EXTENT.stamp, "layout": self.layout.fingerprint}
        self._store.put(extent_key(self.stage), json.dumps(record).encode())

    @property
    def is_confined(self) -> bool:
        """True if strays were removed under this layout, and nothing was stored under another one since."""
        return recorded_layout(self._store, self.stage) == self.layout.fingerprint

    @property
    def _store(self) -> ObjectStore:
        return opened.store(self.layout.home(self.stage))

    def _stray_parts(self) -> Iterator[str]:
        grids = {grid.level: grid for grid in self.grids}
        folder = f"parts/{self.stage}/"
        for key in self._store.list(folder):
            found = NAME.fullmatch(key.removeprefix(folder))
            if found and not _has(grids.get(int(found[1] or 0)), Vec(*map(int, found.groups()[1:]))):
                yield key


def extent_key(stage: str) -> str:
    """The key of a stage's record in a run directory."""
    return f"ledger/{stage}/extent.json"


def recorded_layout(store: ObjectStore, stage: str) -> str | None:
    """The fingerprint of the layout to which a stage was confined last; ``None`` if it is not known.

    Raises ``LedgerError`` if a newer petaseg has written the record.
    """
    key = extent_key(stage)
    try:
        record = json.loads(store.get_or_none(key) or b"{}")
        EXTENT.check(record, f"{store.url}/{key}", LedgerError)
    except (ValueError, TypeError):  # damaged: strays are looked for again
        return None
    layout = record.get("layout")
    return layout if isinstance(layout, str) else None


def _has(grid: ChunkGrid | None, index: Vec) -> bool:
    return grid is not None and grid.first.at_most(index) and index.below(grid.first + grid.counts)
