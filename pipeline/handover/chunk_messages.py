"""The messages of PyChunkedGraph's ingest, in the wire format of protocol buffers.

    message EdgesMsg            bytes node_ids1 = 1, node_ids2 = 2, affinities = 3, areas = 4
    message ChunkEdgesMsg       EdgesMsg in_chunk = 1, cross_chunk = 2, between_chunk = 3; the message is zstd
    message ChunkComponentsMsg  repeated uint64 components = 1: the size of a component, its members, the next size

Ids and areas are uint64, affinities float32, all little endian. All fields are of the type "length-delimited", so a
message is: (number << 3 | 2), length, content, for each field in turn.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LENGTH_DELIMITED = 2
LEVEL = 17
"""The level of zstd that the ingest itself takes for these files."""


def pack_edges(within: np.ndarray, between: np.ndarray, cross: np.ndarray) -> bytes:
    """The edges of a chunk: rows with ``own``, ``other``, ``count`` and ``sum`` of affinities, 0..255 each.

    The affinity of an edge is the sum of those on its contact, 0..1 each, and its area the number of their faces: both
    add up over contacts. Parts of one supervoxel are joined by an edge of affinity infinity and area 1.
    """
    import zstandard

    never = np.full(len(cross), np.inf, np.float32)
    edges = [
        _edges(within, within["sum"] / 255, within["count"]),
        _edges(cross, never, np.ones(len(cross))),
        _edges(between, between["sum"] / 255, between["count"]),
    ]
    return zstandard.ZstdCompressor(level=LEVEL).compress(_message(edges))


def pack_components(ids: np.ndarray, segments: np.ndarray) -> bytes:
    """The components of some supervoxels, those of one segment together: both uint64 (n,), each id once."""
    order = np.lexsort((ids, segments))
    starts = np.unique(segments[order], return_index=True)[1]
    groups = np.split(ids[order], starts[1:])
    numbers = [number for group in groups for number in (len(group), *group.tolist())]
    return _message([b"".join(map(varint, numbers))])


def varint(number: int) -> bytes:
    """A number as 7 bits in each byte, the lowest first; all bytes but the last have the highest bit."""
    parts = []
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


def _edges(rows: np.ndarray, affinities: np.ndarray, areas: np.ndarray) -> bytes:
    columns = rows["own"], rows["other"], affinities.astype("<f4"), areas.astype("<u8")
    return _message([np.ascontiguousarray(column).tobytes() for column in columns])


def _message(fields: Sequence[bytes]) -> bytes:
    """A message whose fields are numbered from 1; empty ones are left out."""
    return b"".join(
        varint(number << 3 | LENGTH_DELIMITED) + varint(len(field)) + field
        for number, field in enumerate(fields, 1)
        if field
    )
