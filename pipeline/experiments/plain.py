"""Trainings of the plain U-Net on real tissue, each with one thing changed, and the neurons that come out.

A training has as many updates as fit into the time, by the processor time of an update that was measured beside the
others. Then the whole volume is predicted, and cut into neurons with settings that do not depend on the training: the
threshold is chosen on planes 169 to 184, and scores are those of planes 186 to 249. ``ablation`` and ``recurrence``
share these trainings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config.reading import parse_config
from pipeline.experiments.base import Key, Result, Scale, Trials
from pipeline.experiments.equal_time import seconds_per_update
from pipeline.experiments.fib25 import TEST, TRAIN, WATCH, Pace, data_file, labelled, planes
from pipeline.experiments.whole_volume import Cutting, Judged, judge, merge_tree, supervoxels
from pipeline.geometry import BoundingBox, Vec
from pipeline.inference.lattice import PatchLattice
from pipeline.inference.options import PredictOptions
from pipeline.inference.predictor import Predictor
from pipeline.models.spec import LoadedModel, load_card, load_model
from pipeline.training.callbacks import CHECKPOINT, weights_of
from pipeline.training.config import TrainConfig
from pipeline.training.trainer import train
from pipeline.volumes import open_volume

Table = dict[str, Any]

OFFSETS = [[-n * (axis == a) for a in range(3)] for n in (1, 3, 9) for axis in range(3)]
"""1, 3 and 9 voxels along each axis."""
MINUTES, FULL_MINUTES = 6.0, 240.0
"""CPU minutes of a training, and minutes on a GPU with --full."""
SEEN = ["voi_split", "voi_merge", "voi", "adapted_rand_error"]


def affinities(**changes: Any) -> Table:
    """The target of all trainings, with keys of its own changed."""
    return {"what": "affinities", "offsets": OFFSETS, "losses": [{"kind": "bce"}], **changes}


@dataclass(frozen=True, eq=False)
class Variant:
    """A training that differs from the others in one thing."""

    label: str
    changes: Table = field(default_factory=dict)
    """Keys of the training file."""

    @property
    def settings(self) -> Table:
        """Those keys of the training file in which trainings may differ."""
        usual = {"architecture": "plain_unet", "arguments": "tiny", "targets": [affinities()], "patch_shape": [64] * 3}
        return {**usual, **self.changes}

    def smallest(self) -> Variant:
        """The same change of a network so small that it shows only that the code runs."""
        small: Table = {"widths": [32, 32], "pools": [[2, 2, 2]], "kernels": [[3, 3, 3]] * 2}
        steps = {"steps": 2} if self.settings["architecture"] == "plain_gamma" else {}
        return replace(self, changes={**self.changes, "arguments": {**small, **steps}, "patch_shape": [24] * 3})


BASE = Variant("plain U-Net")


@dataclass(frozen=True)
class Reading:
    """How a trained network predicts."""

    patch: int = 128
    overlap: int = 32
    augmentation: str = "none"
    augmentation_rule: str = "mean"
    averaged: bool = True
    """The running mean of the weights; otherwise the last weights."""


@dataclass(frozen=True)
class Sizes:
    """How large trainings and volumes are."""

    scale: Scale
    side: int
    """Voxels along y and x of the volume that is predicted."""

    @classmethod
    def of(cls, scale: Scale) -> Sizes:
        """The sizes of a scale."""
        return cls(scale, 32 if scale.tiny else 250)

    @property
    def seconds(self) -> float:
        """CPU seconds of a training."""
        minutes = FULL_MINUTES if self.scale.full else 0.01 if self.scale.tiny else MINUTES
        return 60 * (minutes if self.scale.minutes is None else self.scale.minutes)

    def variant(self, wanted: Variant) -> Variant:
        """The training at this scale."""
        return wanted.smallest() if self.scale.tiny else wanted

    def reading(self, wanted: Reading) -> Reading:
        """How the network predicts at this scale."""
        return replace(wanted, patch=32, overlap=8) if self.scale.tiny else wanted


def train_config(variant: Variant, output: Path, steps: int, seed: int) -> TrainConfig:
    """The training file of a variant."""
    data: Table = {
        **{"output": str(output), "name": "plain", "seed": seed, "steps": steps},
        **{"volumes": [labelled(*planes(TRAIN))], "validation": labelled(*planes(WATCH))},
        **{"warmup_steps": min(100, steps // 5), "validate_every": -(-steps // 4)},
        **{"pictures": False, "training_data": "FIB-25 (Takemura et al. 2015, FlyEM; CC BY)"},
        **variant.settings,
    }
    return parse_config(data, TrainConfig)


def measured_pace(variant: Variant, sizes: Sizes, store: Trials) -> float:
    """CPU seconds of an update: those of the base, times the ratio to it that is measured in turns with it."""
    base = sizes.variant(BASE)
    alone = store.get({"trial": "plain-pace", "settings": base.settings}, lambda: {"seconds": paces([base], store)[0]})
    if variant.settings == base.settings:
        return float(alone["seconds"])
    key = {"trial": "plain-pace-ratio", "variant": variant.label, "settings": variant.settings, "to": base.settings}

    def compute() -> Result:
        own, other = paces([variant, base], store)
        return {"ratio": own / other}

    return float(alone["seconds"] * store.get(key, compute)["ratio"])


def paces(variants: Sequence[Variant], store: Trials) -> list[float]:
    """CPU seconds of an update of each variant, measured in turns."""
    return seconds_per_update([Pace(train_config(variant, store.folder / "none", 100, 0)) for variant in variants])


def trained(variant: Variant, seed: int, sizes: Sizes, store: Trials) -> tuple[Key, Result]:
    """The identity of a training, and its updates and best score; its model lies in ``model_folder``."""
    pace = measured_pace(variant, sizes, store)
    steps = sizes.scale.updates(max(4, round(sizes.seconds / pace)))
    key = {"trial": "plain", "variant": variant.label, "seed": seed, "steps": steps, "settings": variant.settings}

    def compute() -> Result:
        result = train(train_config(variant, model_folder(key, store), steps, seed))
        return {"steps": steps, "minutes": steps * pace / 60, "score": result.best.score}

    return key, store.get(key, compute)


def model_folder(key: Key, store: Trials) -> Path:
    """Where a training writes its model."""
    return store.file(key, "")


def scored(training: Key, reading: Reading, cuttings: Sequence[Cutting], sizes: Sizes, store: Trials) -> list[Result]:
    """Scores of the neurons of a trained network, for each way to cut its affinities."""
    reading = sizes.reading(reading)
    key: Key = {"trial": "plain-scores", "training": store.name(training), "reading": asdict(reading)}
    key |= {"cuttings": [asdict(cutting) for cutting in cuttings]}

    def compute() -> Result:
        model = model_of(model_folder(training, store), averaged=reading.averaged)
        predicted = predict(model, reading, sizes.side)
        found = [numbers(segmented(model, predicted, cutting, sizes.side)) for cutting in cuttings]
        return {"scores": found}

    return store.get(key, compute)["scores"]  # type: ignore[no-any-return]


def model_of(folder: Path, *, averaged: bool) -> LoadedModel:
    """A trained model with the running mean of its weights, or with those of the last update."""
    model = load_model(load_card(folder / "card.yaml"))
    if not averaged:
        stored = weights_of(folder / CHECKPOINT)["state_dict"]
        own = {name.removeprefix("network."): value for name, value in stored.items() if name.startswith("network.")}
        model.module.load_state_dict(own)
    return model


def predict(model: LoadedModel, reading: Reading, side: int) -> np.ndarray:
    """All affinities, uint8 (c, z, y, x), of the volume, or of its first voxels along y and x."""
    raw = open_volume(f"{data_file()}:raw")
    box = BoundingBox((0, 0, 0), (TEST[1], side, side))
    options = PredictOptions(
        precision="bfloat16",
        channels=len(model.card.offsets),
        augmentation=reading.augmentation,
        augmentation_rule=reading.augmentation_rule,
    )
    lattice = PatchLattice(box, Vec(*(reading.patch,) * 3), Vec(*(reading.overlap,) * 3))
    return Predictor(model, options).predict(raw.read(box), core=box, lattice=lattice)[0]


def segmented(model: LoadedModel, predicted: np.ndarray, cutting: Cutting, side: int) -> Judged:
    """Neurons of predicted affinities, and their scores."""
    channels = [0, 1, 2, *cutting.far]
    far = [Vec(*model.card.offsets[channel]) for channel in cutting.far]
    ids = supervoxels(np.ascontiguousarray(predicted[:3]), cutting.supervoxel_rules)
    tree = merge_tree(ids, np.ascontiguousarray(predicted[channels]), far)
    return judge(ids, tree, truth(side), slice(*WATCH), slice(*TEST))


@cache
def truth(side: int) -> np.ndarray:
    """The true labels, uint32 (z, y, x)."""
    labels = open_volume(f"{data_file()}:labels")
    return labels.read(BoundingBox((0, 0, 0), (TEST[1], side, side))).astype(np.uint32)


def numbers(found: Judged) -> Result:
    """What is kept of a segmentation."""
    return {
        "threshold": found.chosen.threshold,
        "chosen_voi": found.chosen.scores.voi,
        **{name: found.scores.to_dict()[name] for name in SEEN},
        "best_voi": found.best.voi,
        "perfect_voi": found.perfect.voi,
        "sweep": [[p.threshold, p.scores.voi_split, p.scores.voi_merge] for p in found.reported],
    }
