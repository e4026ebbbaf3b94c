"""Neuroglancer's sharded format: many neurons in each file, found by their id.

    <shard>.shard     an index of 2 ** MINISHARD_BITS minishards, the data of all neurons, the index of each minishard

The hash of an id says in which shard and minishard a neuron is. Nothing is gzipped: bytes would depend on the version
of zlib, and meshes are compressed already.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

MINISHARD_BITS = 6
VOXELS_PER_SHARD = 1 << 30
"""Voxels of the region of interest for which one shard is made: some hundred megabytes of meshes."""


@dataclass(frozen=True)
class Sharding:
    """How ids are spread over files."""

    shard_bits: int

    @classmethod
    def of(cls, voxels: int) -> Sharding:
        """For a region of so many voxels."""
        return cls(max(0, (voxels - 1) // VOXELS_PER_SHARD).bit_length())

    @property
    def count(self) -> int:
        """The number of shards."""
        return 1 << self.shard_bits

    def specification(self) -> dict[str, Any]:
        """What an ``info`` says about it."""
        return {
            "@type": "neuroglancer_uint64_sharded_v1",
            "preshift_bits": 0,
            "hash": "murmurhash3_x86_128",
            "minishard_bits": MINISHARD_BITS,
            "shard_bits": self.shard_bits,
            "minishard_index_encoding": "raw",
            "data_encoding": "raw",
        }

    def file_name(self, shard: int) -> str:
        """The name of a shard's file."""
        digits = -(-self.shard_bits // 4)
        return f"{shard:0{digits}x}.shard" if digits else f"{shard:x}.shard"

    def shard_of(self, ids: np.ndarray) -> np.ndarray:
        """The shard of each id, int64 (n,); ids are uint64."""
        return (hash_of(ids) >> np.uint64(MINISHARD_BITS) & np.uint64(self.count - 1)).astype(np.int64)


def pack_shard(objects: Mapping[int, tuple[bytes, bytes]]) -> bytes:
    """The bytes of a shard.

    objects: for each id, the bytes that lie before its entry, and the entry, which readers find by the id.
    """
    ids = np.array(sorted(objects), np.uint64)
    minishards = hash_of(ids) & np.uint64((1 << MINISHARD_BITS) - 1)
    index, tables, data, at = np.zeros((1 << MINISHARD_BITS, 2), "<u8"), [], [], 0
    for minishard in np.unique(minishards):
        chosen = [int(name) for name in ids[minishards == minishard]]
        tables.append((int(minishard), _table(chosen, objects, at)))
        data += [part for name in chosen for part in objects[name]]
        at += sum(len(part) for name in chosen for part in objects[name])
    for minishard, table in tables:
        index[minishard] = at, at + len(table)
        at += len(table)
    return b"".join([index.tobytes(), *data, *(table for _, table in tables)])


def _table(ids: Sequence[int], objects: Mapping[int, tuple[bytes, bytes]], at: int) -> bytes:
    """The index of one minishard: ids, starts and sizes, each as the difference to where the entry before ended."""
    sizes = [len(objects[name][1]) for name in ids]
    gaps = [len(objects[name][0]) for name in ids]
    gaps[0] += at
    return np.stack([np.diff(np.array([0, *ids], "<u8")), np.array(gaps, "<u8"), np.array(sizes, "<u8")]).tobytes()


def bytes_of(shard: bytes, name: int) -> range | None:
    """Where the entry of an id lies in the bytes of a shard; ``None`` if the shard has none of this id."""
    minishard = int(hash_of(np.array([name], np.uint64))[0]) & (1 << MINISHARD_BITS) - 1
    return dict(_entries_of(shard, minishard)).get(name)


def entries(shard: bytes) -> Iterator[tuple[int, range]]:
    """Every id of a shard, and where its entry lies in the bytes; ids are in no order."""
    for minishard in range(1 << MINISHARD_BITS):
        yield from _entries_of(shard, minishard)


def _entries_of(shard: bytes, minishard: int) -> Iterator[tuple[int, range]]:
    """The ids of one minishard and their entries."""
    head = 16 << MINISHARD_BITS
    start, stop = np.frombuffer(shard, "<u8", 2, 16 * minishard).tolist()
    ids, gaps, sizes = np.frombuffer(shard[head + start : head + stop], "<u8").reshape(3, -1)
    stops = head + np.cumsum(gaps + sizes)
    yield from zip(np.cumsum(ids).tolist(), map(range, (stops - sizes).tolist(), stops.tolist()), strict=True)


def hash_of(ids: np.ndarray) -> np.ndarray:
    """The low 64 bits of MurmurHash3_x86_128 of each id (uint64, little endian), with seed 0."""
    with np.errstate(over="ignore"):
        low, high = (ids & np.uint64(0xFFFFFFFF)).astype(np.uint32), (ids >> np.uint64(32)).astype(np.uint32)
        h1 = _turn(low * np.uint32(0x239B961B), 15) * np.uint32(0xAB0E9789)
        h2 = _turn(high * np.uint32(0xAB0E9789), 16) * np.uint32(0x38B34AE5)
        h1, h2, h3, h4 = (part ^ np.uint32(8) for part in (h1, h2, np.zeros_like(h1), np.zeros_like(h1)))
        h1, h2, h3, h4 = (_mixed(part) for part in _summed(h1, h2, h3, h4))
        first, second, _, _ = _summed(h1, h2, h3, h4)
        return first.astype(np.uint64) | second.astype(np.uint64) << np.uint64(32)


def _summed(h1: np.ndarray, h2: np.ndarray, h3: np.ndarray, h4: np.ndarray) -> tuple[np.ndarray, ...]:
    total = h1 + h2 + h3 + h4
    return total, h2 + total, h3 + total, h4 + total


def _turn(values: np.ndarray, by: int) -> np.ndarray:
    turned: np.ndarray = values << np.uint32(by) | values >> np.uint32(32 - by)
    return turned


def _mixed(values: np.ndarray) -> np.ndarray:
    values = (values ^ values >> np.uint32(16)) * np.uint32(0x85EBCA6B)
    values = (values ^ values >> np.uint32(13)) * np.uint32(0xC2B2AE35)
    return values ^ values >> np.uint32(16)
