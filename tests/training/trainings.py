"""The tests of training share these settings of a short training, and these looks at its results."""

import json

import pytest
import torch
from lightning.pytorch import Callback

from pipeline.geometry import BoundingBox
from pipeline.training.callbacks import CHECKPOINT, weights_of
from pipeline.training.config import TrainConfig
from pipeline.training.module import TrainingModule
from pipeline.training.trainer import make_trainer, quiet_lightning, train
from tests.runs import write_volume
from tests.training.volumes import cubes, store

MINI = {
    "widths": [4, 6],
    "horizontal": [[3, 3, 3], [1, 3, 3]],
    "pools": [[1, 2, 2]],
    "stride": [2, 2, 2],
    "steps": 2,
}


def settings(output, **changes):
    """A training of six steps on bright cubes."""
    volume = store("cubes", *cubes((24, 32, 32)))
    held_back = BoundingBox((16, 0, 0), (24, 32, 32))
    values = {
        "output": str(output),
        "name": "mini",
        "volumes": [volume.model_copy(update={"start": (0, 0, 0), "stop": (16, 32, 32)})],
        "validation": volume.model_copy(update={"start": held_back.start, "stop": held_back.stop}),
        "arguments": MINI,
        "patch_shape": (8, 16, 16),
        "overlap": (2, 4, 4),
        "steps": 6,
        "warmup_steps": 2,
        "validate_every": 3,
        "training_data": "cubes, z < 16",
        "licence": "CC0-1.0",
    }
    return TrainConfig.model_validate(values | changes, strict=False)


def stored_cubes(folder, start, stop):
    """A part of bright cubes on disk, where another process finds them."""
    names = {}
    for name, array in zip(("image", "labels"), cubes((24, 32, 32)), strict=True):
        names[name] = str(folder / f"{name}-{start[0]}.zarr")
        write_volume(folder / f"{name}-{start[0]}.zarr", array)
    return {**names, "start": start, "stop": stop}


class Killed(Exception):  # noqa: N818  (it stands for a signal)
    """A test raises this in the middle of a training, in place of a signal."""


def train_killed_after(config, step):
    """Train until a step is done, and die before anything else is."""

    def die(done, _total):
        if done == step:
            raise Killed

    with pytest.raises(Killed):
        train(config, on_progress=die)


def fitted(config, *callbacks):
    """A module after its training, which ``callbacks`` have watched; nothing is written by the trainer itself."""
    torch.set_num_threads(1)
    module = TrainingModule(config)
    with quiet_lightning():
        make_trainer(config, list(callbacks)).fit(module)
    return module


class Watch(Callback):
    """Calls a function of (module, steps done) before the first step and after each."""

    def __init__(self, look):
        self.look = look

    def on_train_start(self, trainer, pl_module):
        self.look(pl_module, 0)

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.look(pl_module, trainer.global_step)


def checkpoint(folder):
    """All tensors of a checkpoint, by path."""
    return dict(tensors(weights_of(folder / CHECKPOINT)))


def tensors(content, path=""):
    if isinstance(content, torch.Tensor):
        yield path, content
    elif isinstance(content, dict | list | tuple):
        for key, value in content.items() if isinstance(content, dict) else enumerate(content):
            yield from tensors(value, f"{path}/{key}")


def log(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
