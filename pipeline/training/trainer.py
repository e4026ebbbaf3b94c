"""Training on Lightning: resumable at any moment, with a log, curves and pictures and, at the end, a model card.

    <output>/checkpoint.ckpt          weights, running mean, optimiser and loops, as a whole, after each validation
    <output>/log.jsonl                one line for each validation: step, loss, validation loss and score
    <output>/curve.png                the same as a picture
    <output>/pictures/                predictions on a validation patch, step by step of the recurrence
    <output>/tensorboard/             tensorboard --logdir <output>
    <output>/card.yaml, weights.safetensors    the model: the best running mean so far

Patch number n of a seed is always the same, so a training that was killed and resumed gives the same weights as one
that was not (on CPUs of one kind, with the same number of threads).
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from pydantic import ValidationError

from pipeline.config.fingerprint import fingerprint
from pipeline.errors import ConfigError, ModelError, PetasegError, StorageError, counted
from pipeline.formats import CHECKPOINT as CHECKPOINT_FORMAT
from pipeline.models.pretrained import digest_of
from pipeline.models.spec import load_card
from pipeline.training.callbacks import CHECKPOINT, Folder, Patience, Progress, Update, Updates, weights_of
from pipeline.training.config import TrainConfig, with_absolute_paths
from pipeline.training.learning import idle_parameters
from pipeline.training.module import Record, TrainingModule
from pipeline.training.output import refuse_other_model
from pipeline.training.unused import unused_keys
from pipeline.volumes.places import overlap, place_of, real

FREE = {
    *("output", "name", "training_data", "licence", "overlap", "validation", "validate_every", "patience"),
    *("threads", "loaders", "device", "threshold", "pictures", "start_from", "backbone", "cluster"),
    *("choose_threshold", "threshold_box"),
}
"""Settings that may change between two parts of a training; of ``start_from`` and ``backbone`` only
the place of the same weights."""
LATER: dict[str, object] = {
    **{"momentum": 0.95, "groups": [], "flips": True, "label_erosion": 0, "smoothing": 0.0, "balanced": False},
    **{"nodes": 1, "apart": False, "oversampling": 1.0, "what": "tissue"},
}
"""Settings that came later, with the values that trainings without them had: with these they are in no identity."""
PRECISIONS = {"float32": "32-true", "bfloat16": "bf16-mixed"}


@dataclass(frozen=True)
class TrainResult:
    """The result of a training."""

    folder: Path
    steps: int
    best: Record

    def __str__(self) -> str:
        best = f"best score {self.best.score:.4f} at step {self.best.step}"
        return f"{counted(self.steps, 'step')}; {best}; model in {self.folder}"


def train(
    config: TrainConfig,
    *,
    on_progress: Callable[[int, int], None] | None = None,
    on_update: Callable[[Update], None] | None = None,
) -> TrainResult:
    """Train a network, or continue where an earlier call was interrupted.

    ``on_progress`` is called with (steps done, steps in all) after each step, ``on_update`` with the losses so far
    every half second. Raises ``ConfigError``, ``VolumeError`` or ``ModelError``
    before the first step if anything does not fit.
    """
    unused_keys(config)
    check_nodes(config)
    torch.set_num_threads(config.threads)
    module = TrainingModule(config)
    checkpoint = saved(config)
    done = 0 if checkpoint is None else checkpoint["global_step"]
    if checkpoint is not None:
        module.on_load_checkpoint(checkpoint)
    if done < config.steps and (config.patience is None or module.stale < config.patience):
        watchers: list[Callback] = [Progress(on_progress, config.steps)] if on_progress else []
        watchers += [Updates(on_update, config.steps)] if on_update else []
        done = fit(module, config, watchers, resume=checkpoint is not None)
    return TrainResult(Path(config.output), done, module.best)


def check_nodes(config: TrainConfig) -> None:
    """``ConfigError`` unless torchrun has started as many processes as the training has on all nodes."""
    started = os.environ.get("WORLD_SIZE") if "TORCHELASTIC_RUN_ID" in os.environ else None
    if config.nodes > 1 and started != str(config.processes):
        found = f"torchrun has started {started}" if started else "this command was not started by torchrun"
        raise ConfigError(
            f"nodes is {config.nodes} with {config.devices} devices each; {found}, and {config.processes} processes "
            f"must train together: start on each node `torchrun --nnodes {config.nodes} --nproc-per-node "
            f"{config.devices} --rdzv-backend c10d --rdzv-endpoint HOST:29500 -m workflows.cli train FILE`"
        )


def fit(module: TrainingModule, config: TrainConfig, watchers: Sequence[Callback], *, resume: bool) -> int:
    """Run the missing steps; returns the number of steps done in all."""
    folder = config.make_output()
    callbacks: list[Callback] = [Folder(folder, config, identity(config))]
    callbacks += [Patience(config.patience)] if config.patience else []
    callbacks += watchers
    with quiet_lightning():
        idle = config.processes > 1 and idle_parameters(module.network, config.patch_shape)
        trainer = make_trainer(config, callbacks, idle=idle)
        with storage_errors(folder), interruptions():
            trainer.fit(module, ckpt_path=folder / CHECKPOINT if resume else None, weights_only=True)
    return trainer.global_step


@contextmanager
def interruptions() -> Iterator[None]:
    """Let Ctrl-C be a ``KeyboardInterrupt`` again, out of which Lightning makes an exit with status 1."""
    try:
        yield
    except SystemExit as error:
        raise KeyboardInterrupt from error


@contextmanager
def storage_errors(folder: Path) -> Iterator[None]:
    """Turn errors of storage, such as a full disk, into a ``StorageError`` that names the path and the remedy."""
    try:
        yield
    except PetasegError:
        raise
    except OSError as error:
        raise StorageError(
            f"training in {folder} ended, {error.filename2 or error.filename or 'a file'} could not be read or "
            f"written ({error.strerror or error}); put that right and repeat the command: it goes on from the last "
            "validation"
        ) from error


def make_trainer(config: TrainConfig, callbacks: list[Callback], *, idle: bool = False) -> Trainer:
    """Lightning's loop: an epoch ends with each validation. idle: some parameters have no part in the output."""
    device = device_of(config.device)
    return Trainer(
        accelerator={"cuda": "gpu"}.get(device, device),
        devices=config.devices,
        num_nodes=config.nodes,
        strategy=("ddp_find_unused_parameters_true" if idle else "ddp") if config.processes > 1 else "auto",
        precision=PRECISIONS[config.precision],  # type: ignore[arg-type]
        max_steps=config.steps,
        max_epochs=-1,
        reload_dataloaders_every_n_epochs=1,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        callbacks=callbacks,
        logger=TensorBoardLogger(config.output, name="tensorboard", version=""),
        default_root_dir=config.output,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        gradient_clip_val=config.clip_norm,
        log_every_n_steps=1,
    )


