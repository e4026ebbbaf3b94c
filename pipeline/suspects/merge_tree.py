"""Candidates of the merge tree: joins that were made, and contacts of two segments that were refused.

    merger   an edge of a segment's tree; without it the segment falls into two sides. Of the contacts of supervoxels
             that a merge brought together, the largest is the edge and the place to look at
    split    all contacts of two segments, which the threshold kept apart; the place is the largest of them

All features are sums of integers over the contacts of supervoxels, and scores of the tree: any chunks give the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.segmentation.spanning import cut_sides, joining_merges
from pipeline.suspects.candidates import KINDS, Candidates, nowhere
from pipeline.suspects.tables import Share, Tables, groups

WHITE = 255
PRIOR = 10
"""Affinities that are added to a contact before its mean counts, so that a few voxels say little."""


def find(tables: Tables) -> Iterator[Candidates]:
    """The candidates of a run, share by share."""
    facts = Facts.of(tables)
    for share in tables:
        yield mergers(share, tables.run.threshold)
        yield splits(share, facts, tables.run.threshold)


# ---------------------------------------------------------------- joins that were made


def mergers(share: Share, threshold: float) -> Candidates:
    """The edges of the trees of a share's segments."""
    return _joins(share, threshold)[0]


def joins_of(share: Share, threshold: float, numbers: np.ndarray) -> Candidates:
    """The edges that merges of a share, int64 (n,), have made."""
    made, by = _joins(share, threshold)
    return made.chosen(np.searchsorted(by, numbers))


def joined_by(share: Share, pairs: np.ndarray) -> np.ndarray:
    """The number of the merge that brought two supervoxels of a segment together, int64 (n,); pairs: uint64 (n, 2).

    It is -1 for a supervoxel and itself, and for two that an edit alone has joined.
    """
    return joining_merges(share.voxels, _merged(share), share.places(pairs).astype(np.int64))[0]


def _merged(share: Share) -> np.ndarray:
    """The places of the supervoxels of each merge, int64 (k, 2)."""
    return share.places(np.stack([share.merges["a"], share.merges["b"]], axis=1)).astype(np.int64)


def _joins(share: Share, threshold: float) -> tuple[Candidates, np.ndarray]:
    """The edges of the trees of a share's segments, and the merge that made each, int64 (n,), ascending."""
    ends = _merged(share)
    pairs, counts, sums = share.places(share.pairs[share.inner]), share.counts[share.inner], share.sums[share.inner]
    by, before = joining_merges(share.voxels, ends, pairs)
    pairs, counts, sums, by = (each[by >= 0] for each in (pairs, counts, sums, by))
    bundles = Bundles.of(by, counts, sums)
    edges, scores = pairs[bundles.largest], share.merges["score"][bundles.keys]
    sides, across = cut_sides(share.voxels, edges, pairs, counts, sums)
    columns = {
        **_shared(scores, (scores - threshold) / max(1 - threshold, 1e-9), bundles, sides),
        "joined": np.log(before[bundles.keys].min(axis=1)),
        "across": np.log(across[:, 0]),
        "cut": across[:, 1] / across[:, 0] / WHITE,
        "next": _last_within(share, ends, by)[bundles.keys] - scores,
    }
    names = share.ids[edges]
    features = table_of("merger", columns)
    made = Candidates("merger", names, share.segments[edges], sides, bundles.counts, features, nowhere(len(names)))
    return made, bundles.keys


def _last_within(share: Share, ends: np.ndarray, by: np.ndarray) -> np.ndarray:
    """For every merge the lower score of the last merges within its two sides, 1 where a side is one supervoxel."""
    lowest = np.ones(len(ends))
    last = np.ones(len(share.ids))
    for number, (a, b) in enumerate(ends.tolist()):  # a region is named by its smallest supervoxel, which is a
        lowest[number] = min(last[a], last[b])
        last[a] = share.merges["score"][number]
    return lowest


# ---------------------------------------------------------------- contacts that were refused


@dataclass(frozen=True, eq=False)
class Facts:
    """What is known of every segment: 40 bytes each."""

    segments: np.ndarray
    """uint64 (n,), ascending"""
    voxels: np.ndarray
    contacts: np.ndarray
    """int64 (n,): affinities on all of its contacts"""
    partners: np.ndarray
    """int64 (n,): segments that it touches"""
    best: np.ndarray
    """float64 (n, 2): the highest shrunk scores of its contacts, and the second highest; 0 where there is none"""

    @classmethod
    def of(cls, tables: Tables) -> Facts:
        """Those of all segments."""
        parts = [_facts(share) for share in tables]
        columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
        order = np.argsort(columns[0])
        return cls(*(column[order] for column in columns))


def _facts(share: Share) -> tuple[np.ndarray, ...]:
    """Segments, voxels, contacts, partners and best scores of a share."""
    segments, place = np.unique(share.segments, return_inverse=True)
    voxels, contacts, partners = (np.zeros(len(segments), np.int64) for _ in range(3))
    np.add.at(voxels, place, share.voxels)
    pairs, bundles = _refused(share)
    owners, scores = pairs.T.reshape(-1), np.tile(bundles.shrunk(0), 2)
    counts = np.tile(bundles.counts, 2)
    here = share.holds(owners)
    owners, scores, counts = np.searchsorted(segments, owners[here]), scores[here], counts[here]
    np.add.at(contacts, owners, counts)
    np.add.at(partners, owners, 1)
    return segments, voxels, contacts, partners, _two_highest(owners, scores, len(segments))


