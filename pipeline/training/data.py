"""Patches as torch datasets, by number: patch n of a seed is the same in every process and after every restart."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from pipeline.geometry import BoundingBox, Vec
from pipeline.training.config import TrainConfig
from pipeline.training.sampler import Moved, with_channels
from pipeline.training.sampler import Sampler as PatchSampler
from pipeline.training.sources import Source

Batch = tuple[Tensor, Tensor, Tensor]
"""Image (b, c, z, y, x); targets and weights (b, c, z, y, x); all float32."""
VALIDATION_PATCHES = 12


class TrainingPatches(Dataset[Any]):
    """An endless sequence of random patches."""

    def __init__(self, sampler: PatchSampler) -> None:
        self.sampler = sampler

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.sampler.draw(number)


class ValidationPatches(Dataset[Any]):
    """A fixed lattice of patches of the validation part, without random changes."""

    def __init__(self, source: Source, config: TrainConfig) -> None:
        self.source, self.config = source, config
        self.boxes = validation_boxes(source, config)

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        box, n = self.boxes[number], self.config.normalisation
        raw, labels = self.source.read(box)
        image = with_channels((raw - n.offset) / n.scale).astype(np.float32)
        return image, *Moved.whole(labels, self.source.read_mask(box), self.config.channels).targets(
            self.config.channels, self.source.resolution_nm
        )


class StepNumbers(Sampler[int]):
    """Numbers of the patches of steps ``first`` to ``last`` that one of ``processes`` draws."""

    def __init__(self, first: int, last: int, config: TrainConfig, rank: int) -> None:
        self.first, self.last, self.rank = first, last, rank
        self.batch, self.processes = config.batch_size, config.processes

    def __len__(self) -> int:
        return (self.last - self.first) * self.batch

    def __iter__(self) -> Iterator[int]:
        for step in range(self.first, self.last):
            begin = (step * self.processes + self.rank) * self.batch
            yield from range(begin, begin + self.batch)


def training_loader(sampler: PatchSampler, config: TrainConfig, done: int, rank: int) -> DataLoader[Batch]:
    """The patches from a step to the next validation."""
    numbers = StepNumbers(done, min(config.steps, done + config.validate_every), config, rank)
    patches = TrainingPatches(sampler)
    return DataLoader(patches, config.batch_size, sampler=numbers, num_workers=config.loaders, collate_fn=collate)


def validation_loader(source: Source, config: TrainConfig) -> DataLoader[Batch]:
    """The patches of a validation, one by one; every process sees all of them."""
    return DataLoader(ValidationPatches(source, config), 1, collate_fn=collate)


def collate(patches: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Batch:
    """Stack patches into a batch."""
    image, targets, weights = (torch.from_numpy(np.stack(arrays)) for arrays in zip(*patches, strict=True))
    return image, targets, weights


def validation_boxes(source: Source, config: TrainConfig) -> list[BoundingBox]:
    """Patches without overlap over the validation part, evenly spread, at most ``VALIDATION_PATCHES`` of them.

    Where the part is thinner than a patch, the patch is as thin, rounded down to a multiple of 16.
    """
    shape = Vec(*map(_side, config.patch_shape, source.box.shape))
    starts = map(range, source.box.start, source.box.stop - shape + 1, shape)
    boxes = [BoundingBox.from_shape(shape, start) for start in product(*starts)]
    chosen = np.unique(np.linspace(0, len(boxes) - 1, VALIDATION_PATCHES).round().astype(int))
    return [boxes[i] for i in chosen]


def _side(patch: int, part: int) -> int:
    """The patch's side; in a thinner part, the part's, rounded down to a multiple of 16 if it is at least 16."""
    if part >= patch:
        return patch
    return part if part < 16 else part // 16 * 16
