"""Reads back the skeletons of a run out of its shards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pipeline.shapes.shards import Sharding, entries
from pipeline.shapes.skeleton_files import decode
from pipeline.shapes.skeletons import Skeleton


@dataclass(frozen=True)
class StoredSkeletons:
    """The shards of the skeletons of a run."""

    read_file: Callable[[str], bytes]
    """The bytes of a file of the folder ``skeletons``, by its name."""
    sharding: Sharding

    def shards(self) -> Iterator[dict[int, Skeleton]]:
        """Shard by shard, the skeleton of each segment, in the order of segments."""
        for shard in range(self.sharding.count):
            data = self.read_file(self.sharding.file_name(shard))
            yield {name: decode(data[place.start : place.stop]) for name, place in sorted(entries(data), key=_name)}


def _name(entry: tuple[int, range]) -> int:
    return entry[0]
