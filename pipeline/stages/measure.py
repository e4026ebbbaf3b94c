"""The result -> voxels, places, surfaces and contacts of its objects, from the chunks up to the root; then tables.

<run>/tables/neurons.parquet     a row for each neuron; objects.parquet for objects, masks and classes
<run>/tables/contacts.parquet    a row for each pair of them that touch

The tables are written when all sums are there, and deleted before a voxel of the result may change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from pipeline.geometry import Vec
from pipeline.grid import ZERO, Chunk, ChunkGrid
from pipeline.shapes.measure_tables import (
    CONTACTS,
    OBJECTS,
    in_ranges,
    table_of_contacts,
    table_of_objects,
    to_parquet,
)
from pipeline.shapes.measures import Measures, measure
from pipeline.stages import opened
from pipeline.stages.base import Products
from pipeline.stages.chain_stage import ChainStage, TreeStage
from pipeline.stages.layout import Layout
from pipeline.stages.relabel import Relabel
from pipeline.stages.setup import Setup
from pipeline.stages.take_labels import TakeLabels
from pipeline.stages.write_classes import WriteClasses
from pipeline.stages.write_objects import WriteMask, WriteObjects

NEURONS, THINGS, CONTACT_TABLE = "tables/neurons.parquet", "tables/objects.parquet", "tables/contacts.parquet"
ROWS = 1 << 20
"""Rows that are added up at once when the tables are written."""


@dataclass(frozen=True)
class Measure(TreeStage):
    """Labels, objects, a mask or classes -> measures of what is complete in a node, and of what goes on beyond it."""

    layout: Layout
    upstream: str
    """Fingerprint of the stage that writes the volume."""
    volume: str
    """The volume that is measured."""

    name = "measure"
    reads = (Relabel.name, WriteObjects.name, WriteMask.name, WriteClasses.name, TakeLabels.name)
    publishes = True

    @classmethod
    def of(cls, setup: Setup, before: Mapping[str, ChainStage]) -> Self | None:
        """The stage of a run whose file has the table ``measures``, and of one with given labels, which it sums up."""
        if setup.config.measures is None and setup.config.segmentation.kind != "labels":
            return None
        stage = next(before[name] for name in cls.reads if name in before)
        return cls(setup.layout, stage.fingerprint, stage.outputs[0].name)

    def depends_on(self) -> Sequence[Any]:
        """What is measured, on which grid."""
        return self.layout.fingerprint, self.upstream

    def levels(self) -> list[ChunkGrid]:
        """See ``TreeStage``; a chunk is read with one more voxel behind it, so that each face counts once."""
        return self.layout.grid((ZERO, Vec(1, 1, 1))).levels()

    def grids(self) -> Sequence[ChunkGrid]:
        """One grid for each level, chunks first."""
        return self.levels()

    def read(self, chunk: Chunk) -> np.ndarray | list[Measures]:
        """The voxels of a chunk, or what goes on from the children of a node."""
        if chunk.level == 0:
            return self.layout.read(self.volume, chunk.read_box)
        return [Measures.from_arrays(self.load(child), "up_") for child in self.children(chunk)]

    def compute(self, chunk: Chunk, inputs: np.ndarray | list[Measures]) -> tuple[Products, dict[str, float]]:
        """Measure a chunk or add up its children, and part what is complete from what goes on."""
        if isinstance(inputs, list):
            found = Measures.sum(inputs)
        else:
            found = measure(inputs.astype(np.uint64, copy=False), chunk.core, self.layout.roi)
        done, up = found.split(chunk.core, self.layout.roi)
        return {**done.to_arrays("done_"), **up.to_arrays("up_")}, {}

    def documents(self) -> Mapping[str, Callable[[], bytes]]:
        """See ``ChainStage``: both tables."""
        unit = self.layout.resolution_nm
        return {
            self.table: lambda: to_parquet((table_of_objects(rows, unit) for rows in self.rows()), OBJECTS),
            CONTACT_TABLE: lambda: to_parquet((table_of_contacts(rows, unit) for rows in self.rows()), CONTACTS),
        }

    def publish(self) -> None:
        """Write the tables that are not there."""
        store = opened.store(self.layout.home(self.name))
        for key, make in self.documents().items():
            if not store.exists(key):
                store.put(key, make(), durable=True)

    @property
    def table(self) -> str:
        """The key of the table of objects."""
        return NEURONS if self.volume == Relabel.volumes[0].name else THINGS

    def rows(self) -> Iterable[Measures]:
        """All rows of the run in the order of ids, in ranges that fit into memory; every chunk is stored."""
        return in_ranges(self._parts, ROWS)

    def _parts(self) -> Iterator[Measures]:
        for chunk in (chunk for grid in self.grids() for chunk in grid):
            yield Measures.from_arrays(self.load(chunk), "done_")

    @classmethod
    def withdraw(cls, setup: Setup) -> None:
        """Delete the tables."""
        store = opened.store(setup.layout.home(cls.name))
        for key in (NEURONS, THINGS, CONTACT_TABLE):
            if store.exists(key):
                store.delete(key)
