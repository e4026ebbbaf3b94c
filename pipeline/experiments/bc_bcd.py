"""BC against BCD: which decoding tells mitochondria apart that touch?

A small network is trained on foreground, contours and signed distance of made-up mitochondria, as U3D-BCD of PyTorch
Connectomics (Lin et al. 2021). Its heads are stored once. Three decoders, which differ in nothing but their seeds, make
objects of them, as a run with ``segmentation.kind: objects`` does:

    pieces   every connected piece of the foreground is an object
    BC       seeds are where the contours are low
    BCD      seeds are where the contours are low and the distance is high

The limits of the seeds are chosen on a validation volume, and the scores are those of other volumes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from pipeline.config.reading import parse_config
from pipeline.config.strict_yaml import dump_yaml
from pipeline.evaluation.compare_objects import ObjectScores
from pipeline.experiments.base import Cell, Experiment, Key, Report, Result, Scale, Trials, mean_spread
from pipeline.experiments.fib25 import drive
from pipeline.geometry import Triple
from pipeline.stages.evaluate_segmentation import EvaluateSegmentation
from pipeline.synthetic.dataset import synthesize
from pipeline.training.config import TrainConfig
from pipeline.training.trainer import train

DECODERS = ("pieces", "BC", "BCD")
HEADS = ("foreground", "contours", "signed_distance")
CONTOURS = (0.25, 0.5, 0.75)
"""Limits below which contours are low, of which the best is chosen on the validation volume."""
DISTANCES = (0.1, 0.3, 0.5)
"""Limits above which the signed distance is high."""
DISTANCE = {"inside": 4, "outside": 25, "in_plane": False}
"""Half of the distances of the paper, since voxels are twice as long."""
TEST_SEED = 1000
"""Seed of the data set to score on; that of the training is the seed of the trial."""
DATA = ("resolution_nm=[16,16,16]", "smallest=30")
"""Settings of the generator: coarse voxels, so that a small volume holds many mitochondria."""
OBJECTS = {"kind": "objects", "head": HEADS[0], "threshold": 0.5, "min_size": 30}
COLUMNS = ("decoder", "AP-50", "AP-75", "AP", "found", "predicted", "true", "AP-50 of each seed")


@dataclass(frozen=True)
class Sizes:
    """How large the experiment is."""

    updates: int
    shape: Triple
    """Voxels (z, y, x) of each volume."""
    volumes: int
    """Volumes to train on; one more is for validation."""
    tests: int
    patch: Triple
    device: str

    @classmethod
    def of(cls, scale: Scale) -> Sizes:
        """The sizes of a scale."""
        if scale.tiny:
            return cls(3, (32, 80, 80), 1, 1, (24, 24, 24), "cpu")
        if scale.full:
            volumes, tests = scale.data(16, few=1), scale.data(4, few=1)
            return cls(scale.updates(20_000), (96, 256, 256), volumes, tests, (64, 64, 64), scale.device.type)
        volumes, tests = scale.data(4, few=1), scale.data(3, few=1)
        return cls(scale.updates(400), (48, 96, 96), volumes, tests, (32, 32, 32), "cpu")


def run(scale: Scale, store: Trials) -> Report:
    """Train a network with every seed, and decode it in every way."""
    sizes = Sizes.of(scale)
    found: dict[str, list[Result]] = {decoder: [] for decoder in DECODERS}
    for seed in scale.seeds:
        for decoder in DECODERS:
            found[decoder].append(trial(decoder, seed, sizes, store))
    rows = [row(decoder, results) for decoder, results in found.items()]
    return Report(COLUMNS, rows, notes(sizes, found), lambda figure: draw(figure, found))


def trial(decoder: str, seed: int, sizes: Sizes, store: Trials) -> Result:
    """The scores of one decoder on the test volumes, with the seeds that are best on the validation volume."""
    training = {"trial": "bc-bcd-training", "seed": seed, "sizes": asdict(sizes)}
    model = store.file(training, "").resolve()
    store.get(training, lambda: trained(model, seed, sizes, store))
    key = {**training, "trial": "bc-bcd", "decoder": decoder, "contours": CONTOURS, "distances": DISTANCES}

    def compute() -> Result:
        folder = data(seed, sizes.volumes + 1, sizes, store)
        validation = Heads.of(model, folder, sizes.volumes, "validation")
        limits = list(seeds_of(decoder))
        tried = [validation.decode(each)["ap_50"] or 0.0 for each in limits]
        best = limits[int(np.argmax(tried))]
        tests = data(TEST_SEED, sizes.tests, sizes, store)
        scores = [Heads.of(model, tests, number, "test").decode(best) for number in range(sizes.tests)]
        return {"seeds_within": best, "validation": max(tried), **together(scores)}

    return store.get(key, compute)


def seeds_of(decoder: str) -> Iterator[dict[str, Any]]:
    """The conditions on seeds that a decoder may choose from; of connected pieces there is one, and it is empty."""
    if decoder == "pieces":
        yield {}
    elif decoder == "BC":
        yield from ({"contours": {"below": limit}} for limit in CONTOURS)
    else:
        pairs = product(CONTOURS, DISTANCES)
        yield from ({"contours": {"below": low}, "signed_distance": {"above": high}} for low, high in pairs)


def data(seed: int, count: int, sizes: Sizes, store: Trials) -> Path:
    """The folder of a made-up data set, which is written unless it is there."""
    key: Key = {"trial": "bc-bcd-data", "seed": seed, "count": count, "shape": sizes.shape, "settings": DATA}
    folder = store.file(key, "").resolve()
    if not folder.exists():
        overrides = [f"shape={list(sizes.shape)}", *DATA]
        synthesize("mitochondria", folder, count=count, seed=seed, overrides=overrides)
    return folder


def labelled(folder: Path, number: int) -> dict[str, str]:
    """A volume of a data set with its labels, in the form of a training file."""
    return {"image": f"{folder}/image-{number:04}.zarr", "labels": f"{folder}/target-{number:04}.zarr"}


def trained(model: Path, seed: int, sizes: Sizes, store: Trials) -> Result:
    """Train the network of a seed, on the data set of this seed."""
    result = train(train_config(model, data(seed, sizes.volumes + 1, sizes, store), seed, sizes))
    return {"score": result.best.score}


def train_config(model: Path, folder: Path, seed: int, sizes: Sizes) -> TrainConfig:
    """The training file: the losses are those of U3D-BCD."""
    mask_losses = [{"kind": "bce"}, {"kind": "dice", "weight": 0.5}]
    settings: dict[str, Any] = {
        "output": str(model),
        "name": "bcd",
        "volumes": [labelled(folder, number) for number in range(sizes.volumes)],
        "validation": labelled(folder, sizes.volumes),
        "architecture": "residual_unet",
        "arguments": {
            **{"widths": [12, 24], "pools": [[2, 2, 2]], "stride": [1, 1, 1]},
            **{"first_kernel": [3, 3, 3], "embedding": [3, 3, 3], "norm": "instance"},
        },
        "targets": [
            {"what": "foreground", "losses": mask_losses},
            {"what": "contours", "dilation": 0, "losses": mask_losses},
            {"what": "signed_distance", **DISTANCE, "losses": [{"kind": "mse", "activation": "tanh", "weight": 5}]},
        ],
        **{"patch_shape": sizes.patch, "overlap": [n // 4 for n in sizes.patch], "augmentation": "flips"},
        **{"steps": sizes.updates, "warmup_steps": sizes.updates // 20, "learning_rate": 5e-3, "ema_decay": 0.98},
        **{"validate_every": -(-sizes.updates // 4), "pictures": False, "seed": seed, "device": sizes.device},
    }
    return parse_config(settings, TrainConfig)


@dataclass(frozen=True)
class Heads:
    """The stored heads of one volume, from which every decoder starts."""

    folder: Path
    truth: str
    heads: dict[str, str]

    @classmethod
    def of(cls, model: Path, data_set: Path, number: int, part: str) -> Heads:
        """Run the network on a volume, unless its run is complete."""
        volume = labelled(data_set, number)
        folder = model.parent / f"{model.name}-runs" / f"{part}-{number}"
        settings = {
            "input": {"image": volume["image"]},
            "inference": {"model": str(model / "card.yaml"), "heads": list(HEADS)},
            "segmentation": OBJECTS,
        }
        drive(write(folder / "heads", settings))
        heads = {name: str(folder / "heads" / "run" / f"{name}.zarr") for name in HEADS}
        return cls(folder, volume["labels"], heads)

    def decode(self, seeds_within: dict[str, Any]) -> Result:
        """Scores of the objects that a run makes of the heads with these conditions on seeds."""
        limits = "_".join(f"{name}_{value}" for each in seeds_within.values() for name, value in each.items())
        used = {name: self.heads[name] for name in (HEADS[0], *seeds_within)}
        seeds = {"seeds_within": seeds_within, "min_seed_size": 8} if seeds_within else {}
        settings = {
            "input": {"heads": used},
            "segmentation": {**OBJECTS, **seeds},
            "evaluation": {"labels": self.truth},
        }
        finished = drive(write(self.folder / (limits or "pieces"), settings))
        stage = finished.stage(EvaluateSegmentation.name)
        assert isinstance(stage, EvaluateSegmentation)
        levels = ObjectScores.of_table(stage.table(finished.kind.volume), 0).everything
        half = levels.at(0.5)
        counts = {"found": half.found, "predicted": half.predicted, "true": half.objects}
        precisions = [level.ap for level in levels.levels]
        return {"ap_50": half.ap, "ap_75": levels.at(0.75).ap, "ap": levels.ap, "curve": precisions, **counts}


def write(folder: Path, settings: dict[str, Any]) -> Path:
    """Write a run file; its run directory lies beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "run.yaml"
    file.write_text(dump_yaml({"run_directory": "run", **settings}))
    return file


