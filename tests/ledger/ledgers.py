"""A small ledger for tests, with its chunks, their reports, and queries of it."""

from __future__ import annotations

from pipeline.geometry import BoundingBox
from pipeline.grid import Chunk, ChunkGrid
from pipeline.ledger.ledger import Ledger
from pipeline.stages.base import ChunkReport
from pipeline.storage import ObjectStore

BOUNDS = BoundingBox((0, -8, 4), (12, 8, 24))
GRIDS = ChunkGrid(BOUNDS, BOUNDS, (4, 4, 5)).levels()
GRID = GRIDS[0]
CHUNKS = list(GRID)
FOLDER = "ledger/count_voxels"


def ledger(store: ObjectStore, fingerprint: str = "A", *, read_only: bool = False) -> Ledger:
    return Ledger(store, "count_voxels", fingerprint, GRIDS, read_only=read_only)


def report(chunk: Chunk, checksum: str | None = None) -> ChunkReport:
    """A report of a chunk, whose numbers differ from those of other chunks."""
    return ChunkReport(chunk.level, chunk.index, checksum or digest(chunk), 0.5, 80, 1000, {"patches": 2.0})


def digest(chunk: Chunk) -> str:
    return f"{hash((chunk.level, chunk.index)) & (2**128 - 1):032x}"


def record(book: Ledger, chunks: list[Chunk]) -> Ledger:
    for chunk in chunks:
        book.record(report(chunk))
    book.flush()
    return book


def done(book: Ledger) -> set[Chunk]:
    """The chunks of all levels that are done; asserts that each has the right checksum."""
    found = {chunk for grid in GRIDS for chunk in grid if book.is_done(chunk)}
    assert all(book.checksum(chunk) == digest(chunk) for chunk in found)
    return found


def contents(store: ObjectStore) -> dict[str, bytes]:
    return {key: store.get(key) for key in store.list("")}


def log_of(store: ObjectStore) -> str:
    """The log, or the segment with the latest records."""
    return store.list(f"{FOLDER}/log")[-1]


def log_bytes(store: ObjectStore) -> int:
    return sum(len(store.get(key)) for key in store.list(f"{FOLDER}/log"))
