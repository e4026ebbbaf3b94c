"""The generators by name: a table of settings, and a function that makes sample ``index`` of a seed.

A new generator is a module with both, and a row in ``pipeline.synthetic.KINDS``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.config.base import Table
from pipeline.registry import find, load
from pipeline.synthetic import KINDS
from pipeline.synthetic.sample import Sample


@dataclass(frozen=True)
class Kind:
    """One generator."""

    settings: type[Table]
    make: Callable[..., Sample]
    """``make(index, seed=, config=)``"""
    target: Literal["mask", "labels", "orientation"]
    """uint8 (y, x); integers (z, y, x) like the image; float32 (2,)."""
    black: float = 0.0
    """The brightness that becomes 0 in an image of 8 bits."""
    white: float = 1.0
    """The brightness that becomes 255."""

    def as_uint8(self, image: np.ndarray) -> np.ndarray:
        """The image in 8 bits; values darker than black or brighter than white are clipped."""
        if image.dtype == np.uint8:
            return image
        scaled = (image - self.black) * (255 / (self.white - self.black))
        return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def find_kind(name: str) -> Kind:
    """The generator of that name; ``ConfigError`` if there is none."""
    module, settings, make, more = find(KINDS, name, "there is no generator")
    return Kind(load(f"{module}:{settings}"), load(f"{module}:{make}"), **more)
