"""One made-up example, and the randomness that belongs to it alone."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class Sample(NamedTuple):
    """An image, the output that a network should predict for it, and the facts from which both were made."""

    image: np.ndarray
    target: np.ndarray
    more: dict[str, Any]
    """Facts that were drawn at random: numbers, texts and lists of these."""


def sample_rng(seed: int, index: int) -> np.random.Generator:
    """The random generator of sample ``index``: the same in any process, whatever was made before."""
    return np.random.default_rng([seed, index])
