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
from collections.abc import Callable

import numpy as np

from pipeline.config.fingerprint import fingerprint
from pipeline.errors import CorruptError, LedgerError, VolumeError, counted
from pipeline.formats import FIELD, LEDGER
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
    store, (grid,) = ledger.store, stage.grids()
    before, kept = _recorded(store, stage.name), 0
    if before is not None and ledger.other_fingerprint and _still_there(stage):
        earlier = Ledger(store, stage.name, before["fingerprint"].tobytes().decode(), [grid], read_only=True)
        same = unchanged(before, _digest(stage), inputs) & earlier.done_mask(grid)
        kept = int(same.sum())
        ledger.may_write = may_write
        if kept:
            ledger.take_over(earlier, grid, same)
            logger.info("%s: %d of %s the same as before, kept", stage.name, kept, counted(len(grid), "chunk"))
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

    ``None`` if a chunk reads other chunks too, or if a stage that is read is not complete.
    """
    if stage.beside_inputs() is None:
        return None
    found = []
    for name in stage.reads:
        source = run.stage(name)
        book = run.ledger(source, read_only=True)
        if not book.is_complete():
            return None
        found.append(book.checksums(next(grid for grid in source.grids() if grid.level == 0)))
    return np.concatenate(found, axis=1)


def inputs_key(stage: str) -> str:
    """The key of a stage's record of inputs in a run directory."""
    return f"ledger/{stage}/inputs.npz"


def stored_inputs(run: Run, stage: ChainStage) -> tuple[np.ndarray, np.ndarray]:
    """The inputs of the chunks that a stage has stored, at whatever threshold; and which chunks are done, (chunks,).

    The first is uint8 (chunks, 16 * stages). Nothing is done if the record is missing, or of another grid.
    """
    store, (grid,) = ObjectStore(run.layout.home(stage.name)), stage.grids()
    record = _recorded(store, stage.name)
    if record is None or record["beside"].tobytes().decode() != _digest(stage):
        return np.zeros((len(grid), 16 * len(stage.reads)), np.uint8), np.zeros(len(grid), bool)
    book = Ledger(store, stage.name, record["fingerprint"].tobytes().decode(), [grid], read_only=True)
    return record["inputs"], book.done_mask(grid)


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
        for volume in stage.outputs:
            open_volume(stage.layout.volume_url(volume.name))
    except VolumeError:
        return False
    return stage.extent.is_confined


def _digest(stage: ChainStage) -> str:
    return fingerprint(stage.name, stage.algorithm, *(stage.beside_inputs() or ()))


def _bytes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8)
