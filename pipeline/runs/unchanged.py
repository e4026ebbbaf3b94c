"""Chunks that another configuration does not change keep what they have stored.

Another threshold gives other labels only to the chunks whose table from fragment to neuron is another one. A chunk's
table and fragments are known by their checksums, which the ledgers hold already, so no voxel and no table is read.

    <run>/ledger/<stage>/inputs.npz    the checksums of each chunk's inputs, and the fingerprint under which they count

1. every stage that is read is complete, so the checksums of the new inputs are known
2. a chunk that was done under the old fingerprint, and whose inputs have the same checksums, is taken over
3. the new log begins; it has the marks of these chunks only, so the old marks of all others end before one is written
4. ``inputs.npz`` is written for the new fingerprint; without it (a crash) the next configuration takes nothing over

A chunk that was in flight when a driver died is not done in any log, so it is never taken over.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from hashlib import blake2b
from itertools import product

import numpy as np

from pipeline.config.fingerprint import fingerprint
from pipeline.errors import CorruptError, LedgerError, VolumeError, counted
from pipeline.formats import FIELD, LEDGER
from pipeline.grid import ChunkGrid
from pipeline.ledger.ledger import Ledger
from pipeline.runs.run import Run
from pipeline.stages.chain_stage import ChainStage
from pipeline.storage import MissingObjectError, ObjectStore
from pipeline.volumes import open_volume

logger = logging.getLogger("petaseg.unchanged")


def keep_unchanged(run: Run, stage: ChainStage, ledger: Ledger, may_write: Callable[[], None]) -> int:
    """Mark the chunks whose inputs did not change as done under the stage's fingerprint; returns how many they are.

    ledger: that of the stage, opened for writing. may_write: asked before anything is stored.
    """
    inputs = input_checksums(run, stage)
    if inputs is None:
        return 0
    store, grids = ledger.store, stage.grids()
    before, kept = _recorded(store, stage.name), 0
    same = np.zeros(len(inputs), bool) if before is None else unchanged(before, _digest(stage), inputs)
    if before is not None and same.any() and ledger.other_fingerprint and _still_there(stage):
        earlier = Ledger(store, stage.name, before["fingerprint"].tobytes().decode(), grids, read_only=True)
        same &= _done(earlier, grids)
        kept = int(same.sum())
        ledger.may_write = may_write
        if kept:
            for grid, which in zip(grids, _by_grid(same, grids), strict=True):
                ledger.take_over(earlier, grid, which)
            logger.info("%s: %d of %s the same as before, kept", stage.name, kept, counted(len(same), "chunk"))
    record = {"fingerprint": _bytes(stage.fingerprint), "beside": _bytes(_digest(stage)), "inputs": inputs}
    if before is None or before["fingerprint"].tobytes() != record["fingerprint"].tobytes():
        may_write()
        version = {field: np.array(number) for field, number in LEDGER.stamp.items()}
        store.put_arrays(inputs_key(stage.name), {**version, **record})
    return kept


def unchanged(before: dict[str, np.ndarray], beside: str, inputs: np.ndarray) -> np.ndarray:
    """True for each chunk whose inputs have the recorded checksums, (chunks,) bool; none if anything else differs.

    before: the stored record. beside: digest of all other facts. inputs: uint8 (chunks, bytes).
    """
    if before["beside"].tobytes().decode() != beside or before["inputs"].shape != inputs.shape:
        return np.zeros(len(inputs), bool)
    return (before["inputs"] == inputs).all(axis=1)


def input_checksums(run: Run, stage: ChainStage) -> np.ndarray | None:
    """The checksums of all that each chunk of a stage reads, uint8 (chunks, 16 * stages), from the ledgers.

    The chunks of all grids, one grid after another. ``None`` if other chunks count that ``box_read`` does not name, or
    if a stage that is read is not complete.
    """
    if stage.beside_inputs() is None:
        return None
    found = []
    for name in filter(run.has_stage, stage.reads):
        source = run.stage(name)
        book = run.ledger(source, read_only=True)
        if not book.is_complete():
            return None
        grid = next(grid for grid in source.grids() if grid.level == 0)
        found.append(_of_chunks(stage, grid, book.checksums(grid)))
    return np.concatenate(found, axis=1)


def _of_chunks(stage: ChainStage, grid: ChunkGrid, checksums: np.ndarray) -> np.ndarray:
    """For each chunk of a stage, the checksum of the chunk that it reads, or a digest of those of all that it reads.

    grid: the chunks that are read. checksums: theirs, uint8 (chunks, 16).
    """
    rows = []
    for chunk in (chunk for each in stage.grids() for chunk in each):
        box = stage.box_read(chunk)
        if box is None:
            return checksums
        first, last = grid.index_of(box.start), grid.index_of(box.stop - 1)
        z, y, x = map(range, first, last + 1)
        places = [grid.position(index) for index in product(z, y, x)]
        rows.append(blake2b(checksums[places].tobytes(), digest_size=16).digest())
    return np.frombuffer(b"".join(rows), np.uint8).reshape(-1, 16)


def _done(ledger: Ledger, grids: Sequence[ChunkGrid]) -> np.ndarray:
    """True for each chunk of all grids that is done, (chunks,) bool."""
    return np.concatenate([ledger.done_mask(grid) for grid in grids])


def _by_grid(mask: np.ndarray, grids: Sequence[ChunkGrid]) -> list[np.ndarray]:
    """What is said of the chunks of all grids, grid by grid."""
    return np.split(mask, np.cumsum([len(grid) for grid in grids])[:-1])


def inputs_key(stage: str) -> str:
    """The key of a stage's record of inputs in a run directory."""
    return f"ledger/{stage}/inputs.npz"


