"""Chains of overlapping circles ("snakes") that do not touch each other: the skeletons of cells and organelles."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field, model_validator
from scipy import special

from pipeline.config.base import Amount, Count, Level, Positive, Table


class Normal(Table):
    """A normal distribution cut off at two ends."""

    mean: Level
    sd: Positive
    low: Level
    """Smallest value."""
    high: Level
    """Largest value."""

    @model_validator(mode="after")
    def _in_order(self) -> Normal:
        if self.low > self.high:
            raise ValueError(f"low is {self.low:g} and high is {self.high:g}; give the smaller number first")
        return self

    def draw(self, rng: np.random.Generator) -> float:
        """One value: a point of the cumulative distribution, inverted."""
        ends = special.ndtr([(self.low - self.mean) / self.sd, (self.high - self.mean) / self.sd])
        value = self.mean + self.sd * special.ndtri(rng.uniform(*ends))
        return float(np.clip(value, self.low, self.high))


class Walk(Table):
    """How a snake continues from one circle to the next."""

    overlap: Amount = 2.0
    """The next centre lies at the sum of both radii less this, in pixels."""
    turn_limit_degrees: Annotated[float, Field(gt=0, le=180)] = 75.0
    """Largest turn."""
    turn_factor: Positive = 1.2
    """Density of turns is proportional to max(cos(factor * turn), 0)."""
    tries: Count = 20
    """A snake ends after this many circles were tried at its end without success."""

    def turn(self, rng: np.random.Generator) -> float:
        """A turn in radians: the integral of the density is sin(factor * turn), which is inverted."""
        limit = min(np.deg2rad(self.turn_limit_degrees) * self.turn_factor, np.pi / 2)
        return float(np.arcsin(rng.uniform(-1, 1) * np.sin(limit)) / self.turn_factor)


class Circles:
    """The circles placed so far: centre (y, x), radius, and the snake that each belongs to."""

    def __init__(self) -> None:
        self.centres = np.zeros((0, 2))
        self.radii = np.zeros(0)
        self.snakes = np.zeros(0, int)

    def clear_of(self, centre: np.ndarray, radius: float, gap: float, *, but: int = -1) -> bool:
        """True if a circle would stay ``gap`` pixels away from all others, circle number ``but`` excepted."""
        apart = np.hypot(*(self.centres - centre).T) - self.radii - radius
        if but >= 0:
            apart[but] = np.inf
        return bool((apart >= gap).all())

    def add(self, centre: np.ndarray, radius: float, snake: int) -> int:
        """Place a circle; returns its number."""
        self.centres = np.vstack([self.centres, centre])
        self.radii = np.append(self.radii, radius)
        self.snakes = np.append(self.snakes, snake)
        return len(self.radii) - 1

    def draw(self, side: int) -> np.ndarray:
        """The circles as a picture: int32 (side, side), 0 outside and the number of the snake plus 1 inside."""
        picture = np.zeros((side, side), np.int32)
        for centre, radius, snake in zip(self.centres, self.radii, self.snakes, strict=True):
            box, inside = disc(centre, radius, side)
            picture[box][inside] = snake + 1
        return picture


def disc(centre: np.ndarray, radius: float, side: int) -> tuple[tuple[slice, slice], np.ndarray]:
    """The pixels of a circle within a square picture: a box of it, and which pixels in the box."""
    low = np.clip(np.floor(centre - radius).astype(int), 0, side)
    high = np.clip(np.ceil(centre + radius).astype(int) + 1, 0, side)
    y, x = np.ogrid[low[0] : high[0], low[1] : high[1]]
    inside = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2
    return (slice(low[0], high[0]), slice(low[1], high[1])), inside