def refuse_volumes(config: TrainConfig) -> None:
    """Raise ``ConfigError`` if the output folder is a volume that is trained on, or lies in one."""
    own = real(config.output)
    for part in (*config.volumes, *filter(None, [config.validation])):
        for url in filter(None, (part.image, part.labels, part.mask)):
            if overlap(own, place_of(url)) in ("is", "lies in"):
                raise ConfigError(
                    f"output is {config.output}, which is the volume {url} or lies in it, and a training would write "
                    "among its voxels: name another folder"
                )


def saved(config: TrainConfig) -> dict[str, Any] | None:
    """The checkpoint of this training, ``None`` if there is none.

    ``ModelError`` if it is another training's, a newer petaseg's, or damaged; ``ConfigError`` if it is in a volume, or
    beside a model that no training wrote.
    """
    refuse_volumes(config)
    refuse_other_model(config.output)
    path = Path(config.output) / CHECKPOINT
    if not path.is_file():
        return None
    checkpoint = undamaged(path)
    CHECKPOINT_FORMAT.check(checkpoint, str(path), ModelError)
    if not is_of(checkpoint, config):
        raise ModelError(
            f"{path} belongs to a training with other settings{differences(checkpoint, config)}; name another output, "
            "or delete it to start anew"
        )
    return checkpoint


