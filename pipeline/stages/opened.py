"""Volumes, object stores and predictors that a worker opens once in its process, by the strings that name them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Generic, ParamSpec, TypeVar

from pipeline.evaluation.run_length import Skeletons
from pipeline.geometry import Vec
from pipeline.stages.environment import Environment
from pipeline.storage import ObjectStore
from pipeline.volumes import open_volume
from pipeline.volumes.base import Volume

if TYPE_CHECKING:  # only stages that predict import torch
    from pipeline.inference.predictor import PredictOptions, Predictor
    from pipeline.stages.base import Stage

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Once(Generic[Arguments, Result]):
    """A function whose results are kept; threads that ask for one at the same time wait until one of them has it."""

    def __init__(self, function: Callable[Arguments, Result]) -> None:
        self._function = lru_cache(maxsize=2)(function)
        self._lock = threading.RLock()

    def __call__(self, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        """The result for these arguments, which are hashable."""
        with self._lock:
            return self._function(*args, **kwargs)  # type: ignore[arg-type]  # the stub cannot know

    def cache_clear(self) -> None:
        """Forget all results."""
        self._function.cache_clear()


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


@Once
def predictor(card: str, options: PredictOptions) -> Predictor:
    """The model on its device with its weights, loaded once."""
    from pipeline.inference.predictor import Predictor
    from pipeline.models.spec import load_card, load_model

    return Predictor(load_model(load_card(card), device=options.device), options)


@Once
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
