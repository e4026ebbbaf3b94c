"""The needs of one chunk, or another item, while it runs: stages state them, and executors meet them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Needs:
    """The needs of one item while it runs."""

    network: bool = False
    """The item runs the network, so on a cluster it goes to the workers with GPUs."""
    gpus: int = 0
    generous: bool = False
    """The item ran out of memory before, so it gets a larger worker, or runs alone."""
    items: int | None = None
    """The number of items, if it is known; no more workers are started than they keep busy."""
    timeout_seconds: float | None = None
    """After this time the item counts as failed and its worker is restarted; ``None`` waits for ever."""
