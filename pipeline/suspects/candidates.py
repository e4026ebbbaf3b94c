"""What may be wrong: the kinds of candidates, and the sources that find them.

A further kind is a row of ``KINDS`` and a function in ``SOURCES`` that yields its candidates from what a run has
stored; the model needs numbers for its features, which ``petaseg suspects RUN --calibrate`` fits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.registry import load
from pipeline.suspects.tables import Tables

Error = Literal["merger", "split"]


@dataclass(frozen=True)
class Kind:
    """One kind of candidate."""

    error: Error
    """What it is if it is wrong: two neurons in one segment, or one neuron in two."""
    features: Mapping[str, str]
    """The numbers that tell wrong from right, and what they mean."""


SCORE = {
    "score": "mean affinity of the contact, 0..1",
    "margin": "how far that is from the threshold, as a share of the way to 1, or to 0",
    "contact": "logarithm of the number of affinities on the contact",
    "weakest": "lowest mean affinity, shrunk towards a half, of its contacts of two supervoxels",
    "strongest": "highest of these",
    "parts": "logarithm of their number",
    "smaller": "logarithm of the voxels of the smaller side",
    "larger": "logarithm of the voxels of the larger side",
    "neck": "logarithm of the contact over the smaller side to the power of 2/3",
}
"""Features that both kinds of contacts have."""
KINDS: Mapping[str, Kind] = {
    "merger": Kind(
        "merger",
        {
            **SCORE,
            "joined": "logarithm of the voxels of the smaller side when the two were joined",
            "across": "logarithm of all affinities between the two sides of the segment",
            "cut": "their mean",
            "next": "how far the score lies below that of the last merge within either side",
        },
    ),
    "split": Kind(
        "split",
        {
            **SCORE,
            "other": "highest score, shrunk towards 0, of another contact of the smaller side",
            "other_larger": "highest score, shrunk towards 0, of another contact of the larger side",
            "share": "share of the smaller side's contacts that lie here",
            "partners": "logarithm of the number of segments that the smaller side touches",
        },
    ),
}
SOURCES: Mapping[str, str] = {"merge tree": "pipeline.suspects.merge_tree:find"}
"""Name -> a function of ``Tables`` that yields ``Candidates``, as "module:attribute"."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """Places of one kind that may be wrong."""

    kind: str
    supervoxels: np.ndarray
    """uint64 (n, 2): those that touch there, the smaller id first"""
    segments: np.ndarray
    """uint64 (n, 2): the segments of the two"""
    sides: np.ndarray
    """int64 (n, 2): voxels of the smaller and of the larger side"""
    contact: np.ndarray
    """int64 (n,): affinities on the contact"""
    features: np.ndarray
    """float64 (n, f): a column for each feature of the kind"""

    def __len__(self) -> int:
        return len(self.contact)

    @classmethod
    def none(cls, kind: str) -> Candidates:
        """No candidate."""
        pairs, whole = np.zeros((0, 2), np.uint64), np.zeros((0, 2), np.int64)
        return cls(kind, pairs, pairs, whole, whole[:, 0], np.zeros((0, len(KINDS[kind].features))))

    def feature(self, name: str) -> np.ndarray:
        """One column of the features, (n,)."""
        return self.features[:, list(KINDS[self.kind].features).index(name)]

    def chosen(self, rows: np.ndarray) -> Candidates:
        """Some of them, by bool (n,) or by places."""
        columns = (self.supervoxels, self.segments, self.sides, self.contact, self.features)
        return Candidates(self.kind, *(column[rows] for column in columns))


def find_candidates(tables: Tables) -> Iterator[Candidates]:
    """The candidates of all sources, part by part."""
    for source in SOURCES.values():
        find: Callable[[Tables], Iterator[Candidates]] = load(source)
        yield from find(tables)
