"""The state of a run for a live page: progress of every stage, its chunks as a map, and failures.

Only the run directory is read, so the page works for a run on another machine, and for a dead one.
"""

from __future__ import annotations

import json
import threading
import time
from base64 import b64encode
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import numpy as np

from pipeline.geometry import Vec
from pipeline.ledger.ledger import Ledger
from pipeline.runs.outline import StageOutline
from pipeline.runs.status import RunWatch

CELLS = 64
"""Cells of a map along an axis, at most: in a larger grid a cell stands for several chunks."""
FAILURES = 100
"""Failures of a stage that are sent."""
HTML = "text/html; charset=utf-8"


class Dashboard:
    """Answers a browser: the page, and the state behind it, which is read at most once a second."""

    def __init__(self, watch: RunWatch) -> None:
        self._watch, self._lock = watch, threading.Lock()
        self._read, self._state = 0.0, b""

    def find(self, path: str) -> tuple[bytes, str]:
        """The content under a path and its type; ``LookupError`` for another path."""
        if path == "":
            return files("pipeline.viewing").joinpath("dashboard.html").read_bytes(), HTML
        if path == "state.json":
            return self.state(), "application/json"
        raise LookupError(path)

    def state(self) -> bytes:
        """The state as JSON."""
        with self._lock:
            if time.monotonic() - self._read > 1:
                self._state = json.dumps(read_state(self._watch), allow_nan=False).encode()
                self._read = time.monotonic()
            return self._state


def read_state(watch: RunWatch) -> dict[str, Any]:
    """What ``petaseg status --json`` says, with the map and the failures of each stage."""
    plain = watch.follow().as_dict()
    for stage, outline in zip(plain["stages"], watch.outline.stages, strict=True):
        ledger = watch.ledger(outline)
        stage |= {"map": map_of(outline, ledger), "failures": _failures(ledger)}
    return {**plain, "time": time.time()}


def map_of(stage: StageOutline, ledger: Ledger) -> Mapping[str, Any]:
    """The chunks of a stage's first grid as cells (z, y, x): the share that is done (0 to 255) and mean seconds."""
    grid = stage.grids[0]
    done = ledger.done_mask(grid)
    seconds = np.zeros(len(done), np.float32)
    seconds[done] = ledger.chunk_seconds(grid)
    chunks, each = done.reshape(grid.counts), _chunks_of_a_cell(grid.counts)
    finished, all_ = _sums(chunks, each), _sums(np.ones_like(chunks), each)
    share = np.floor(255 * finished / all_).astype(np.uint8)
    mean = (_sums(seconds.reshape(grid.counts), each) / np.maximum(finished, 1)).astype("<f4")
    return {
        "shape": list(share.shape),
        "chunks": list(grid.counts),
        "done": b64encode(share.tobytes()).decode(),
        "seconds": b64encode(mean.tobytes()).decode(),
    }


def _chunks_of_a_cell(counts: Vec) -> tuple[int, ...]:
    return tuple(counts.ceil_div(Vec(CELLS, CELLS, CELLS)))


def _sums(values: np.ndarray, each: tuple[int, ...]) -> np.ndarray:
    """Sums over blocks of ``each`` values along the axes, float64; the last block may be smaller."""
    total = values.astype(np.float64)
    for axis, width in enumerate(each):
        total = np.add.reduceat(total, np.arange(0, total.shape[axis], width), axis=axis)
    return total


def _failures(ledger: Ledger) -> list[dict[str, Any]]:
    found = ledger.quarantined()[:FAILURES]
    return [{"chunk": f.chunk_name, "error": f.error, "traceback": f.traceback, "attempts": f.attempts} for f in found]
