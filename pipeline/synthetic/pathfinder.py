"""Pathfinder with segmentation targets: find the one of two curves that starts in the marked disc.

An image holds two target curves of L dashes ("paddles") each, and shorter distractors. A disc marks the start of one
target; the network has to light up that curve and nothing else (Linsley et al. 2018; L = 14, 20 or 25 in the paper on
contractor recurrent back-propagation).

1. Two first paddles, ``seed_distance`` apart, far from the border       ``_Field.two_targets``
2. Both curves grow in turns, one paddle at a time                      ``_Field._extend``
3. Distractors are seeded and grown where there is room                 ``_Field.add_distractor``
4. Paddles and the disc are drawn, then reduced to the final size       ``_draw``

A curve grows like this (lengths in pixels of the window):

    paddle   pivot   paddle        the pivot moves straight ahead by length + 2 margin;
    =====  ->  +  ->  =====        the next end lies on a circle of length + margin around it, with a weight
                                   max(cos(min(1.8 |turn|, pi/2)), 0)^2, and 0 where another paddle is near

Where this differs from the published generator, and why:

- It leaves the last paddle of one of the two targets out of the map of occupied pixels, so that distractors may cross
  it; here all paddles count.
- Positions are not rounded to pixels while a curve grows, and distances are measured to the axes of paddles, not in a
  picture of them.
- Its wrapper sets the number of distractors once, 30 / (L/3) = 15 at L = 6, and keeps it at larger L; so does the
  default here. With one attempt for each, some of them find no way, and about 10, 8 and 7 are left at L = 14, 20, 25.
  Only so do the shares of pixels on any curve equal those measured on the original: .92, 1.2 and 1.3 percent.
  With the five attempts of the wrapper they are 1.2, 1.6 and 1.8.
- .17, .25 and .30 percent of the pixels lie on the target curve itself. The disc, which belongs to the target and to
  the image, adds .09 to both numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import numpy as np
from pydantic import Field, model_validator

from pipeline.config.base import Count, CountOrZero, Positive, Table
from pipeline.errors import ConfigError
from pipeline.synthetic.sample import Sample, sample_rng

RESTARTS = 500
"""A configuration is refused after this many attempts to grow the two targets."""
SEARCH = 300
"""The window counts as full after this many places were tried for the first paddle of a distractor."""
LEAST_WEIGHT = 1e-4
"""A curve ends where the weights of all its possible next steps add up to less than this."""


class PathfinderConfig(Table):
    """Numbers of the generator; the defaults are those of the published wrapper."""

    paddles: Count = 14
    """Paddles of a target curve, L: 14, 20 or 25 in the paper."""
    window: Count = 300
    """Side of the square in which curves are drawn, in pixels; all lengths below are in these pixels."""
    size: Count = 150
    """Side of the image that is returned: a divisor of the window."""
    padding: CountOrZero = 22
    """Width of the border that is kept free of paddles."""
    seed_padding: CountOrZero = 54
    """Width of the border in which no target starts: twice the seed distance."""
    length: Count = 5
    """Length of a paddle."""
    thickness: Positive = 2.0
    """Thickness of a paddle."""
    margin: Count = 3
    """Half of the gap between paddles."""
    antialias: Count = 2
    """Sub-pixels along each side of a pixel."""
    continuity: Positive = 1.8
    """Straightness of the curves: turns of up to 90 degrees divided by this are possible."""
    seed_distance: Positive = 27.0
    """Distance of the starts of the two targets."""
    marker_radius: Positive = 5.0
    """Radius of the disc."""
    contrast: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Brightness of paddles; the disc has 1."""
    distractors: CountOrZero = 15
    """Distractors that are tried."""
    distractor_paddles: Count | None = None
    """Paddles of a distractor; L / 3, rounded, if left out."""
    attempts: Count = 1
    """Attempts to place a distractor before it is left out; 5 in the wrapper."""
    draws: Count = 3
    """A curve is given up after this many ends were drawn for its next paddle."""

    @model_validator(mode="after")
    def _fits(self) -> PathfinderConfig:
        if self.window % self.size:
            raise ValueError(
                f"size is {self.size}; it must divide the window ({self.window}), such as {self.window // 2}"
            )
        if self.window <= 2 * (max(self.seed_padding, self.padding) + self.length):
            raise ValueError(f"window is {self.window}; paddings of {self.padding} and {self.seed_padding} fill it")
        return self

    @property
    def reach(self) -> float:
        """How far a paddle occupies the pixels around its axis: those that lie wholly within its margin."""
        return self.thickness / 2 + self.margin - 0.5

    @property
    def shorter(self) -> int:
        """Paddles of a distractor."""
        return self.distractor_paddles or max(1, round(self.paddles / 3))