def is_of(checkpoint: dict[str, Any], config: TrainConfig) -> bool:
    """True if a checkpoint is this training's, also if one of them has absolute paths, as after `petaseg submit`."""
    if checkpoint.get("identity") == identity(config):
        return True
    try:
        there: TrainConfig = TrainConfig.model_validate_json(checkpoint.get("settings", "{}"))
    except ValidationError:
        return False
    same = identity(with_absolute_paths(there)) == identity(with_absolute_paths(config))
    return same and checkpoint.get("identity") == identity(there)


def undamaged(path: Path) -> dict[str, Any]:
    """A checkpoint's content; ``ModelError`` if it was changed. Its checksums are compared, which torch does not do."""
    try:
        with zipfile.ZipFile(path) as archive:
            if wrong := archive.testzip():
                raise zipfile.BadZipFile(f"{wrong} has another checksum")
        return weights_of(path)
    except (RuntimeError, OSError, pickle.UnpicklingError, zipfile.BadZipFile, zlib.error) as error:
        raise ModelError(f"{path} is damaged ({' '.join(str(error).split())}); delete it to start anew") from None


def differences(checkpoint: dict[str, Any], config: TrainConfig) -> str:
    """`` (steps: 200 there, 300 here)``: settings that change the weights and differ from a checkpoint's."""
    written = (checkpoint.get("settings", "{}"), config.model_dump_json())
    there, here = (dict(leaves(without_later(json.loads(text)))) for text in written)
    keys = [key for key in there | here if key.split(".")[0] not in free_of(config) and there.get(key) != here.get(key)]
    listed = [f"{key}: {there.get(key)} there, {here.get(key)} here" for key in keys if there]
    return f" ({'; '.join(listed)})" if listed else ""


def leaves(table: dict[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """``table.key`` and value of everything in a table of tables."""
    for key, value in table.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def free_of(config: TrainConfig) -> set[str]:
    """``FREE``; with schedule plateau without those that decide when the learning rate falls."""
    return FREE - {"validation", "validate_every"} if config.schedule == "plateau" else FREE


def identity(config: TrainConfig) -> str:
    """Digest of all settings that change the weights, among them the number of steps, over which schedules run.

    Threads, loaders and the kind of device change last bits at most, so a training may continue with others.
    """
    settings: list[object] = [without_later(config.model_dump(mode="json", exclude=free_of(config)))]
    if config.start_from is not None:
        settings.append(load_card(config.start_from).digest)
    if config.backbone is not None:
        settings.append(digest_of(config.backbone))
    return fingerprint(*settings)


def without_later(value: Any) -> Any:
    """The settings without those of ``LATER`` that have no effect, in all their tables."""
    if isinstance(value, dict):
        return {k: without_later(v) for k, v in value.items() if k not in LATER or v != LATER[k]}
    return [without_later(each) for each in value] if isinstance(value, list) else value


def device_of(wanted: str) -> str:
    """``cuda`` or ``cpu``; ``ConfigError`` if a GPU is wanted and there is none."""
    present = torch.cuda.is_available()
    if wanted == "cuda" and not present:
        raise ConfigError("device is cuda; torch must find a GPU and finds none: choose auto or cpu")
    return ("cuda" if present else "cpu") if wanted == "auto" else wanted


def first_process() -> bool:
    """True in the one process, or the first of several that train together; the others only compute."""
    return int(getattr(rank_zero_only, "rank", 0) or 0) == 0


class quiet_lightning(warnings.catch_warnings):  # noqa: N801  (used like a function)
    """Hides Lightning's notes about devices and logging, but not its errors."""

    def __enter__(self) -> None:  # type: ignore[override]
        super().__enter__()
        for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
            logging.getLogger(name).setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", module="lightning")
