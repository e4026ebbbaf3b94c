"""Fit the model to candidates of which somebody knows whether they are wrong: penalised maximum likelihood."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.errors import ConfigError
from pipeline.suspects.candidates import KINDS
from pipeline.suspects.model import Logistic, term_of, terms_of

PENALTY = 50.0
"""Half of the squared weights is punished by this much."""
STEPS = 100
CLOSE = 1e-7
LEAST = 10
"""Wrong candidates of a kind that a model needs at least, and as many right ones."""
LARGEST = 200_000
"""Candidates of a kind that are used at most, evenly chosen."""


def has_enough(wrong: np.ndarray) -> bool:
    """True if so many candidates are wrong, and so many right, that a model can be fitted; wrong: bool (n,)."""
    return bool(min(wrong.sum(), (~wrong).sum()) >= LEAST)


def fit(kind: str, features: np.ndarray, wrong: np.ndarray, weights: np.ndarray | None = None) -> Logistic:
    """The model of a kind.

    Args:
        kind: a key of ``KINDS``.
        features: float64 (n, f), in the order of the kind's features.
        wrong: bool (n,)
        weights: float64 (n,), how often each candidate counts; once if left out

    Raises:
        ConfigError: too few candidates are wrong, or right.
    """
    if not has_enough(wrong):
        raise ConfigError(
            f"{int(wrong.sum())} of {len(wrong)} candidates of kind {kind} are wrong in the labelled tissue; at least "
            f"{LEAST} must be wrong, and as many right: label more tissue, or take another threshold"
        )
    rows = np.unique(np.linspace(0, len(wrong) - 1, LARGEST).astype(np.int64))
    features, wrong, counted = features[rows], wrong[rows], np.ones(len(rows)) if weights is None else weights[rows]
    names = list(KINDS[kind].features)
    means, scales = features.mean(axis=0), np.maximum(features.std(axis=0), 1e-6)
    empty = Logistic(_named(names, means), _named(names, scales), 0.0, {})
    standard, terms = empty.standard(features), terms_of(names)
    table = np.stack([np.ones(len(wrong)), *(term_of(standard, term) for term in terms)], axis=1)
    found = _newton(table, wrong.astype(np.float64), counted)
    return Logistic(empty.means, empty.scales, float(found[0]), _named(terms, found[1:]))


def _named(names: Sequence[str], values: np.ndarray) -> dict[str, float]:
    return {name: float(f"{value:.10g}") for name, value in zip(names, values, strict=True)}


def _newton(table: np.ndarray, wrong: np.ndarray, counted: np.ndarray) -> np.ndarray:
    """The weights of a table (n, t) whose first column is 1 and is not punished."""
    weights, penalty = np.zeros(table.shape[1]), np.full(table.shape[1], PENALTY)
    penalty[0] = 0
    for _ in range(STEPS):
        chance = 1 / (1 + np.exp(-table @ weights))
        slope = table.T @ (counted * (chance - wrong)) + penalty * weights
        curvature = (table * (counted * chance * (1 - chance))[:, None]).T @ table + np.diag(penalty + 1e-9)
        step = np.linalg.solve(curvature, slope)
        weights = weights - step / max(1.0, float(np.abs(step).max()))
        if np.abs(step).max() < CLOSE:
            break
    return weights
