"""Pieces of all chunks -> the skeletons of neurons, one shard after another, as Neuroglancer reads them; then a table.

<run>/tables/skeletons.parquet   a row for each skeleton; written and deleted with ``info``
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from pipeline.shapes.fragments import Fragments, by_segment
from pipeline.shapes.measure_tables import to_parquet
from pipeline.shapes.skeleton_files import COLUMNS, encode, info, rows_of, table_of_skeletons
from pipeline.shapes.skeletons import Piece, Skeleton, assemble
from pipeline.stages import opened
from pipeline.stages.base import Products
from pipeline.stages.chain_stage import ChainStage
from pipeline.stages.extract_skeletons import ExtractSkeletons
from pipeline.stages.setup import Setup
from pipeline.stages.shapes import WriteShapes

TABLE = "tables/skeletons.parquet"


@dataclass(frozen=True)
class WriteSkeletons(WriteShapes):
    """Pieces -> shards of whole skeletons, and what is known of each."""

    fragments: ExtractSkeletons

    name = "write_skeletons"
    reads = (ExtractSkeletons.name,)
    folder = "skeletons"
    has_part = True

    @classmethod
    def of(cls, setup: Setup, before: Mapping[str, ChainStage]) -> Self | None:
        """The stage of a run that has pieces of skeletons."""
        found = before.get(ExtractSkeletons.name)
        return cls(setup.layout, found) if isinstance(found, ExtractSkeletons) else None

    def joined(
        self, parts: Sequence[Fragments], kept: frozenset[int]
    ) -> tuple[dict[int, tuple[bytes, bytes]], Products]:
        """See ``WriteShapes``; the small arrays are the rows of the table."""
        found = by_segment(parts, kept, 1)
        skeletons = {name: self._assembled(list(levels[0].values())) for name, levels in sorted(found.items())}
        return {name: (b"", encode(each)) for name, each in skeletons.items()}, rows_of(skeletons)

    def _assembled(self, pieces: Sequence[bytes]) -> Skeleton:
        source = self.fragments
        return assemble(list(map(Piece.from_bytes, pieces)), source.lattice.resolution_nm, source.rules)

    def info(self) -> dict[str, Any]:
        """See ``WriteShapes``."""
        return info(self.fragments.sharding.specification())

    def documents(self) -> Mapping[str, Callable[[], bytes]]:
        """See ``ChainStage``: the table and the ``info``."""
        return {TABLE: self._table, **super().documents()}

    def _table(self) -> bytes:
        rows = [self.layout.get_part(self.name, chunk) for chunk in self.grids()[0]]
        return to_parquet([table_of_skeletons(rows)], COLUMNS)

    def publish(self) -> None:
        """Write the table and then the ``info``."""
        self.store.put(TABLE, self._table(), durable=True)
        super().publish()

    @classmethod
    def withdraw(cls, setup: Setup) -> None:
        """Delete the ``info`` and the table."""
        super().withdraw(setup)
        opened.store(setup.layout.home(cls.name)).delete(TABLE)
