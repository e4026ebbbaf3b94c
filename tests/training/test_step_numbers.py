"""Which patches a step draws depends on the step and on the process, and not on where a training went on."""

import pytest

from pipeline.training.config import TrainConfig
from pipeline.training.data import StepNumbers
from tests.training.volumes import cubes, store


def numbers(first, last, *, rank=0, **changes):
    volume = store("numbers", *cubes((24, 32, 32)))
    values = {"output": "unused", "name": "unused", "volumes": (volume,), "validation": volume, **changes}
    return list(StepNumbers(first, last, TrainConfig(**values), rank))


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_a_training_that_goes_on_draws_the_patches_that_one_without_a_stop_draws(stop):
    assert numbers(0, stop, batch_size=3) + numbers(stop, 6, batch_size=3) == numbers(0, 6, batch_size=3)


def test_no_patch_is_drawn_twice_by_any_process_or_step():
    drawn = [n for rank in range(2) for n in numbers(0, 5, rank=rank, batch_size=3, devices=2)]
    assert sorted(drawn) == list(range(30))