def stored_inputs(run: Run, stage: ChainStage) -> tuple[np.ndarray, np.ndarray]:
    """The inputs of the chunks that a stage has stored, at whatever threshold; and which chunks are done, (chunks,).

    The first is uint8 (chunks, 16 * stages). Nothing is done if the record is missing, or of another grid.
    """
    store, grids = ObjectStore(run.layout.home(stage.name)), stage.grids()
    chunks = sum(map(len, grids))
    record = _recorded(store, stage.name)
    if record is None or record["beside"].tobytes().decode() != _digest(stage):
        return np.zeros((chunks, 16 * sum(map(run.has_stage, stage.reads))), np.uint8), np.zeros(chunks, bool)
    book = Ledger(store, stage.name, record["fingerprint"].tobytes().decode(), grids, read_only=True)
    return record["inputs"], _done(book, grids)


def _recorded(store: ObjectStore, stage: str) -> dict[str, np.ndarray] | None:
    """The stored record; ``None`` if there is none, or it is damaged: then every chunk is written again."""
    key = inputs_key(stage)
    try:
        arrays = dict(store.get_arrays(key))
    except MissingObjectError:
        return None
    except CorruptError as error:
        logger.warning("%s is damaged (%s); every chunk of %s is written again", key, error, stage)
        return None
    LEDGER.check({FIELD: arrays[FIELD].item()} if FIELD in arrays else {}, f"{store.url}/{key}", LedgerError)
    return arrays if {"fingerprint", "beside", "inputs"} <= arrays.keys() else None


def _still_there(stage: ChainStage) -> bool:
    """True if the products are stored under the present layout, and nobody has deleted a whole volume of them."""
    try:
        for region in stage.regions():
            open_volume(stage.layout.volume_url(region.volume) if region.level is None else region.level.url)
    except VolumeError:
        return False
    return stage.extent.is_confined


def _digest(stage: ChainStage) -> str:
    return fingerprint(stage.name, stage.algorithm, *(stage.beside_inputs() or ()))


def _bytes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8)