def together(scores: list[Result]) -> Result:
    """Counts of several volumes added up, and the means of their precisions."""
    counts = {name: sum(each[name] for each in scores) for name in ("found", "predicted", "true")}
    means = {name: float(np.mean([each[name] or 0.0 for each in scores])) for name in ("ap_50", "ap_75", "ap")}
    curve = np.mean([[value or 0.0 for value in each["curve"]] for each in scores], axis=0)
    return {**counts, **means, "curve": curve.tolist()}


def row(decoder: str, results: list[Result]) -> list[Cell]:
    """A line of the table."""
    scores = [mean_spread([result[name] for result in results], 3) for name in ("ap_50", "ap_75", "ap")]
    counts: list[Cell] = [
        mean_spread([result[name] for result in results], 1) for name in ("found", "predicted", "true")
    ]
    return [decoder, *scores, *counts, ", ".join(f"{result['ap_50']:.3f}" for result in results)]


def notes(sizes: Sizes, found: dict[str, list[Result]]) -> list[str]:
    """Remarks that explain the table."""
    remarks = [
        f"{sizes.updates} updates on {sizes.volumes} volumes of {list(sizes.shape)} voxels, scored on {sizes.tests} "
        "others; mean ± spread over seeds. AP: the mean over IoU from 0.5 to 0.95; found: at IoU 0.5."
    ]
    pairs = (("pieces", "BC"), ("BC", "BCD"))
    for name, shown in (("ap_50", "AP-50"), ("ap_75", "AP-75")):
        for low, high in pairs:
            both = zip(found[low], found[high], strict=True)
            gains = ", ".join(f"{after[name] - before[name]:+.3f}" for before, after in both)
            remarks.append(f"{shown} of {high} less that of {low}, seed by seed: {gains}.")
    for decoder in DECODERS[1:]:
        limits = "; ".join(
            ", ".join(
                f"{head} {name} {value:g}"
                for head, each in result["seeds_within"].items()
                for name, value in each.items()
            )
            for result in found[decoder]
        )
        remarks.append(f"Seeds of {decoder} that were best on the validation volume, seed by seed: {limits}.")
    return remarks


def draw(figure: Figure, found: dict[str, list[Result]]) -> None:
    """Average precision against the IoU from which an object counts as found; a thin line for each seed."""
    axes = figure.subplots()
    ious = np.arange(0.5, 1, 0.05)
    for colour, (decoder, results) in enumerate(found.items()):
        curves = np.array([result["curve"] for result in results])
        axes.plot(ious, curves.T, color=f"C{colour}", alpha=0.3, linewidth=1)
        axes.plot(ious, curves.mean(0), "o-", color=f"C{colour}", label=decoder)
    axes.set(xlabel="IoU from which an object is found", ylabel="average precision")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)


EXPERIMENT = Experiment(
    name="bc-bcd", title="BC against BCD decoding of mitochondria that touch", run=run, figure_inches=(7, 4.2)
)