DEFAULT = PathfinderConfig()


def make_pathfinder(index: int, *, seed: int = 0, config: PathfinderConfig = DEFAULT) -> Sample:
    """Sample ``index`` of a data set.

    Returns:
        image: float32 (size, size), 0 to ``contrast``, 1 in the disc.
        target: uint8 (size, size), 1 on the marked curve and its disc.
        more: ``distractors`` that found a way, ``all_paddles`` of all curves, ``disc`` (y, x of its middle).
    """
    rng = sample_rng(seed, index)
    field = _Field(config, rng)
    targets = field.two_targets()
    placed = sum(field.add_distractor() is not None for _ in range(config.distractors))
    marked = targets[rng.integers(2)]
    image, target = _draw(field, marked)
    disc = field.starts[marked[0]]
    more = {"distractors": placed, "all_paddles": len(field.starts), "disc": [float(disc.imag), float(disc.real)]}
    return Sample(image, target, more)


Curve = list[int]
"""Numbers of the paddles of one curve, in order."""


class _Field:
    """The paddles placed so far, as points and directions in the complex plane: x + iy in pixels of the window."""

    def __init__(self, config: PathfinderConfig, rng: np.random.Generator) -> None:
        self.config = config
        self.rng = rng
        self.starts = np.zeros(0, complex)
        self.directions = np.zeros(0, complex)

    def two_targets(self) -> list[Curve]:
        """Both target curves, grown in turns; they are drawn anew until both reach their full length."""
        for _ in range(RESTARTS):
            curves = self._first_two()
            if curves and all(self._extend(curve) for _ in range(self.config.paddles - 1) for curve in curves):
                return curves
        raise ConfigError(
            f"two curves of {self.config.paddles} paddles found no way in a window of {self.config.window} pixels in "
            f"{RESTARTS} attempts; make the window larger, or paddles and margin shorter"
        )

    def add_distractor(self) -> Curve | None:
        """One more curve of fewer paddles; ``None`` if there is no room for it."""
        for _ in range(self.config.attempts):
            before = len(self.starts)
            first = self._first_free()
            if first is not None:
                curve = [first]
                if all(self._extend(curve) for _ in range(self.config.shorter - 1)):
                    return curve
                self._forget(before)
        return None

    def _first_two(self) -> list[Curve]:
        """Empty the window and place the first paddles of both targets; an empty list if they do not fit."""
        c, rng = self.config, self.rng
        self._forget(0)
        start = complex(*rng.uniform(c.seed_padding, c.window - 1 - c.seed_padding, 2))
        other = start + c.seed_distance * complex(_direction(rng.uniform(-np.pi, np.pi)))
        curves = []
        for first, angle in zip((start, other), rng.uniform(-np.pi, np.pi, 2), strict=True):
            direction = complex(_direction(angle))
            if not self._fits(first, direction):
                return []
            curves.append([self._put(first, direction)])
        return curves

    def _first_free(self) -> int | None:
        """Place a paddle anywhere in free space; ``None`` after ``SEARCH`` failed draws."""
        for _ in range(SEARCH):
            x, y, turn = self.rng.random(3)
            start, direction = (self.config.window - 1) * complex(x, y), complex(_direction(2 * np.pi * turn))
            if self._fits(start, direction):
                return self._put(start, direction)
        return None

    def _extend(self, curve: Curve) -> bool:
        """Add a paddle to the curve; False if there is no way on."""
        c, last = self.config, curve[-1]
        ahead = self.directions[last]
        pivot = self.starts[last] + (c.length + c.margin) * ahead
        turns = np.arange(-np.pi, np.pi, 1 / (c.length + c.margin))  # one a pixel of the circle
        weights = np.maximum(np.cos(np.minimum(c.continuity * np.abs(turns), np.pi / 2)), 0) ** 2
        ways = ahead * _direction(turns)
        weights *= self._distance(pivot + (c.length + c.margin) * ways, last) > c.reach + c.margin
        if weights.sum() < LEAST_WEIGHT:
            return False
        for way in self.rng.choice(ways, c.draws, p=weights / weights.sum()):
            if self._fits(pivot + c.margin * way, way, last):
                curve.append(self._put(pivot + c.margin * way, way))
                return True
        return False

    def _fits(self, start: complex, direction: complex, but: int = -1) -> bool:
        """True if a paddle there keeps its distance from the border and all paddles ``but`` one."""
        points = start + np.linspace(0, self.config.length, self.config.length + 1) * direction
        return bool((self._distance(points, but) > 2 * self.config.reach).all())

    def _distance(self, points: np.ndarray, but: int) -> np.ndarray:
        """Distance of each point to the nearest axis of all paddles ``but`` one; 0 too near to the border."""
        c = self.config
        away = points[:, None] - self.starts
        away *= self.directions.conj()  # real: along the paddle, imaginary: across it
        beyond = np.maximum(np.maximum(-away.real, away.real - c.length), 0)
        distance = np.hypot(beyond, away.imag)
        distance[:, but : but + 1 or None] = np.inf if but >= 0 else distance[:, but:]
        nearest = distance.min(axis=1, initial=np.inf)
        low, high = c.padding + c.reach, c.window - 1 - c.padding - c.reach
        inside = (points.real >= low) & (points.real <= high) & (points.imag >= low) & (points.imag <= high)
        return np.where(inside, nearest, 0.0)

    def _put(self, start: complex, direction: complex) -> int:
        """Place a paddle; returns its number."""
        self.starts = np.append(self.starts, start)
        self.directions = np.append(self.directions, direction)
        return len(self.starts) - 1

    def _forget(self, number: int) -> None:
        """Remove this paddle and all that were placed later."""
        self.starts, self.directions = self.starts[:number], self.directions[:number]


