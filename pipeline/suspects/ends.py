"""Ends of skeletons inside of the tissue: a neuron that stops there may go on in another segment.

1. ``Ends.of``      vertices with one edge, far from the border of the region of interest
2. ``touching``     what the segment touches there; an end near masked voxels touches nothing
3. ``Partners.of``  of these segments the one to which the strongest contact leads: faces times mean affinity; no crumb
4. ``_proposed``    the features of the two segments' contact, and what the end adds to them

An end comes with the share of its segment, so that memory is bounded as everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.runs.run import Run
from pipeline.suspects.candidates import Candidates
from pipeline.suspects.costs import CRUMB_UM3
from pipeline.suspects.forest import Forest, forests
from pipeline.suspects.merge_tree import PRIOR, WHITE, Facts, refused
from pipeline.suspects.places import numbers_of
from pipeline.suspects.tables import Share, Tables
from pipeline.suspects.touching import Touching, is_inside, touching

BEHIND_NM = 300.0
"""How far behind an end the direction begins in which it points."""
FARTHEST_NM = 5000.0
"""Longer branches count as this long."""


@dataclass(frozen=True, eq=False)
class Ends:
    """Ends of skeletons."""

    segments: np.ndarray
    """uint64 (n,)"""
    voxels: np.ndarray
    """int64 (n, 3): z, y, x"""
    headings: np.ndarray
    """float64 (n, 3): the direction in which the branch ends, a unit vector in nanometres"""
    branches_nm: np.ndarray
    """float64 (n,): length of the branch, at most ``FARTHEST_NM``"""
    radii_nm: np.ndarray
    """float64 (n,): of the neurite ``BEHIND_NM`` before its end"""

    @classmethod
    def of(cls, forest: Forest, run: Run) -> Ends:
        """Those of skeletons that are inside of the region of interest, in the order of vertices."""
        ends = np.flatnonzero(forest.degrees == 1)
        voxels = forest.voxels(ends, run.layout.resolution_nm)
        inside = is_inside(voxels, run)
        ends, voxels = ends[inside], voxels[inside]
        nexts = forest.neighbours(ends, 1)[:, 0]
        behind, _, _ = forest.walk(ends, nexts, BEHIND_NM)
        _, branches, _ = forest.walk(ends, nexts, FARTHEST_NM)
        headings, radii = forest.headings(behind, ends), forest.radii_nm[behind]
        return cls(forest.segments[ends], voxels, headings, np.minimum(branches, FARTHEST_NM), radii)

    def chosen(self, rows: np.ndarray) -> Ends:
        """Some of them, by bool (n,) or by places."""
        return Ends(*(column[rows] for column in vars(self).values()))


def find(tables: Tables) -> Iterator[Candidates]:
    """The candidates of a run, share by share."""
    run, facts = tables.run, Facts.of(tables)
    for share in tables:
        contacts = refused(share, facts, run.threshold)
        for forest in forests(run):
            ends = Ends.of(forest, run)
            ends = ends.chosen(share.holds(ends.segments))
            near = touching(run, ends.voxels, ends.segments, ends.headings)
            yield _proposed(ends, Partners.of(near, share, _is_crumb(near, facts, run)), contacts)


def _is_crumb(near: Touching, facts: Facts, run: Run) -> np.ndarray:
    """Which of the other segments are too small to be a partner: bool (n,)."""
    voxel_um3 = float(np.prod(run.layout.resolution_nm)) / 1e9
    return np.asarray(facts.voxels[np.searchsorted(facts.segments, near.segments)] * voxel_um3 <= CRUMB_UM3)


@dataclass(frozen=True, eq=False)
class Partners:
    """The segments in which neurons may go on, at most one for each place."""

    place: np.ndarray
    """int64 (n,), ascending: the number of the place"""
    segments: np.ndarray
    """uint64 (n,)"""
    pairs: np.ndarray
    """uint64 (n, 2): the supervoxels that touch most strongly there, the partner's second"""
    features: np.ndarray
    """float64 (n, 4): near, local, first and ahead of ``KINDS``"""

    @classmethod
    def of(cls, near: Touching, share: Share, is_crumb: np.ndarray) -> Partners:
        """The partners that are no crumbs, bool (m,) for each contact near a place; of equal ones the smaller id."""
        rows = numbers_of(near.pairs, share.pairs)
        assert (rows >= 0).all()  # what touches has a contact in the region graph
        means = share.sums[rows] / (share.counts[rows] + PRIOR) / WHITE
        strengths = near.faces * means
        keys = np.stack([near.place.astype(np.uint64), near.segments], axis=1)
        partners, group = np.unique(keys, axis=0, return_inverse=True)
        group = group.reshape(-1)
        total, faces, ahead = (
            np.bincount(group, values, len(partners)) for values in (strengths, near.faces, near.faces * near.ahead)
        )
        worth = np.bincount(group, np.where(is_crumb, 0, strengths), len(partners))
        chosen = _firsts(partners[:, 0], partners[:, 1], -worth)
        chosen = chosen[worth[chosen] > 0]
        place = partners[chosen, 0].astype(np.int64)
        best = _firsts(group, near.pairs[:, 1], near.pairs[:, 0], -strengths)[chosen]
        share_of_all = total[chosen] / np.bincount(near.place, strengths)[place]
        features = [np.log(faces[chosen]), means[best], share_of_all, ahead[chosen] / faces[chosen]]
        return cls(place, partners[chosen, 1], near.pairs[best], np.stack(features, axis=1))


def _firsts(keys: np.ndarray, *by: np.ndarray) -> np.ndarray:
    """For each key, ascending, the place of the row that comes first by some columns, of which the last counts most."""
    order = np.lexsort((*by, keys))
    return order[np.flatnonzero(np.append(True, np.diff(keys[order]) != 0)[: len(keys)])]


def _proposed(ends: Ends, partners: Partners, contacts: Candidates) -> Candidates:
    """The candidates of ends and their partners. contacts: of the segments, in the order of both segments' ids."""
    own = ends.chosen(partners.place)
    segments = np.stack([own.segments, partners.segments], axis=1)
    both = contacts.chosen(numbers_of(segments, np.sort(contacts.segments, axis=1)))
    shape = np.log(np.maximum(np.stack([own.branches_nm, own.radii_nm], axis=1), 1))
    features = np.concatenate([both.features, partners.features, shape], axis=1)
    order = np.argsort(partners.pairs, axis=1)
    pairs, segments = (np.take_along_axis(each, order, axis=1) for each in (partners.pairs, segments))
    return Candidates("end", pairs, segments, both.sides, both.contact, features, own.voxels)
