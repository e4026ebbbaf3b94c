"""How long an update takes, so that networks can be trained for equal times.

On a CPU it is the CPU time of this process, with one thread: what else the machine does changes it little. On a GPU it
is the time on the clock until the GPU has finished.
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
        """One update; its seconds by ``clock``."""
        ...


def clock(device: torch.device) -> float:
    """Seconds since some moment; see above."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()


def seconds_per_update(learners: Sequence[Learner], rounds: int = 3, updates: int = 3) -> list[float]:
    """The median for each, measured in turns, so that all meet the same machine; the first update is left out."""
    found: list[list[float]] = [[] for _ in learners]
    for _ in range(rounds):
        for learner, seconds in zip(learners, found, strict=True):
            seconds += [learner.update() for _ in range(updates)]
    return [median(seconds[1:]) for seconds in found]