def _direction(angle: np.ndarray | float) -> np.ndarray:
    """Unit vectors."""
    return np.exp(1j * np.asarray(angle))


def _draw(field: _Field, marked: Curve) -> tuple[np.ndarray, np.ndarray]:
    """Image float32 and target uint8, both (size, size)."""
    config = field.config
    disc = _disc(config, field.starts[marked[0]])
    paddles = _coverage(_strokes(field, range(len(field.starts))), config)
    target = _coverage(_strokes(field, marked) | disc, config)
    image = np.maximum(config.contrast * paddles, _coverage(disc, config))
    return image.astype(np.float32), (target >= 0.5).astype(np.uint8)


def _strokes(field: _Field, paddles: Iterable[int]) -> np.ndarray:
    """Sub-pixels that paddles cover: bool (window * antialias,) * 2."""
    c = field.config
    places = _places(c)
    drawn = np.zeros((len(places),) * 2, bool)
    end = 0.5 / c.antialias  # both end points are drawn
    for number in paddles:
        start, direction = field.starts[number], field.directions[number]
        ys, xs = (_span(places, middle, c.length + c.thickness) for middle in (start.imag, start.real))
        away = (places[xs] + 1j * places[ys][:, None] - start) * direction.conj()
        inside = (np.abs(away.imag) <= c.thickness / 2) & (away.real >= -end) & (away.real <= c.length + end)
        drawn[ys, xs] |= inside
    return drawn


def _disc(config: PathfinderConfig, middle: complex) -> np.ndarray:
    """Sub-pixels of the marker."""
    places = _places(config)
    return np.abs(places + 1j * places[:, None] - middle) <= config.marker_radius


def _places(config: PathfinderConfig) -> np.ndarray:
    """The positions of sub-pixels, where whole numbers are the centres of pixels."""
    return (np.arange(config.window * config.antialias) + 0.5) / config.antialias - 0.5


def _span(places: np.ndarray, middle: float, reach: float) -> slice:
    """The places within reach of the middle."""
    low, high = np.searchsorted(places, (middle - reach, middle + reach))
    return slice(int(low), int(high))


def _coverage(drawn: np.ndarray, config: PathfinderConfig) -> np.ndarray:
    """The covered share of every pixel, in the returned size."""
    step = len(drawn) // config.size
    return drawn.reshape(config.size, step, config.size, step).mean(axis=(1, 3))  # type: ignore[no-any-return]
