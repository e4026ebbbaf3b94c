"""Sparse histograms that are joined without copying: a linked list of (value, count) for each contact."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.segmentation.compiled import kernel, part

END = np.int32(-1)
VALUES = 256


class Histograms(NamedTuple):
    """Linked lists of entries. Entry i is ``values[i]``, ``counts[i]`` times; the next entry of its list is
    ``following[i]``.
    """

    first: np.ndarray
    """int32 (m,): first entry of each contact; empty if there are no histograms"""
    last: np.ndarray
    joined: np.ndarray
    """bool (m,): the list is not sorted, and may hold a value twice"""
    following: np.ndarray
    values: np.ndarray
    counts: np.ndarray
    scratch: np.ndarray
    """int64 (256,): zeros between calls"""


def histograms_of(n: int, offsets: np.ndarray, values: np.ndarray, counts: np.ndarray) -> Histograms:
    """Lists made of the rows of a sparse table, or none if ``offsets`` is empty; the arrays are not changed."""
    following = np.arange(1, len(values) + 1, dtype=np.int32)
    if not len(offsets):
        n, offsets = 0, np.zeros(1, np.int64)
    following[offsets[1:] - 1] = END
    return Histograms(
        offsets[:-1].astype(np.int32),
        (offsets[1:] - 1).astype(np.int32),
        np.zeros(n, np.bool_),
        following,
        values.copy(),
        counts.copy(),
        np.zeros(VALUES, np.int64),
    )


@part
def move(histograms, contact, other):  # type: ignore[no-untyped-def]
    """Append the list of one contact to that of another."""
    histograms.following[histograms.last[contact]] = histograms.first[other]
    histograms.last[contact] = histograms.last[other]
    histograms.joined[contact] = True


@part
def quantile(histograms, contact, total, millionths):  # type: ignore[no-untyped-def]
    """The smallest value v such that max(1, ceil(millionths * total / 10**6)) of ``total`` values are at most v."""
    _sort(histograms, contact)
    rank = max((millionths * total + 999_999) // 1_000_000, 1)
    entry = histograms.first[contact]
    seen = histograms.counts[entry]
    while seen < rank:
        entry = histograms.following[entry]
        seen += histograms.counts[entry]
    return histograms.values[entry]


@part
def _sort(histograms, contact):  # type: ignore[no-untyped-def]
    """Rewrite a joined list into its own first entries, sorted and with each value once."""
    if not histograms.joined[contact]:
        return
    entry = histograms.first[contact]
    while entry != END:
        histograms.scratch[histograms.values[entry]] += histograms.counts[entry]
        entry = histograms.following[entry]
    entry = histograms.first[contact]
    for value in range(VALUES):
        if histograms.scratch[value]:
            histograms.values[entry], histograms.counts[entry] = value, histograms.scratch[value]
            histograms.scratch[value] = 0
            histograms.last[contact] = entry
            entry = histograms.following[entry]
    histograms.following[histograms.last[contact]] = END
    histograms.joined[contact] = False


def sorted_rows(histograms: Histograms, contacts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The lists of these contacts (int64) as rows of a sparse table: offsets, values and counts."""
    offsets = np.zeros(len(contacts) + 1, np.int64)
    _sort_lists(histograms, contacts, offsets)
    values, counts = np.empty(offsets[-1], np.uint8), np.empty(offsets[-1], np.int64)
    _write_lists(histograms, contacts, offsets, values, counts)
    return offsets, values, counts


def no_histograms() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Offsets, values and counts of a graph that keeps sums only."""
    return np.empty(0, np.int64), np.empty(0, np.uint8), np.empty(0, np.int64)


@kernel
def _sort_lists(histograms, contacts, offsets):  # type: ignore[no-untyped-def]
    for i in range(contacts.size):
        _sort(histograms, contacts[i])
        offsets[i + 1] = offsets[i]
        entry = histograms.first[contacts[i]]
        while entry != END:
            offsets[i + 1] += 1
            entry = histograms.following[entry]


@kernel
def _write_lists(histograms, contacts, offsets, values, counts):  # type: ignore[no-untyped-def]
    for i in range(contacts.size):
        entry = histograms.first[contacts[i]]
        for place in range(offsets[i], offsets[i + 1]):
            values[place], counts[place] = histograms.values[entry], histograms.counts[entry]
            entry = histograms.following[entry]
