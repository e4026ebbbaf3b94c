"""Codes of patches by an autoencoder that is trained on them."""

from __future__ import annotations

import numpy as np
import torch

from pipeline.few_labels.candidates import Candidates
from pipeline.few_labels.choice import choose
from pipeline.geometry import BoundingBox, Vec
from pipeline.training.patch_codes import NUMBERS, patch_codes


def stripes(count: int, axis: int, rng: np.random.Generator) -> np.ndarray:
    """Noisy patches with stripes across an axis, (count, 16, 16, 16)."""
    wave = 100 * np.sin(np.arange(16) * np.pi / 4).reshape([-1 if a == axis else 1 for a in range(3)])
    return wave + rng.normal(0, 20, (count, 16, 16, 16))


def test_patches_that_look_alike_have_codes_that_are_near() -> None:
    """Stripes of two directions fall apart: a patch is nearer to the mean code of its own kind than to the other."""
    rng = np.random.default_rng(0)
    codes = patch_codes(np.concatenate([stripes(30, 0, rng), stripes(30, 2, rng)]))
    assert codes.shape == (60, NUMBERS)
    means = codes[:30].mean(0), codes[30:].mean(0)
    nearer = [np.linalg.norm(codes - mean, axis=1) for mean in means]
    assert ((nearer[0] < nearer[1]) == (np.arange(60) < 30)).mean() > 0.95


def test_codes_are_a_function_of_the_patches() -> None:
    """The same patches give the same codes, and neither the random numbers nor the threads of the caller change."""
    patches = stripes(20, 1, np.random.default_rng(1))
    torch.manual_seed(5)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    first = patch_codes(patches)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    torch.manual_seed(6)
    assert np.array_equal(patch_codes(patches), first)


def test_boxes_are_chosen_by_codes_if_there_are_patches() -> None:
    """Boxes of equal statistics are told apart by their patches: of two kinds both are chosen."""
    rng = np.random.default_rng(2)
    patches = np.concatenate([stripes(30, 0, rng), stripes(3, 2, rng)])
    boxes = tuple(BoundingBox.from_shape(Vec(1, 1, 1), (0, 0, x)) for x in range(33))
    unsure = np.linspace(1, 0.5, 33)
    plain = Candidates(boxes, unsure, unsure, np.ones((33, 2)), np.ones((33, 80)))
    told = Candidates(boxes, unsure, unsure, np.ones((33, 2)), np.ones((33, 80)), patches)
    assert max(choice.number for choice in choose(plain, 2)) < 30
    assert max(choice.number for choice in choose(told, 2)) >= 30
