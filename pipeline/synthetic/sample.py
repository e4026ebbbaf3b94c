"""One made-up example, and the randomness that belongs to it alone."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class Sample(NamedTuple):
    """An image, what a network should say about it, and how both came about."""

    image: np.ndarray
    target: np.ndarray
    more: dict[str, Any]
    """Facts that were drawn at random; numbers, texts and lists of them."""


def sample_rng(seed: int, index: int) -> np.random.Generator:
    """The randomness of sample ``index``: the same whatever was made before it, and in any process."""
    return np.random.default_rng([seed, index])
