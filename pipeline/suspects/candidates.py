"""What may be wrong: the kinds of candidates, and the sources that find them.

A further kind is a row of ``KINDS`` and a row of ``SOURCES``, whose function yields its candidates from what a run has
stored; the model needs numbers for its features, in ``model.json`` or from ``petaseg suspects RUN --calibrate``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.registry import load
from pipeline.runs.branches import BRANCHES
from pipeline.suspects.tables import Tables

Error = Literal["merger", "split"]
NOWHERE = -1
"""Each coordinate of a place that is looked up later."""


@dataclass(frozen=True)
class Kind:
    """One kind of candidate."""

    error: Error
    """What it is if it is wrong: two neurons in one segment, or one neuron in two."""
    features: Mapping[str, str]
    """The numbers that tell wrong from right, and what they mean."""
    prior: float | None = None
    """The probability that one is wrong where no model was fitted, since labelled tissue may have too few of them."""


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
JOINED = {
    **SCORE,
    "joined": "logarithm of the voxels of the smaller side when the two were joined",
    "across": "logarithm of all affinities between the two sides of the segment",
    "cut": "their mean",
    "next": "how far the score lies below that of the last merge within either side",
}
"""Features of a join that was made."""
REFUSED = {
    **SCORE,
    "other": "highest score, shrunk towards 0, of another contact of the smaller side",
    "other_larger": "highest score, shrunk towards 0, of another contact of the larger side",
    "share": "share of the smaller side's contacts that lie here",
    "partners": "logarithm of the number of segments that the smaller side touches",
}
"""Features of two segments that were kept apart."""
KINDS: Mapping[str, Kind] = {
    "merger": Kind("merger", JOINED),
    "split": Kind("split", REFUSED),
    "end": Kind(
        "split",
        {
            **REFUSED,
            "near": "logarithm of the faces of voxels between the two segments near the end of the skeleton",
            "local": "mean affinity, shrunk towards 0, of the two supervoxels that touch there",
            "first": "share of this partner in what the segment touches near the end: faces times mean affinity",
            "ahead": "how far ahead of the end they touch, -1..1",
            "branch": "logarithm of the length in nanometres of the branch that ends there",
            "calibre": "logarithm of its radius in nanometres",
        },
        prior=0.5,
    ),
    "crossing": Kind(
        "merger",
        {
            **JOINED,
            "straight": "cosine of the bend of the line that bends more",
            "joint": "logarithm of 1 and the nanometres between its two forks",
        },
        prior=0.5,
    ),
    "nuclei": Kind("merger", {**JOINED, "nucleus": "logarithm of the voxels of the smaller nucleus"}, prior=0.8),
}
"""Each kind by its name."""


@dataclass(frozen=True)
class Source:
    """Where candidates come from."""

    find: str
    """A function of ``Tables`` that yields ``Candidates``, as "module:attribute"."""
    branch: str | None = None
    """The branch of a run (``pipeline/runs/branches.py``) without which there are none."""
    of_nuclei: bool = False
    """True if it reads the objects that ``Tables.nuclei`` names."""


SOURCES: Mapping[str, Source] = {
    "merge tree": Source("pipeline.suspects.merge_tree:find"),
    "ends of skeletons": Source("pipeline.suspects.ends:find", "skeletons"),
    "crossings of skeletons": Source("pipeline.suspects.crossings:find", "skeletons"),
    "neurons with two nuclei": Source("pipeline.suspects.nuclei:find", "organelles", of_nuclei=True),
}
"""Each source by its name."""


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
    places: np.ndarray
    """int64 (n, 3): the voxel to look at, z y x; ``NOWHERE`` for the middle of the contact, which is looked up later"""

    def __len__(self) -> int:
        return len(self.contact)

    @classmethod
    def none(cls, kind: str) -> Candidates:
        """No candidate."""
        pairs, whole = np.zeros((0, 2), np.uint64), np.zeros((0, 2), np.int64)
        return cls(kind, pairs, pairs, whole, whole[:, 0], np.zeros((0, len(KINDS[kind].features))), nowhere(0))

    def feature(self, name: str) -> np.ndarray:
        """One column of the features, (n,)."""
        return self.features[:, list(KINDS[self.kind].features).index(name)]

    def chosen(self, rows: np.ndarray) -> Candidates:
        """Some of them, by bool (n,) or by places."""
        columns = (self.supervoxels, self.segments, self.sides, self.contact, self.features, self.places)
        return Candidates(self.kind, *(column[rows] for column in columns))


def nowhere(count: int) -> np.ndarray:
    """Places that are looked up later, int64 (count, 3)."""
    return np.full((count, 3), NOWHERE)


def is_used(source: Source, tables: Tables) -> bool:
    """True if a run has finished what a source reads."""
    if source.branch is None:
        return True
    run, names = tables.run, [stage.name for stage in BRANCHES[source.branch].stages]
    is_named = not source.of_nuclei or any(each.name == tables.nuclei for each in run.inputs.organelles)
    return is_named and all(run.has_stage(name) and run.is_complete(run.stage(name)) for name in names)


def find_candidates(tables: Tables) -> Iterator[Candidates]:
    """The candidates of all sources for which the run has what they need, part by part."""
    for source in SOURCES.values():
        if is_used(source, tables):
            find: Callable[[Tables], Iterator[Candidates]] = load(source.find)
            yield from find(tables)
