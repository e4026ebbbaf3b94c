"""A network in training, as a Lightning module: loss, score, running mean of the weights, optimiser."""

from __future__ import annotations

import copy
import json
import logging
from collections import defaultdict
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader

from pipeline.errors import ConfigError, ModelError
from pipeline.models.pretrained import load_backbone
from pipeline.models.spec import build, load_card, load_model, named_arguments
from pipeline.training.config import TrainConfig
from pipeline.training.data import Batch, training_loader, validation_loader
from pipeline.training.learning import Learned, check_rule, earlier_weight, run
from pipeline.training.patch_check import check_patch
from pipeline.training.sampler import Sampler
from pipeline.training.schedules import make_optimiser, make_schedule, parameter_groups
from pipeline.training.scores import Hits, hits_of, score_of
from pipeline.training.sources import open_sources
from pipeline.training.total_loss import LossParts, combined_loss

LOST = 20
"""After so many updates in a row without a finite gradient, a training ends."""
RECENT = 50
"""Steps whose mean loss is shown."""
logger = logging.getLogger("petaseg.training")


@dataclass(frozen=True)
class Record:
    """One validation."""

    step: int
    loss: float
    """Mean training loss since the last validation."""
    validation_loss: float
    score: float
    """On the validation part; 1 is best. F1 of the cut edges among nearest neighbours, if there are affinities."""
    details: dict[str, float] = field(default_factory=dict)
    """Means since the last validation: each loss of several, the penalty, and the residual of a series."""

    @property
    def numbers(self) -> dict[str, float]:
        """All numbers, as the log has them."""
        return {"step": self.step, "loss": self.loss, "validation_loss": self.validation_loss, "score": self.score} | (
            self.details
        )


