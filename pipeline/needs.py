"""What one chunk, or any other item of work, needs while it runs: stages say it, executors obey it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Needs:
    """What one item needs while it runs."""

    network: bool = False
    """Runs the network: on a cluster, work for the workers with GPUs."""
    gpus: int = 0
    generous: bool = False
    """For items that ran out of memory: larger workers, or one item at a time."""
    items: int | None = None
    """How many items there are, if that is known; no more workers are started than they keep busy."""
    timeout_seconds: float | None = None
    """After this time the item counts as failed and its worker is restarted; ``None`` waits for ever."""
