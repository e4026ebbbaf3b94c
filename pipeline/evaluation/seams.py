"""Do the faces between chunks show in a result? Two planes that meet at a face, against two that meet inside a chunk.

    p - 2   p - 1 | p   p + 1        the face lies between the planes p - 1 and p

A pipeline that is exact has no seams: what changes from plane to plane is the tissue, at a face as much as inside. Each
face gives three numbers, each the same number inside chunks, and the difference is measured in robust standard
deviations of the numbers inside:

- agreement   share of voxel pairs across the face with one label, less that one plane before and behind it
- jump        mean change of a head across the face, in grey values, less that one plane before and behind it
- sharpness   logarithm of the change within plane p over that within plane p - 1: a blurred chunk begins there
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

PLANES = 4
"""Planes around a face that are looked at."""
DEVIATIONS = 8.0
"""A number that is so many robust standard deviations off those inside is a seam ..."""
EFFECT = {"agreement": 0.05, "jump": 4.0, "sharpness": 0.2}
"""... if it is also off by at least this much, since a large volume makes tiny differences significant."""
WORSE = {"agreement": -1, "jump": 1, "sharpness": 0}
"""The side on which a difference is a seam: below, above, or both."""
LEAST = {"agreement": 0.005, "jump": 0.5, "sharpness": 0.02}
"""The standard deviation inside counts as at least this: in a small sample it may be nearly 0 by chance."""


def agreement(planes: np.ndarray) -> float:
    """Of labels (4, rows, columns), 0 without label; NaN if no pair has a label."""
    before, across, behind = (_same(planes[k], planes[k + 1]) for k in range(3))
    return across - (before + behind) / 2


def _same(one: np.ndarray, other: np.ndarray) -> float:
    labelled = (one > 0) & (other > 0)
    return float((one == other)[labelled].mean()) if labelled.any() else float("nan")


def jump(planes: np.ndarray) -> float:
    """Of a head, (4, rows, columns) uint8, in grey values."""
    changes = np.abs(np.diff(planes.astype(np.float32), axis=0)).mean((1, 2))
    return float(changes[1] - (changes[0] + changes[2]) / 2)


def sharpness(planes: np.ndarray) -> float:
    """Of a head, (4, rows, columns) uint8; a plane of one value counts as nearly so."""
    low, high = (_change_within(planes[k].astype(np.float32)) for k in (1, 2))
    return float(np.log((high + 0.1) / (low + 0.1)))


def _change_within(plane: np.ndarray) -> float:
    return float(np.mean([np.abs(np.diff(plane, axis=axis)).mean() for axis in (0, 1) if plane.shape[axis] > 1] or [0]))


NUMBERS = {"agreement": agreement, "jump": jump, "sharpness": sharpness}


@dataclass(frozen=True)
class SeamTest:
    """One number over all faces that were looked at."""

    number: str
    """A key of ``NUMBERS``."""
    volume: str
    faces: int
    mean: float
    """Over the faces."""
    mean_inside: float
    deviation: float
    """Robust standard deviation inside."""
    seams: tuple[tuple[str, float], ...]
    """Faces that are seams, worst first, with their standard deviations from the median inside."""

    @property
    def passed(self) -> bool:
        """True if no face is a seam."""
        return not self.seams

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        seams = [{"face": face, "deviations": value} for face, value in self.seams]
        return {**vars(self), "seams": seams, "passed": self.passed}


def seam_test(number: str, volume: str, faces: Mapping[str, float], inside: Sequence[float]) -> SeamTest:
    """The test of one number: its values at faces by their names, and its values inside; NaN counts for nothing."""
    known = {name: value for name, value in faces.items() if np.isfinite(value)}
    plain = np.array([value for value in inside if np.isfinite(value)] or [0.0])
    middle = float(np.median(plain))
    deviation = max(LEAST[number], 1.4826 * float(np.median(np.abs(plain - middle))))
    off = {name: (value - middle) / deviation for name, value in known.items()}
    found = [
        (name, round(by, 1))
        for name, by in off.items()
        if abs(by) > DEVIATIONS and abs(known[name] - middle) > EFFECT[number] and WORSE[number] * by >= 0
    ]
    return SeamTest(
        number,
        volume,
        len(known),
        float(np.mean(list(known.values()) or [0.0])),
        float(plain.mean()),
        deviation,
        tuple(sorted(found, key=lambda each: -abs(each[1]))),
    )
