"""The training loop: resumable at any moment, with a log, a curve and, at the end, a model card.

    <output>/checkpoint.safetensors   weights, running mean and optimiser, written as a whole every ``validate_every``
    <output>/log.jsonl                one line a validation: step, loss, validation loss and score
    <output>/curve.png                the same as a picture
    <output>/card.yaml, weights.safetensors    the model: the best running mean so far

Patch number n of a seed is always the same, so a training that was killed and resumed gives the same weights as one
that was not (on a CPU, with the same number of threads).
"""

from __future__ import annotations

import copy
import json
import logging
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline.config import fingerprint
from pipeline.errors import ConfigError, ModelError
from pipeline.geometry import BoundingBox
from pipeline.models.spec import ModelCard, build, load_card, load_model, named_arguments, save_model
from pipeline.training.config import TrainConfig
from pipeline.training.curve import draw_curve
from pipeline.training.losses import balanced_bce, cut_f1
from pipeline.training.sampler import Sampler, Source, open_sources
from pipeline.training.targets import affinities, erode

logger = logging.getLogger("petaseg.training")

Progress = Callable[[int, int], None]
FINAL_RATE = 0.03
"""Share of the learning rate that is left at the end of the cosine."""
VALIDATION_PATCHES = 12


@dataclass(frozen=True)
class Record:
    """One validation."""

    step: int
    loss: float
    """Mean training loss since the last validation."""
    validation_loss: float
    score: float
    """F1 of the cut edges among nearest neighbours on the validation part; 1 is best."""


@dataclass(frozen=True)
class TrainResult:
    """What a training gave."""

    folder: Path
    steps: int
    best: Record

    def __str__(self) -> str:
        return f"{self.steps} steps; best score {self.best.score:.4f} at step {self.best.step}; model in {self.folder}"


def train(config: TrainConfig, *, on_progress: Progress | None = None) -> TrainResult:
    """Train a network, or go on where an earlier call was interrupted.

    ``on_progress`` is called with (steps done, steps in all). Raises ``ConfigError``, ``VolumeError`` or ``ModelError``
    before the first step if anything does not fit.
    """
    trainer = Trainer(config)
    trainer.restore()
    while not trainer.finished:
        trainer.step()
        if on_progress:
            on_progress(trainer.done, config.steps)
        if trainer.done % config.validate_every == 0 or trainer.done == config.steps:
            trainer.validate()
            trainer.save()
    return TrainResult(trainer.folder, trainer.done, trainer.best)


