"""Progress within the chunks that Dask workers process, told to the driver.

worker    within() -> at most one message a second for each chunk -> the scheduler's topic ``TOPIC``
driver    the topic -> within(), as if the chunk ran here

Messages are never waited for; one that is lost, or late, changes nothing but what is drawn.
"""

from __future__ import annotations

import pickle
import threading
import time
import uuid
from contextlib import ExitStack
from typing import Any

from distributed import Client, Worker, get_worker

from pipeline.grid import Chunk
from pipeline.stages.within import listening_within, within

TOPIC = "petaseg-within"
EVERY_SECONDS = 1.0
"""A chunk that takes less is never told of."""
KEPT = 64
"""Chunks of which a worker remembers when it last told of them."""
HERE = uuid.uuid4().hex
"""This process, which does not listen to itself where scheduler, workers and driver are threads of one process."""

_for_good = ExitStack()
_lock = threading.Lock()
_workers: set[str] = set()


class Teller:
    """Tells of the chunks of one worker process."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._told: dict[str, float] = {}
        """Chunk -> when it was told of, or began."""

    def __call__(self, stage: str, chunk: Chunk, done: int, total: int) -> None:
        """Send a message unless this chunk has had one within a second."""
        now = time.monotonic()
        if now - self._told.setdefault(chunk.name, now) < EVERY_SECONDS:
            return
        self._told[chunk.name] = now
        while len(self._told) > KEPT:
            self._told.pop(next(iter(self._told)), None)
        said = {"from": HERE, "stage": stage, "chunk": pickle.dumps(chunk), "done": done, "total": total}
        self._worker.log_event(TOPIC, said)


def tell_of_chunks() -> None:
    """Let this worker process tell of its chunks from now on; called within a task, as often as one likes.

    Outside of a worker nothing happens.
    """
    try:
        worker = get_worker()
    except ValueError:
        return
    with _lock:
        if worker.address not in _workers:
            _workers.add(worker.address)
            _for_good.enter_context(listening_within(Teller(worker)))


def hear_of_chunks(client: Client) -> None:
    """Let this driver hear of the chunks of all workers of its scheduler."""
    client.subscribe_topic(TOPIC, _hear)


def _hear(event: tuple[float, dict[str, Any]]) -> None:
    said = event[1]
    if said["from"] != HERE:
        within(said["stage"], pickle.loads(said["chunk"]), said["done"], said["total"])