class TrainingModule(LightningModule):
    """The network in training, the running mean of its weights, and all that a step needs.

    The mean is validated, and becomes the model. It is part of the module's state, so a checkpoint holds it.
    """

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        self.config = config
        self.arguments = arguments_of(config)
        self.network = first_weights(config, self.arguments)
        check_learns(self.network, config)
        self.mean = copy.deepcopy(self.network).eval().requires_grad_(False)
        sources, self.held_back = open_sources(config)
        self.sampler = Sampler(sources, config)
        check_patch(self.network, self.held_back, config)
        check_rule(self.network, config.rule, config.architecture, config.patch_shape)
        parameter_groups(self.network, config)
        self.targets = config.channels
        self.records: list[Record] = []
        self._losses: list[Tensor] = []
        self._details: defaultdict[str, list[Tensor]] = defaultdict(list)
        self._learned: Learned | None = None
        self._results: list[tuple[float, Hits]] = []
        self._lost = 0

    # -- data -------------------------------------------------------------------------------------------------------

    def train_dataloader(self) -> DataLoader[Batch]:
        """A loader of the patches until the next validation; it is made anew for each."""
        return training_loader(self.sampler, self.config, self.global_step, self.global_rank)

    def val_dataloader(self) -> DataLoader[Batch]:
        """The same patches at every validation."""
        return validation_loader(self.held_back, self.config)

    # -- one step ---------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, _number: int) -> Tensor:
        """The loss of a batch."""
        image, targets, weights = batch
        learned = run(self.network, self.config.rule, image, seed=self.global_step)
        found = combined_loss(self.targets, learned.logits, targets, weights)
        self._keep_parts("training", found)
        self._learned = learned
        loss = found.total
        for before_last, logits in enumerate(reversed(learned.earlier), start=1):
            weight = earlier_weight(self.config.rule) ** before_last
            loss = loss + weight * combined_loss(self.targets, logits, targets, weights).total
        return self._with_penalty(loss, learned)

    def _with_penalty(self, loss: Tensor, learned: Learned) -> Tensor:
        """The loss, plus the penalty of the rule if it has one."""
        self._losses.append(loss.detach())
        rule = self.config.rule
        if learned.penalty is None or rule.penalty is None:
            return loss
        self._details["penalty"].append(learned.penalty.detach())
        return loss + rule.penalty.weight * learned.penalty

    def _keep_parts(self, when: str, found: LossParts) -> None:
        """Keep each loss by itself, if there are several."""
        for name, value in found.parts.items() if len(found.parts) > 1 else ():
            self._details[f"{when}/{name}"].append(value)

    def on_after_backward(self) -> None:
        """Log the report of recurrent back-propagation; the residual of every step goes to TensorBoard."""
        learned, self._learned = self._learned, None
        if learned is None or learned.report is None:
            return
        report = learned.report
        self._details["residual"].append(torch.tensor(report.residual))
        self._details["terms"].append(torch.tensor(float(report.terms)))
        self.log_dict({"residual_of_step": report.residual, "terms_of_step": float(report.terms)})
        if report.stopped == "divergence":
            logger.warning(
                "step %d: the Neumann series diverged; %d terms are used, residual %.2g of the gradient: the step is "
                "no contraction, a penalty makes it one",
                *(self.global_step, report.terms, report.residual),
            )

    def configure_optimizers(self) -> Any:
        """The optimiser, with a learning rate that changes every step."""
        optimiser = make_optimiser(self.network, self.config)
        schedule = make_schedule(optimiser, self.config, lambda: [record.score for record in self.records])
        return [optimiser], [{"scheduler": schedule, "interval": "step"}]

    def configure_gradient_clipping(self, optimizer: torch.optim.Optimizer, *_: Any, **__: Any) -> None:
        """Scale gradients down to ``clip_norm``; if the norm is not finite, they are dropped and no weight changes.

        Raises ``ModelError`` if that happens ``LOST`` times in a row: then it will not become better.
        """
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip_norm)
        if torch.isfinite(norm):
            self._lost = 0
            return
        logger.warning("step %d: gradient norm %s, skipped", self.global_step, float(norm))
        for parameter in self.network.parameters():
            parameter.grad = None
        self._lost += 1
        if self._lost == LOST:
            raise self._diverged(f"{LOST} gradients in a row")

    def _diverged(self, what: str) -> ModelError:
        """The error of a training whose numbers have grown beyond all bounds."""
        return ModelError(
            f"{what}, up to step {self.global_step}, are not finite, so the network learns nothing more: start anew "
            f"in another output, with a learning_rate below {self.config.learning_rate:g}, with more warmup_steps, or "
            "with precision: float32"
        )

    @torch.no_grad()
    def on_train_batch_end(self, *_: Any) -> None:
        """Update the running mean, which follows faster during the first steps."""
        done = self.global_step - 1
        decay = min(self.config.ema_decay, (1 + done) / (10 + done))
        for mean, now in zip(self.mean.state_dict().values(), self.network.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(now, 1 - decay)
            else:
                mean.copy_(now)

    # -- validation -------------------------------------------------------------------------------------------------

    def validation_step(self, batch: Batch, _number: int) -> None:
        """Loss and hits of the running mean on one patch."""
        image, targets, weights = batch
        logits = self.mean(image)
        found = combined_loss(self.targets, logits, targets, weights)
        self._keep_parts("validation", found)
        self._results.append((found.total.item(), hits_of(self.targets, logits, targets, weights)))

    def on_validation_epoch_end(self) -> None:
        """Add a record; schedules and early stopping use its ``score``. ``ModelError`` if the loss is not finite."""
        losses, hits = zip(*self._results, strict=True)
        loss = sum(losses) / len(losses)
        if not isfinite(loss):
            raise self._diverged("losses on the validation part")
        score = score_of(self.targets, hits, loss)
        training = torch.stack(self._losses).double().mean().item()
        details = {name: torch.stack(values).double().mean().item() for name, values in self._details.items()}
        self.records.append(Record(self.global_step, training, loss, score, details))
        self._losses, self._results = [], []
        self._details.clear()
        self.log_dict({"validation_loss": loss, "score": score, "training_loss": training, **details})

    @property
    def recent_loss(self) -> float:
        """Mean training loss of the last steps since the last validation; at a validation, that of its record."""
        if not self._losses:
            return self.records[-1].loss if self.records else float("nan")
        return torch.stack(self._losses[-RECENT:]).double().mean().item()

    @property
    def best(self) -> Record:
        """The validation with the best score, and the last of several with equal scores."""
        return max(self.records, key=lambda record: (record.score, record.step))

    @property
    def stale(self) -> int:
        """Validations since the best one."""
        return sum(record.step > self.best.step for record in self.records) if self.records else 0

    # -- checkpoints ------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the records in the checkpoint."""
        checkpoint["records"] = json.dumps([vars(record) for record in self.records])

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the records that ``on_save_checkpoint`` stored."""
        self.records = [Record(**record) for record in json.loads(checkpoint["records"])]


def arguments_of(config: TrainConfig) -> dict[str, object]:
    """The constructor's arguments: as given, or those of a named size; the outputs always follow the targets."""
    channels = sum(target.channels for target in config.channels)
    return {**named_arguments(config.architecture, config.arguments), "out_channels": channels}


def first_weights(config: TrainConfig, arguments: dict[str, object]) -> nn.Module:
    """A new network with its ``backbone``, or the network of ``start_from``; ``ModelError`` if that is another one."""
    torch.manual_seed(config.seed)
    if config.start_from is None:
        network = build(config.architecture, arguments)
        if config.backbone is not None:
            load_backbone(network, config.backbone, config.architecture)
        return network
    card = load_card(config.start_from)
    if (card.architecture, card.arguments) != (config.architecture, json.loads(json.dumps(arguments))):
        raise ModelError(
            f"start_from is {config.start_from}, a {card.architecture} with {card.arguments}; this training is of a "
            f"{config.architecture} with {arguments}: take its architecture and arguments, or leave start_from out"
        )
    return load_model(card).module.requires_grad_(True).train()


def check_learns(network: nn.Module, config: TrainConfig) -> None:
    """Refuse a network without weights."""
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise ConfigError(f"architecture is {config.architecture}; it has no weights to train: choose another")
