"""Volumes, object stores and predictors that a worker opens once in its process, by the strings that name them."""

from __future__ import annotations

import socket
from functools import lru_cache
from typing import TYPE_CHECKING

from pipeline.evaluation.run_length import Skeletons
from pipeline.geometry import Vec
from pipeline.stages.environment import Environment
from pipeline.storage import ObjectStore
from pipeline.volumes import open_volume
from pipeline.volumes.base import Volume

if TYPE_CHECKING:  # only stages that predict import torch
    from pipeline.inference.predictor import PredictOptions, Predictor
    from pipeline.stages.base import Stage


@lru_cache(maxsize=64)
def volume(url: str) -> Volume:
    """The volume for reading and writing, opened once."""
    return open_volume(url, mode="r+")


@lru_cache(maxsize=64)
def source(url: str) -> Volume:
    """The volume for reading only, opened once."""
    return open_volume(url, mode="r")


@lru_cache(maxsize=64)
def store(url: str) -> ObjectStore:
    """The folder of small objects, opened once."""
    return ObjectStore(url)


@lru_cache(maxsize=4)
def skeletons(url: str) -> Skeletons:
    """Skeletons of true neurons, a path or URL, read once."""
    return Skeletons.load(url)


@lru_cache(maxsize=2)
def predictor(card: str, options: PredictOptions) -> Predictor:
    """The model on its device with its weights, loaded once."""
    from pipeline.inference.predictor import Predictor
    from pipeline.models.spec import load_card, load_model

    return Predictor(load_model(load_card(card), device=options.device), options)


@lru_cache(maxsize=4)
def environment(card: str, options: PredictOptions, patch_shape: Vec) -> Environment:
    """What this process computes the model with, measured once."""
    from pipeline.inference.runtime import environment_names

    digest = predictor(card, options).digest(patch_shape)
    return Environment(digest, environment_names(options), socket.gethostname())


@lru_cache(maxsize=1)
def agreed() -> set[Stage]:
    """The stages for whose run this process is known to compute the recorded bytes."""
    return set()


def forget() -> None:
    """Close everything; for tests that replace a volume under the same name."""
    for cache in (volume, source, store, skeletons, predictor, environment, agreed):
        cache.cache_clear()
