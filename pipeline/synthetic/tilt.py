"""Tilt gratings: tell the orientation of a grating, then measure how a surround of another one bends the answer.

Training images hold one disc of a sinusoidal grating on grey. Test images hold a surround, whose orientation differs by
dtheta from a centre of half its radius; people, and gamma-Nets, see the centre turned away from the surround (the tilt
illusion; Linsley et al. 2020). The readout looks at the centre pixel.

What the paper leaves open, and what is done here:

- Wavelength and phase of centre and surround: one wavelength for both, a phase for each, so that nothing but the
  orientation of the lines tells them apart at dtheta = 0, and lines do not run on by chance; ``share_wavelength`` and
  ``share_phase`` change it.
- The target is (sin 2 theta, cos 2 theta), which is one value for one orientation. The paper's (sin theta, cos theta)
  has two signs for one orientation, so its loss must take the smaller of ||y - p||^2 and ||y + p||^2; the published
  code takes the minimum over the batch, which is a slip. ``doubled_angle`` = false gives that target.

The orientation theta is that of the lines: 0 is horizontal, 45 rises to the right, 90 is vertical.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from pipeline.config.base import Count, Positive, Share, Table
from pipeline.synthetic.sample import Sample, sample_rng


class TiltConfig(Table):
    """Numbers of the generator."""

    part: Literal["train", "test"] = "train"
    """train: one disc of any orientation; test: a centre of fixed orientation in a surround."""
    size: Count = 500
    """Side of the image in pixels."""
    radius: tuple[Positive, Positive] = (80.0, 240.0)
    """Smallest and largest radius of the disc, or of the surround."""
    wavelength: tuple[Positive, Positive] = (30.0, 90.0)
    """Smallest and largest wavelength, in pixels."""
    contrast: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Brightness runs from 0.5 - contrast / 2 to 0.5 + contrast / 2."""
    grey: Share = 0.5
    """Brightness outside."""
    centre_share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Radius of the centre in units of that of the surround (test)."""
    centre_degrees: float = 45.0
    """Orientation of the centre (test)."""
    tilt_degrees: tuple[float, float] = (-90.0, 90.0)
    """Smallest and largest dtheta: orientation of the surround less that of the centre (test)."""
    share_wavelength: bool = True
    """Centre and surround have one wavelength (test)."""
    share_phase: bool = False
    """Centre and surround have one phase (test)."""
    doubled_angle: bool = True
    """The target is (sin 2 theta, cos 2 theta); false: (sin theta, cos theta)."""

    @model_validator(mode="after")
    def _in_order(self) -> TiltConfig:
        for name in ("radius", "wavelength", "tilt_degrees"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} is [{low:g}, {high:g}]; give the smaller number first")
        return self


DEFAULT = TiltConfig()


def make_tilt(index: int, *, seed: int = 0, config: TiltConfig = DEFAULT) -> Sample:
    """Sample ``index`` of a data set.

    Returns:
        image: float32 (size, size), 0 to 1.
        target: float32 (2,), what the readout should say at the centre pixel.
        more: ``theta`` of what is in the centre (degrees, 0 to 180), ``dtheta`` (test), ``radius``, ``wavelength``.
    """
    rng = sample_rng(seed, index)
    radius = rng.uniform(*config.radius)
    outer, inner = (rng.uniform(*config.wavelength) for _ in range(2))
    phases = rng.uniform(0, 2 * np.pi, 2)
    theta = rng.uniform(0, 180) if config.part == "train" else config.centre_degrees % 180
    dtheta = rng.uniform(*config.tilt_degrees) if config.part == "test" else 0.0
    image = np.full((config.size, config.size), config.grey)
    _draw(image, config, radius, theta + dtheta, outer, phases[0])
    if config.part == "test":
        wavelength = outer if config.share_wavelength else inner
        phase = phases[0 if config.share_phase else 1]
        _draw(image, config, radius * config.centre_share, theta, wavelength, phase)
    more = {"theta": float(theta)} | ({"dtheta": float(dtheta)} if config.part == "test" else {})
    more |= {"radius": float(radius), "wavelength": float(outer)}
    return Sample(image.astype(np.float32), orientation_target(theta, doubled=config.doubled_angle), more)


def orientation_target(theta: float, *, doubled: bool = True) -> np.ndarray:
    """(sin, cos) of an orientation in degrees, or of twice it: float32 (2,)."""
    angle = np.deg2rad(2 * theta if doubled else theta)
    return np.array([np.sin(angle), np.cos(angle)], np.float32)


def _draw(image: np.ndarray, config: TiltConfig, radius: float, theta: float, wavelength: float, phase: float) -> None:
    """Put a disc of grating into the middle of the image."""
    y, x = np.ogrid[: config.size, : config.size]
    y, x = y - (config.size - 1) / 2, x - (config.size - 1) / 2
    across = x * np.sin(np.deg2rad(theta)) + y * np.cos(np.deg2rad(theta))  # y points down
    wave = 0.5 + 0.5 * config.contrast * np.cos(2 * np.pi * across / wavelength + phase)
    inside = x**2 + y**2 <= radius**2
    image[inside] = wave[inside]
