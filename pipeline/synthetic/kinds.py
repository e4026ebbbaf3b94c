"""The generators by name: a table of settings, and a function that makes sample ``index`` of a seed.

A new generator is a module with both, and a line in ``KINDS``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

import numpy as np

from pipeline.config.base import Table
from pipeline.errors import ConfigError
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
    """Brightness that becomes 0 in an image of 8 bits."""
    white: float = 1.0
    """Brightness that becomes 255."""

    def as_uint8(self, image: np.ndarray) -> np.ndarray:
        """The image in 8 bits; what is darker than black or brighter than white is cut off."""
        if image.dtype == np.uint8:
            return image
        scaled = (image - self.black) * (255 / (self.white - self.black))
        return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


KINDS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "tissue": ("pipeline.synthetic.tissue_samples", "TissueConfig", "make_tissue_sample", {"target": "labels"}),
    "challenge": (
        "pipeline.synthetic.connectomics_challenge",
        "ChallengeConfig",
        "make_challenge",
        {"target": "mask", "black": -1.0, "white": 2.0},
    ),
    "pathfinder": ("pipeline.synthetic.pathfinder", "PathfinderConfig", "make_pathfinder", {"target": "mask"}),
    "tilt": ("pipeline.synthetic.tilt", "TiltConfig", "make_tilt", {"target": "orientation"}),
}
"""Name -> module, settings, function, and how samples are stored; loaded when asked for."""


def find_kind(name: str) -> Kind:
    """The generator of that name; ``ConfigError`` if there is none."""
    if name not in KINDS:
        raise ConfigError(f"there is no generator {name!r}; there are {', '.join(KINDS)}")
    module, settings, make, more = KINDS[name]
    loaded = import_module(module)
    return Kind(getattr(loaded, settings), getattr(loaded, make), **more)
