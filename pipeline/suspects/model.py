"""The probability that a candidate is wrong: a logistic model of its features and their products, as plain numbers.

    logit = bias + sum of weight * term,   term = s(f) or s(f) * s(g),   s(f) = (f - mean) / scale, within -4 .. 4

The numbers are stored as JSON, so that they can be read, and used without any library for learning.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from itertools import combinations_with_replacement
from typing import Any

import numpy as np

from pipeline.errors import ConfigError, ModelError
from pipeline.formats import SUSPECTS_MODEL
from pipeline.storage import store_of
from pipeline.suspects.candidates import KINDS, Candidates

FARTHEST = 4.0
"""Features further away from the mean, in units of their scale, count as this far."""
BUNDLED = "model.json"


@dataclass(frozen=True)
class Logistic:
    """The model of one kind of candidate."""

    means: Mapping[str, float]
    scales: Mapping[str, float]
    bias: float
    weights: Mapping[str, float]
    """Name of a feature, or of two with ``*`` between -> weight."""

    def probability(self, features: np.ndarray) -> np.ndarray:
        """For features (n, f) in the order of ``means``, the probability of each row: float64 (n,).

        It is added up column by column, so that the rows around a row have no effect, not even by rounding.
        """
        standard = self.standard(features)
        total = np.full(len(features), self.bias)
        for term, weight in self.weights.items():
            total += weight * term_of(standard, term)
        return np.asarray(1 / (1 + np.exp(-total)))

    def standard(self, features: np.ndarray) -> dict[str, np.ndarray]:
        """The features by name, in units of their scale."""
        return {
            name: np.clip((features[:, column] - mean) / self.scales[name], -FARTHEST, FARTHEST)
            for column, (name, mean) in enumerate(self.means.items())
        }


def terms_of(names: list[str]) -> list[str]:
    """All terms of a model with these features."""
    return [*names, *("*".join(pair) for pair in combinations_with_replacement(names, 2))]


def term_of(standard: Mapping[str, np.ndarray], term: str) -> np.ndarray:
    """The values of one term, (n,)."""
    first, *second = term.split("*")
    return standard[first] * standard[second[0]] if second else standard[first]


@dataclass(frozen=True)
class Model:
    """A model for all kinds of candidates."""

    trained_on: str
    """The labelled tissue, with its licence where it has one."""
    kinds: Mapping[str, Logistic]

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Model:
        """The model of a JSON document."""
        return cls(plain["trained_on"], {name: Logistic(**numbers) for name, numbers in plain["kinds"].items()})

    @classmethod
    def bundled(cls) -> Model:
        """The model that comes with petaseg."""
        return cls.parse(files("pipeline.suspects").joinpath(BUNDLED).read_bytes(), BUNDLED)

    @classmethod
    def load(cls, place: str) -> Model:
        """The model of a file that ``--calibrate`` has written; ``ConfigError`` if there is none."""
        store, key = store_of(place)
        data = store.get_or_none(key)
        if data is None:
            raise ConfigError(f"{place} does not exist; `petaseg suspects RUN --calibrate LABELS` writes a model")
        return cls.parse(data, place).completed()

    @classmethod
    def parse(cls, data: bytes, place: str) -> Model:
        """The model of a file's bytes; ``ConfigError`` if it is of other features, ``ModelError`` if it is too new."""
        model = SUSPECTS_MODEL.read(data, place, cls.of, ModelError, damaged="calibrate again")
        for name, numbers in model.kinds.items():
            if name in KINDS and list(numbers.means) != list(KINDS[name].features):
                raise ConfigError(f"{place}: the features of a {name} are {', '.join(numbers.means)}; calibrate again")
        return model

    def completed(self) -> Model:
        """With the bundled numbers for kinds that labelled tissue may have too few of, where it has none."""
        bundled = {name: numbers for name, numbers in Model.bundled().kinds.items() if KINDS[name].prior is not None}
        return Model(self.trained_on, {**bundled, **self.kinds})

    def to_bytes(self) -> bytes:
        """The file of the model."""
        kinds = {name: {**vars(model)} for name, model in self.kinds.items()}
        plain = {**SUSPECTS_MODEL.stamp, "trained_on": self.trained_on, "kinds": kinds}
        return (json.dumps(plain, indent=1) + "\n").encode()

    def probability(self, candidates: Candidates) -> np.ndarray:
        """The probability that each candidate is wrong, float64 (n,).

        Without numbers for a kind it is the prior; ``ConfigError`` if that has none either.
        """
        if candidates.kind not in self.kinds and (prior := KINDS[candidates.kind].prior) is not None:
            return np.full(len(candidates), prior)
        if candidates.kind not in self.kinds:
            raise ConfigError(
                f"the model has no numbers for a {candidates.kind}; it knows {', '.join(self.kinds)}: calibrate again"
            )
        return self.kinds[candidates.kind].probability(candidates.features)
