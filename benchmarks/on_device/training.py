"""A short training: how many updates a second, and whether its loss falls."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from statistics import fmean
from typing import Any

import torch
from lightning.pytorch import Callback
from on_device.rows import Row, shown
from on_device.sizes import Sizes

from pipeline.geometry import Triple, as_vec
from pipeline.training.config import TrainConfig
from pipeline.training.module import TrainingModule
from pipeline.training.trainer import fit


def trained(network: str, patch: Triple, device: str, sizes: Sizes) -> Iterator[Row]:
    """Train a named size on made-up tissue as `petaseg train` does, drawing of patches included."""
    watch, steps = Watch(), sizes.updates
    with tempfile.TemporaryDirectory() as folder:
        config = settings(network, patch, device, sizes, folder)
        torch.set_num_threads(config.threads)
        fit(TrainingModule(config), config, [watch], resume=False)
    described = f"{config.batch_size} x {shown(patch)}, {config.precision}"
    rate = (steps - 1) / (watch.times[-1] - watch.times[0])
    yield Row("training", network, described, rate, "updates/s", note=f"{config.loaders} loaders, wall-clock time")
    first, last = fmean(watch.losses[: steps // 4]), fmean(watch.losses[-(steps // 4) :])
    note = f"mean of the last quarter of {steps} updates; of the first {first:.3f}"
    yield Row("training loss", network, described, last, note=note, wrong=not last < first)


def settings(network: str, patch: Triple, device: str, sizes: Sizes, folder: str) -> TrainConfig:
    """A training of a named size with one validation, at its end."""
    architecture, _, size = network.partition("/")
    steps = {"steps": sizes.updates, "validate_every": sizes.updates, "warmup_steps": sizes.updates // 4}
    machine = {"device": device, "loaders": sizes.loaders, "batch_size": sizes.together, "precision": sizes.precision}
    values = {
        **{"name": "gpu", "output": folder, "pictures": False, "patch_shape": patch, **steps, **machine},
        **{"architecture": architecture, "arguments": size},
        "synthetic": {"volumes": 1, "shape": as_vec(patch) + 32},
    }
    config: TrainConfig = TrainConfig.model_validate(values, strict=False)
    return config


class Watch(Callback):
    """Losses of a training, and the times at which they were known."""

    def __init__(self) -> None:
        self.losses, self.times = list[float](), list[float]()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, *_: Any) -> None:
        """Read the loss: a GPU has finished its step then."""
        self.losses.append(float(outputs["loss"]))
        self.times.append(time.perf_counter())
