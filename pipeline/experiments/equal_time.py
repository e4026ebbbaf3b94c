"""The time of an update, so that networks can be trained for equal times.

On a CPU it is the CPU time of this process, with one thread, which other load on the machine changes little. On a GPU
it is the wall-clock time until the GPU has finished.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median
from typing import Protocol

import torch


class Learner(Protocol):
    """Anything that can be trained step by step."""

    def update(self) -> float:
        """Do one update; returns its seconds by ``clock``."""
        ...


def clock(device: torch.device) -> float:
    """Seconds since some moment, by the clock of the device: CPU time or wall-clock time."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()


def seconds_per_update(learners: Sequence[Learner], rounds: int = 3, updates: int = 3) -> list[float]:
    """The median for each, measured in turns, so that load affects all alike; the first update is left out."""
    found: list[list[float]] = [[] for _ in learners]
    for _ in range(rounds):
        for learner, seconds in zip(learners, found, strict=True):
            seconds += [learner.update() for _ in range(updates)]
    return [median(seconds[1:]) for seconds in found]
