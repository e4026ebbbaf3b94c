"""The result and volumes of objects -> which object lies in which neuron, and how much of it.

    <run>/tables/organelles.parquet     a row for each object and neuron that share a voxel

The table is written when all chunks are counted, and deleted before a voxel of the result may change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from pipeline.evaluation.contingency import Contingency
from pipeline.grid import Chunk
from pipeline.shapes.measure_tables import cuts_of, to_parquet
from pipeline.shapes.organelles import COLUMNS, table_of
from pipeline.stages import opened
from pipeline.stages.base import Products
from pipeline.stages.chain_stage import ChainStage
from pipeline.stages.layout import Layout
from pipeline.stages.relabel import Relabel
from pipeline.stages.setup import Organelle, Setup
from pipeline.stages.take_labels import TakeLabels
from pipeline.stages.write_classes import WriteClasses
from pipeline.stages.write_objects import WriteMask, WriteObjects

TABLE = "tables/organelles.parquet"
ROWS = 1 << 20
"""Rows that are added up at once when the table is written."""


@dataclass(frozen=True)
class CountInside(ChainStage):
    """The result of a chunk and the objects there -> how many voxels each pair shares."""

    layout: Layout
    upstream: str
    """Fingerprint of the stage that writes the result."""
    volume: str
    """The volume of the result."""
    organelles: tuple[Organelle, ...]

    name = "count_inside"
    reads = (Relabel.name, WriteObjects.name, WriteMask.name, WriteClasses.name, TakeLabels.name)
    publishes = True

    @classmethod
    def of(cls, setup: Setup, before: Mapping[str, ChainStage]) -> Self | None:
        """The stage of a run whose file has the table ``organelles``."""
        if setup.config.organelles is None or not setup.inputs.organelles:
            return None
        stage = next(before[name] for name in cls.reads if name in before)
        return cls(setup.layout, stage.fingerprint, stage.outputs[0].name, setup.inputs.organelles)

    def depends_on(self) -> Sequence[Any]:
        """The result, the objects, and where they are."""
        return self.upstream, *self.beside_inputs()

    def beside_inputs(self) -> tuple[str, ...]:
        """Voxels and grid, and the objects."""
        objects = (f"{each.name} {each.fingerprint} {each.box.start} {each.box.stop}" for each in self.organelles)
        return self.layout.fingerprint, *objects

    def read(self, chunk: Chunk) -> list[tuple[np.ndarray, np.ndarray]]:
        """Objects and result of the core, for each volume of objects where it covers the core."""
        boxes = [chunk.core.intersect(each.box) for each in self.organelles]
        return [
            (opened.source(each.url).read(box), self.layout.read(self.volume, box))
            for each, box in zip(self.organelles, boxes, strict=True)
        ]

    def compute(self, chunk: Chunk, inputs: list[tuple[np.ndarray, np.ndarray]]) -> tuple[Products, dict[str, float]]:
        """Count every pair of an object and an id, 0 among the ids."""
        tables = [Contingency.from_labels(objects, result) for objects, result in inputs]
        return {
            f"{number}_{key}": array for number, table in enumerate(tables) for key, array in table.to_arrays().items()
        }, {}

    def documents(self) -> Mapping[str, Callable[[], bytes]]:
        """See ``ChainStage``: the table."""
        return {TABLE: lambda: to_parquet(self._tables(), COLUMNS)}

    def _tables(self) -> Iterator[Any]:
        for number, each in enumerate(self.organelles):
            for pairs in in_ranges(lambda number=number: self._parts(number), ROWS):  # type: ignore[misc]
                yield table_of(each.name, pairs.truth, pairs.predicted, pairs.voxels)

    def publish(self) -> None:
        """Write the table if it is not there."""
        store = opened.store(self.layout.home(self.name))
        if not store.exists(TABLE):
            store.put(TABLE, self.documents()[TABLE](), durable=True)

    def _parts(self, number: int) -> Iterator[Contingency]:
        """What the chunks have counted of one volume of objects."""
        for chunk in self.grids()[0]:
            part, prefix = self.load(chunk), f"{number}_"
            yield Contingency.from_arrays(
                {key.removeprefix(prefix): array for key, array in part.items() if key.startswith(prefix)}
            )

    @classmethod
    def withdraw(cls, setup: Setup) -> None:
        """Delete the table."""
        store = opened.store(setup.layout.home(cls.name))
        if store.exists(TABLE):
            store.delete(TABLE)


def in_ranges(read: Callable[[], Iterable[Contingency]], rows: int) -> Iterator[Contingency]:
    """The pairs of many parts, added up, in ranges of objects of about ``rows`` rows each; at least one range.

    ``read`` is called for each range once, so that no more than one range and one part are in memory.
    """
    cuts = cuts_of((part.truth for part in read()), rows)
    for low, high in zip([None, *cuts], [*cuts, None], strict=True):
        yield Contingency.sum(_between(part, low, high) for part in read())


def _between(part: Contingency, low: np.uint64 | None, high: np.uint64 | None) -> Contingency:
    """The pairs of the objects from ``low`` to before ``high``."""
    kept = np.ones(len(part.truth), bool)
    if low is not None:
        kept &= part.truth >= low
    if high is not None:
        kept &= part.truth < high
    return Contingency(part.truth[kept], part.predicted[kept], part.voxels[kept])
