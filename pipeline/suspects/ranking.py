"""The list of a run: the places that are worth looking at, the most minutes first.

1. ``_best``    candidates share by share; no more than the best so far are kept
2. ``places``   a voxel for each of these
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.errors import ConfigError
from pipeline.runs.run import Run
from pipeline.stages.assign_segments import AssignSegments
from pipeline.suspects.candidates import KINDS, NOWHERE, Candidates, find_candidates
from pipeline.suspects.costs import Costs
from pipeline.suspects.model import Model
from pipeline.suspects.places import find_places
from pipeline.suspects.tables import NUCLEI, Tables

TOP = 1000


@dataclass(frozen=True, eq=False)
class Ranked:
    """Candidates of any kinds in their order, in columns of equal length."""

    kind: np.ndarray
    """str (n,)"""
    supervoxels: np.ndarray
    """uint64 (n, 2)"""
    segments: np.ndarray
    """uint64 (n, 2)"""
    sides: np.ndarray
    """int64 (n, 2)"""
    contact: np.ndarray
    """int64 (n,)"""
    probability: np.ndarray
    """float64 (n,)"""
    minutes: np.ndarray
    """float64 (n,)"""
    features: np.ndarray
    """float64 (n, f): a column for each of ``FEATURES``, NaN where the kind does not have it"""
    places: np.ndarray
    """int64 (n, 3): the voxel to look at, ``NOWHERE`` where it is still to be looked up"""

    def __len__(self) -> int:
        return len(self.minutes)

    def best(self, top: int) -> Ranked:
        """The rows with the most minutes; of equal ones the smaller supervoxels first, then the kind, then the place.

        What two kinds find is listed once, with the most minutes: the same join, or the same two segments kept apart.
        """
        a, b = self.supervoxels.T
        order = np.lexsort((*self.places.T[::-1], self.kind, b, a, -self.minutes))
        _, first = np.unique(self._corrections()[order], axis=0, return_index=True)
        return self.chosen(order[np.sort(first)][:top])

    def _corrections(self) -> np.ndarray:
        """What would be corrected, uint64 (n, 3): a cut between two supervoxels, or two segments that are joined."""
        is_cut = np.isin(self.kind, [name for name, kind in KINDS.items() if kind.error == "merger"])
        ends = np.where(is_cut[:, None], self.supervoxels, np.sort(self.segments, axis=1))
        return np.concatenate([is_cut[:, None].astype(np.uint64), ends], axis=1)

    def chosen(self, rows: np.ndarray) -> Ranked:
        """Some of them, by places."""
        return Ranked(*(column[rows] for column in vars(self).values()))

    def with_rows(self, more: Ranked) -> Ranked:
        """These rows and others behind them."""
        pairs = zip(vars(self).values(), vars(more).values(), strict=True)
        return Ranked(*(np.concatenate(pair) for pair in pairs))


FEATURES = tuple(dict.fromkeys(name for kind in KINDS.values() for name in kind.features))
"""The features of all kinds."""


def rank(run: Run, model: Model, costs: Costs, top: int = TOP, nuclei: str = NUCLEI) -> tuple[Ranked, np.ndarray]:
    """The best candidates of a finished run, and for each a voxel, int64 (n, 3), z y x.

    nuclei: the volume of ``organelles.volumes`` that holds nuclei.
    """
    tables = Tables(run, nuclei=nuclei)
    ranked = _best(tables, model, costs, top)
    places, unknown = ranked.places.copy(), (ranked.places == NOWHERE).all(axis=1)
    places[unknown] = find_places(tables, ranked.supervoxels[unknown])
    return ranked, places


def _best(tables: Tables, model: Model, costs: Costs, top: int) -> Ranked:
    voxel_um3 = float(np.prod(tables.run.layout.resolution_nm)) / 1e9
    best = weighed(Candidates.none(next(iter(KINDS))), model, costs, voxel_um3)
    for candidates in find_candidates(tables):
        best = best.with_rows(weighed(candidates, model, costs, voxel_um3)).best(top)
    return best


def weighed(candidates: Candidates, model: Model, costs: Costs, voxel_um3: float) -> Ranked:
    """Candidates with probability and minutes, those alone that are worth looking at."""
    probability = model.probability(candidates)
    minutes = costs.minutes(candidates, probability, voxel_um3)
    features = np.full((len(candidates), len(FEATURES)), np.nan)
    own = [FEATURES.index(name) for name in KINDS[candidates.kind].features]
    features[:, own] = candidates.features
    rows = np.flatnonzero(minutes > 0)
    chosen = candidates.chosen(rows)
    return Ranked(
        np.full(len(rows), candidates.kind),
        *(chosen.supervoxels, chosen.segments, chosen.sides, chosen.contact),
        *(probability[rows], minutes[rows], features[rows], chosen.places),
    )


def check_run(run: Run) -> None:
    """``ConfigError`` unless a run has neurons and their tables."""
    if run.kind.name != "neurons":
        raise ConfigError(f"{run.url} makes {run.kind.words}; suspects are places between neurons: take such a run")
    stages = [stage for stage in run.stages if stage.name == AssignSegments.name]
    if not run.is_complete(stages[0]):
        raise ConfigError(f"{run.url} has no finished {AssignSegments.name}; finish it first: {run.command}")


def check_nuclei(run: Run, name: str) -> None:
    """``ConfigError`` if a name is neither the usual one nor a volume of the table ``organelles``."""
    known = [each.name for each in run.inputs.organelles]
    if name not in (NUCLEI, *known):
        raise ConfigError(
            f"--nuclei {name}: organelles.volumes of {run.url} has {', '.join(known) or 'none'}; name one"
        )


def state_of(run: Run) -> str:
    """The fingerprint of the segments."""
    return run.stage(AssignSegments.name).fingerprint
