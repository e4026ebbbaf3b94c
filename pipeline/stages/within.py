"""Progress within the chunks that run in this process, for whoever draws it. Never in a result, and never recorded.

A stage whose chunks take long says how far it is; without a listener, as in a worker process, this costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipeline.grid import Chunk

Within = Callable[[str, Chunk, int, int], None]
"""Called with the stage, the chunk, and how many of its parts are done and there are; from any thread."""

_listeners: list[Within] = []


def within(stage: str, chunk: Chunk, done: int, total: int) -> None:
    """Tell the listeners that so many parts of a chunk, such as patches, are done."""
    for listener in tuple(_listeners):
        listener(stage, chunk, done, total)


@contextmanager
def listening_within(listener: Within) -> Iterator[None]:
    """Let a function hear of the chunks that run in this process."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)