def _two_highest(owners: np.ndarray, scores: np.ndarray, count: int) -> np.ndarray:
    """The two highest scores of each owner, float64 (count, 2)."""
    best = np.zeros((count, 2))
    order = np.lexsort((-scores, owners))
    owners, scores = owners[order], scores[order]
    first = np.flatnonzero(np.diff(owners, prepend=-1))
    best[owners[first], 0] = scores[first]
    rest = np.delete(np.arange(len(owners)), first)
    second = rest[np.diff(owners[rest], prepend=-1) != 0]
    best[owners[second], 1] = scores[second]
    return best


def _refused(share: Share) -> tuple[np.ndarray, Bundles]:
    """The pairs of segments that touch, uint64 (n, 2), and their contacts."""
    outer = ~share.inner
    pairs = np.sort(share.sides[outer], axis=1)
    order, starts = groups(pairs)
    key = np.empty(len(pairs), np.int64)
    key[order] = np.cumsum(np.isin(np.arange(len(pairs)), starts)) - 1
    return pairs[order][starts], Bundles.of(key, share.counts[outer], share.sums[outer])


def splits(share: Share, facts: Facts, threshold: float) -> Candidates:
    """The pairs of segments that touch, whose smaller id is in this share."""
    found = refused(share, facts, threshold)
    return found.chosen(share.holds(found.segments.min(axis=1)))


def refused(share: Share, facts: Facts, threshold: float) -> Candidates:
    """All pairs of segments that touch, of which one is in this share, in the order of their ids."""
    pairs, bundles = _refused(share)
    at = np.searchsorted(facts.segments, pairs)
    swapped = facts.voxels[at[:, 0]] > facts.voxels[at[:, 1]]
    at[swapped] = at[swapped, ::-1]
    small, large, sides = at[:, 0], at[:, 1], facts.voxels[at]
    shrunk = bundles.shrunk(0)
    columns = {
        **_shared(bundles.means, (threshold - bundles.means) / max(threshold, 1e-9), bundles, sides),
        "other": _best_other(facts.best[small], shrunk),
        "other_larger": _best_other(facts.best[large], shrunk),
        "share": bundles.counts / facts.contacts[small],
        "partners": np.log(facts.partners[small]),
    }
    outer = np.flatnonzero(~share.inner)[bundles.largest]
    features, places = table_of("split", columns), nowhere(len(outer))
    return Candidates("split", share.pairs[outer], share.sides[outer], sides, bundles.counts, features, places)


def _best_other(best: np.ndarray, own: np.ndarray) -> np.ndarray:
    """The highest score of a segment's other contacts: the second highest where the contact itself has the highest."""
    return np.where(own >= best[:, 0], best[:, 1], best[:, 0])


# ---------------------------------------------------------------- what both have


@dataclass(frozen=True, eq=False)
class Bundles:
    """Contacts of supervoxels in groups, such as all those of two segments; in the order of their keys."""

    keys: np.ndarray
    """int64 (n,), ascending"""
    counts: np.ndarray
    """int64 (n,): affinities of the group"""
    sums: np.ndarray
    largest: np.ndarray
    """int64 (n,): the place of its largest contact, of equal ones the first"""
    weakest: np.ndarray
    """float64 (n,): lowest and highest shrunk mean of a contact"""
    strongest: np.ndarray
    parts: np.ndarray
    """int64 (n,): contacts"""

    @classmethod
    def of(cls, keys: np.ndarray, counts: np.ndarray, sums: np.ndarray) -> Bundles:
        """The groups of contacts with the same key, int64 (m,)."""
        order = np.lexsort((-counts, keys))
        starts = np.flatnonzero(np.diff(keys[order], prepend=-1))
        shrunk = ((sums + PRIOR * WHITE / 2) / (counts + PRIOR) / WHITE)[order]
        if not len(starts):
            none, real = np.zeros(0, np.int64), np.zeros(0)
            return cls(none, none, none, none, real, real, none)
        return cls(
            keys[order][starts],
            np.add.reduceat(counts[order], starts),
            np.add.reduceat(sums[order], starts),
            order[starts],
            np.minimum.reduceat(shrunk, starts),
            np.maximum.reduceat(shrunk, starts),
            np.diff(starts, append=len(order)),
        )

    @property
    def means(self) -> np.ndarray:
        """Mean affinity of each group, 0..1."""
        return self.sums / self.counts / WHITE

    def shrunk(self, towards: float) -> np.ndarray:
        """The mean of each group and of ``PRIOR`` affinities of a value 0..1 besides."""
        return (self.sums + PRIOR * WHITE * towards) / (self.counts + PRIOR) / WHITE

    def chosen(self, rows: np.ndarray) -> Bundles:
        """Some of the groups."""
        return Bundles(*(column[rows] for column in vars(self).values()))


def _shared(scores: np.ndarray, margin: np.ndarray, bundles: Bundles, sides: np.ndarray) -> dict[str, np.ndarray]:
    """The features that both kinds have."""
    small = np.log(np.maximum(sides[:, 0], 1))
    return {
        "score": scores,
        "margin": margin,
        "contact": np.log(bundles.counts),
        "weakest": bundles.weakest,
        "strongest": bundles.strongest,
        "parts": np.log(bundles.parts),
        "smaller": small,
        "larger": np.log(np.maximum(sides[:, 1], 1)),
        "neck": np.log(bundles.counts) - 2 / 3 * small,
    }


def table_of(kind: str, columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """The columns in the order of the kind's features, float64 (n, f)."""
    return np.stack([columns[name] for name in KINDS[kind].features], axis=1).astype(np.float64)