class Trainer:
    """The state of one training."""

    def __init__(self, config: TrainConfig) -> None:
        torch.manual_seed(config.seed)
        torch.set_num_threads(config.threads)
        self.config = config
        self.folder = Path(config.output)
        self.device = torch.device(_device(config.device))
        self.arguments = arguments_of(config)
        self.network = first_weights(config, self.arguments).to(self.device)
        self.mean = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.99)
        )
        sources, self.validation = open_sources(config)
        self.sampler = Sampler(sources, config)
        _check_multiple(self.network, self.validation, config)
        self.done = 0
        self.records: list[Record] = []
        self.losses: list[float] = []

    @property
    def best(self) -> Record:
        """The validation with the best score; the last one of equals."""
        return max(self.records, key=lambda record: (record.score, record.step))

    @property
    def finished(self) -> bool:
        """True after all steps, or after ``patience`` validations without a better score."""
        patience = self.config.patience
        stale = sum(record.step > self.best.step for record in self.records) if self.records else 0
        return self.done >= self.config.steps or (patience is not None and stale >= patience)

    def step(self) -> float:
        """One update; returns its loss. An update with a gradient that is not finite changes nothing."""
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.done, self.config)
        first = self.done * self.config.batch_size
        patches = [self.sampler.draw(first + i) for i in range(self.config.batch_size)]
        image, targets, mask = (
            torch.from_numpy(np.stack(arrays)).to(self.device) for arrays in zip(*patches, strict=True)
        )
        loss = balanced_bce(self._forward(self.network, image), targets, mask)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip_norm)
        if torch.isfinite(norm):
            self.optimiser.step()
        else:
            logger.warning("step %d: gradient norm %s, skipped", self.done, float(norm))
        self._follow()
        self.done += 1
        self.losses.append(loss.item())
        return self.losses[-1]

    def _forward(self, network: nn.Module, image: Tensor) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16"):
            return network(image)  # type: ignore[no-any-return]

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the running mean; early on it follows faster."""
        decay = min(self.config.ema_decay, (1 + self.done) / (10 + self.done))
        for mean, now in zip(self.mean.state_dict().values(), self.network.state_dict().values(), strict=True):
            if now.is_floating_point():
                mean.lerp_(now, 1 - decay)
            else:  # a batch norm counts its batches
                mean.copy_(now)

    @torch.inference_mode()
    def validate(self) -> Record:
        """Loss and score of the running mean on a fixed lattice of patches of the validation part."""
        results = []
        for box in validation_boxes(self.validation, self.config):
            raw, labels = self.validation.read(box)
            n = self.config.normalisation
            image = torch.from_numpy((raw - n.offset) / n.scale)[None, None].float().to(self.device)
            pair = affinities(labels, self.config.offsets, erode(labels))
            targets, mask = (torch.from_numpy(array)[None].to(self.device) for array in pair)
            logits = self._forward(self.mean, image)
            results.append((balanced_bce(logits, targets, mask).item(), cut_f1(logits, targets, mask)))
        loss, score = np.mean(results, axis=0).tolist()
        self.records.append(Record(self.done, float(np.mean(self.losses)), loss, score))
        self.losses = []
        return self.records[-1]

    def save(self) -> None:
        """Write checkpoint, log and curve, and the model if it is the best so far."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.best is self.records[-1]:
            save_model(self.folder, self.mean, self.card())
        (self.folder / "log.jsonl").write_text("".join(json.dumps(asdict(r)) + "\n" for r in self.records))
        draw_curve(self.records, self.folder / "curve.png", self.config.name)
        partial = self.folder / ".checkpoint.partial"
        metadata = {
            "done": str(self.done),
            "identity": self.identity(),
            "records": json.dumps([asdict(r) for r in self.records]),
        }
        save_file(self._tensors(), partial, metadata=metadata)
        partial.replace(self.folder / "checkpoint.safetensors")

    def restore(self) -> bool:
        """Go on from the checkpoint, if there is one; ``ModelError`` if it belongs to another training."""
        path = self.folder / "checkpoint.safetensors"
        if not path.is_file():
            return False
        metadata, tensors = _read_checkpoint(path)
        if metadata["identity"] != self.identity():
            raise ModelError(
                f"{path} belongs to a training with other settings; name another output, or delete it to start anew"
            )
        self.done = int(metadata["done"])
        self.records = [Record(**record) for record in json.loads(metadata["records"])]
        self._take(tensors)
        return True

    def identity(self) -> str:
        """Digest of all settings that change the weights; the number of steps is one, since the cosine spans it.

        Threads and device change last bits only, and a training may go on with others.
        """
        free = {"output", "name", "training_data", "licence", "overlap", "validation", "validate_every", "patience"}
        free |= {"threads", "device", "threshold", "start_from"}
        settings: list[object] = [self.config.model_dump(mode="json", exclude=free)]
        if self.config.start_from is not None:
            settings.append(load_card(self.config.start_from).digest)
        return fingerprint(*settings)

    def card(self) -> ModelCard:
        """The card of the present running mean."""
        c = self.config
        best = self.records[-1]
        return ModelCard(
            name=c.name,
            architecture=c.architecture,
            arguments=json.loads(json.dumps(self.arguments)),
            patch_shape=c.patch_shape,
            overlap=c.overlap,
            normalisation=c.normalisation,
            offsets=c.offsets,
            resolution_nm=self.validation.image.spec.resolution_nm,
            threshold=c.threshold,
            training_data=c.training_data,
            scores={"validation cut-edge F1": round(best.score, 4), "validation loss": round(best.validation_loss, 4)},
            licence=c.licence,
        )

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        tensors |= {f"mean.{name}": tensor for name, tensor in self.mean.state_dict().items()}
        for i, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{i}.{name}": tensor for name, tensor in state.items()}
        return {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}

    def _take(self, tensors: dict[str, Tensor]) -> None:
        for module, prefix in ((self.network, "network."), (self.mean, "mean.")):
            module.load_state_dict({k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)})
        state: dict[int, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            if key.startswith("optimiser."):
                _, number, name = key.split(".")
                state.setdefault(int(number), {})[name] = tensor
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": state})


def first_weights(config: TrainConfig, arguments: dict[str, object]) -> nn.Module:
    """A fresh network, or that of ``start_from``; ``ModelError`` if it is another one."""
    if config.start_from is None:
        return build(config.architecture, arguments)
    card = load_card(config.start_from)
    if (card.architecture, card.arguments) != (config.architecture, json.loads(json.dumps(arguments))):
        raise ModelError(
            f"start_from is {config.start_from}, a {card.architecture} with {card.arguments}; this training is of a "
            f"{config.architecture} with {arguments}: take its architecture and arguments, or leave start_from out"
        )
    return load_model(card).module.requires_grad_(True).train()


def learning_rate(step: int, config: TrainConfig) -> float:
    """Linear warm-up, then a cosine from 1 down to ``FINAL_RATE``, times the configured rate."""
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    cosine = 0.5 * (1 + math.cos(math.pi * step / config.steps))
    return config.learning_rate * warm * (FINAL_RATE + (1 - FINAL_RATE) * cosine)


def arguments_of(config: TrainConfig) -> dict[str, object]:
    """The constructor's arguments: as given, or those of a named size; the outputs always follow the offsets."""
    return {**named_arguments(config.architecture, config.arguments), "out_channels": len(config.offsets)}


def validation_boxes(source: Source, config: TrainConfig) -> list[BoundingBox]:
    """Patches without overlap over the validation part, evenly spread, at most ``VALIDATION_PATCHES`` of them.

    Where the part is thinner than a patch, the patch is as thin, rounded down to a multiple of 16.
    """
    shape = [
        min(p, n if n < p and n < 16 else n // 16 * 16 or n)
        for p, n in zip(config.patch_shape, source.box.shape, strict=True)
    ]
    starts = [range(a, b - s + 1, s) for a, b, s in zip(source.box.start, source.box.stop, shape, strict=True)]
    boxes = [BoundingBox.from_shape(tuple(shape), (z, y, x)) for z in starts[0] for y in starts[1] for x in starts[2]]  # type: ignore[arg-type]
    chosen = np.unique(np.linspace(0, len(boxes) - 1, VALIDATION_PATCHES).round().astype(int))
    return [boxes[i] for i in chosen]


def _check_multiple(network: nn.Module, validation: Source, config: TrainConfig) -> None:
    """Refuse, before the first step, patches that the network would refuse at it or at the first validation."""
    multiple = getattr(network, "multiple", (1, 1, 1))
    checked = {"patch_shape is": config.patch_shape}
    checked["validation offers patches of"] = validation_boxes(validation, config)[0].shape
    for what, shape in checked.items():
        if any(n % m for n, m in zip(shape, multiple, strict=True)):
            raise ConfigError(
                f"{what} {list(shape)} voxels; each side must be a multiple of {list(multiple)} for this network: "
                "choose another patch_shape, or a larger part for validation"
            )
    if (
        config.precision == "bfloat16"
        and _device(config.device) == "cpu"
        and _two_thick(config.patch_shape[0], multiple[0])
    ):
        raise ConfigError(
            f"patch_shape is {list(config.patch_shape)}: at one level of the network it is two voxels thick, where "
            "torch computes wrong gradients on a CPU in bfloat16 (it reads memory that was never written): choose a "
            "thicker or thinner patch, or precision float32"
        )


def _two_thick(thickness: int, multiple: int) -> bool:
    """Whether halving a patch of this thickness, until the multiple is used up, passes through two voxels."""
    return thickness % 2 == 0 and multiple % (thickness // 2) == 0


def _read_checkpoint(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no dict)
    except SafetensorError as error:
        raise ModelError(f"{path} is damaged ({error}); delete it to start anew") from None


def _device(wanted: str) -> str:
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return wanted
