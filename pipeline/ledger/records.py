"""The data of a ledger about the chunks of a stage, and the encoding of a record as a line."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.grid import ChunkGrid


@dataclass
class Summary:
    """Sums over the chunks that are done."""

    done: int = 0
    failed: int = 0
    seconds: float = 0.0
    voxels: int = 0
    bytes_written: int = 0
    attempts: int = 0
    """The number of failed attempts since the stage began under this fingerprint."""
    counters: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Failure:
    """A chunk that was set aside."""

    chunk_name: str
    level: int
    index: tuple[int, int, int]
    error: str
    traceback: str
    attempts: int


class Marks:
    """The done chunks of one grid, by position."""

    def __init__(self, grid: ChunkGrid) -> None:
        self.grid = grid
        self.done = np.zeros(len(grid), bool)
        self.checksums = np.zeros((len(grid), 16), np.uint8)
        self.seconds = np.zeros(len(grid), np.float32)
        self.bytes_written = np.zeros(len(grid), np.int64)


def failure_record(failure: Failure) -> dict[str, Any]:
    """A chunk that was set aside, as a record."""
    place = {"fail": [failure.level, *failure.index], "name": failure.chunk_name}
    return {**place, "error": failure.error, "tb": failure.traceback, "a": failure.attempts, "final": True}


def encode(record: Mapping[str, Any], log: str = "") -> bytes:
    """A record as a line: checksum, space, JSON; ``log`` names the log for which it is written."""
    text = json.dumps(record, separators=(",", ":")).encode()
    return b"%08x %s\n" % (_checksum(text, log), text)


def decode(line: bytes, log: str = "") -> dict[str, Any] | None:
    """The record of a line without its line break, or None if it is damaged or was written for another log."""
    checksum, _, text = line.partition(b" ")
    try:
        if int(checksum, 16) != _checksum(text, log):
            return None
        record: dict[str, Any] = json.loads(text)
    except ValueError:
        return None
    return record


def _checksum(text: bytes, log: str) -> int:
    return zlib.crc32(text, zlib.crc32(log.encode()))
