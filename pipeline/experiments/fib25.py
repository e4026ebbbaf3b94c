"""Real tissue for experiments: FIB-25, fly medulla, 8 nm (Takemura et al. 2015, FlyEM), a volume of 250 x 250 x 250.

    z <    169          for training
    z from 169 to 185   to choose the best weights and the threshold
    z >=   186          to report on; never used before

Trainings are those of ``petaseg train``, and segmentations those of ``petaseg run``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from pipeline.config.reading import parse_config
from pipeline.config.run_file import Execution
from pipeline.config.strict_yaml import dump_yaml
from pipeline.errors import ConfigError
from pipeline.evaluation.scores import Scores, score
from pipeline.evaluation.sweep import SweepPoint, best, sweep
from pipeline.execution import make_executor
from pipeline.execution.runner import RunOptions, run_stage
from pipeline.experiments.equal_time import clock
from pipeline.geometry import BoundingBox, Triple, Vec
from pipeline.runs.report import read_merge_tree, thresholds_of
from pipeline.runs.run import Run
from pipeline.stages.evaluate_segmentation import EvaluateSegmentation
from pipeline.training.config import TrainConfig
from pipeline.training.module import TrainingModule
from pipeline.training.schedules import make_optimiser
from pipeline.training.trainer import device_of
from pipeline.volumes import create_volume, open_volume

FILE = "fib25_train2.h5"
TRAIN, WATCH, TEST = (0, 169), (169, 185), (186, 250)
"""Planes z of the three parts."""
SIDE = 250


@dataclass(frozen=True, eq=False)
class Network:
    """A network to train: an architecture, and its arguments or a named size."""

    label: str
    architecture: str
    arguments: dict[str, Any] | str


@dataclass(frozen=True)
class Training:
    """The settings that all networks of a comparison share."""

    patch: Triple = (48, 48, 48)
    learning_rate: float = 2e-3
    validations: int = 4
    """Validations in one training; the model is the best of them."""
    offsets: Sequence[Triple] | None = None
    """None: the trainer's twelve, 1, 3, 9 and 18 voxels along each axis."""


def data_file() -> Path:
    """The volume: in the folder ``PETASEG_DATA``, else in ``../shared/data`` beside the project."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    path = Path(os.environ.get("PETASEG_DATA", beside)) / FILE
    if not path.is_file():
        raise ConfigError(f"{path} does not exist; set PETASEG_DATA to the folder that holds {FILE}")
    return path


def labelled(start: Vec, stop: Vec) -> dict[str, Any]:
    """A box of the volume, in the form of a training file."""
    path = data_file()
    return {"image": f"{path}:raw", "labels": f"{path}:labels", "start": list(start), "stop": list(stop)}


def planes(part: tuple[int, int]) -> tuple[Vec, Vec]:
    """The box of some planes."""
    return Vec(part[0], 0, 0), Vec(part[1], SIDE, SIDE)


def train_config(
    output: Path, network: Network, training: Training, boxes: Sequence[tuple[Vec, Vec]], *, steps: int, seed: int
) -> TrainConfig:
    """A training file: some boxes of the training part, and the validation part."""
    if any(stop[0] > TRAIN[1] for _, stop in boxes):
        raise ConfigError(f"boxes are {list(boxes)}; only planes below {TRAIN[1]} are for training")
    data: dict[str, Any] = {
        "output": str(output),
        "name": network.label,
        "volumes": [labelled(*box) for box in boxes],
        "validation": labelled(*planes(WATCH)),
        "architecture": network.architecture,
        "arguments": network.arguments,
        "patch_shape": training.patch,
        "overlap": [n // 4 for n in training.patch],
        "learning_rate": training.learning_rate,
        "warmup_steps": min(50, steps // 5),
        "steps": steps,
        "validate_every": -(-steps // training.validations),
        "pictures": False,
        "seed": seed,
        "training_data": "FIB-25 (Takemura et al. 2015, FlyEM; CC BY)",
    }
    offsets = {} if training.offsets is None else {"offsets": training.offsets}
    return parse_config({**data, **offsets}, TrainConfig)


class Pace:
    """Updates as the trainer makes them, to measure their time."""

    def __init__(self, config: TrainConfig) -> None:
        torch.set_num_threads(config.threads)
        self.device = torch.device(device_of(config.device))
        self.module, self.config, self.number = TrainingModule(config).to(self.device), config, 0
        self.optimiser = make_optimiser(self.module.network, config)

    def update(self) -> float:
        """Do one update; returns its seconds."""
        began = clock(self.device)
        image, targets, weights = (
            torch.from_numpy(array)[None].to(self.device) for array in self.module.sampler.draw(self.number)
        )
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16"):
            loss = self.module.training_step((image, targets, weights), self.number)
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self.number += 1
        return clock(self.device) - began


def cut_out(folder: Path, part: tuple[int, int], side: int = SIDE) -> dict[str, str]:
    """Write image and labels of some planes as separate volumes, so that patches fit, unless this was done before."""
    box = BoundingBox((part[0], 0, 0), (part[1], side, side))
    urls = {name: str(folder / f"{name}-{part[0]}-{part[1]}-{side}.zarr") for name in ("raw", "labels")}
    for name, url in urls.items():
        if not Path(url).exists():
            source = open_volume(f"{data_file()}:{name}")
            spec = replace(source.spec, bounds=box, storage_chunk=Vec(64, 64, 64))
            partial = f"{url}.partial"
            create_volume(partial, spec, overwrite=True).write(box, source.read(box))
            os.replace(partial, url)
    return urls


def segment(folder: Path, volumes: dict[str, str], scored: tuple[int, int], changes: dict[str, Any]) -> Run:
    """Do what ``petaseg run`` does, stage by stage in this process; ``changes`` are tables of the run file.

    scored: planes that are compared with the labels.
    """
    side = open_volume(volumes["raw"]).spec.bounds.stop[1]
    data = {
        "run_directory": "run",
        "input": {"image": volumes["raw"]},
        "evaluation": {
            "labels": volumes["labels"],
            "start": [scored[0], 0, 0],
            "stop": [scored[1], side, side],
        },
        "chunk_shape": [64, 128, 128],
        "storage_chunk_shape": [64, 64, 64],
        **changes,
    }
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "run.yaml"
    file.write_text(dump_yaml(data))
    return drive(file)


def drive(file: Path) -> Run:
    """Do what ``petaseg run`` does with a run file, stage by stage in this process."""
    run = Run.open(file)
    run.create()
    executor = make_executor("serial")
    for stage in run.stages:
        ledger = run.ledger(stage)
        run_stage(stage, ledger, executor, RunOptions.of(Execution(attempts=1), run.command))
        ledger.close()
    return run


def sweep_of(run: Run) -> list[SweepPoint]:
    """Scores at every threshold."""
    return sweep(_evaluation(run).table("supervoxels"), read_merge_tree(run), thresholds_of(run))


def scores_of(run: Run) -> Scores:
    """Scores of the labels that the run wrote."""
    return score(_evaluation(run).table("labels"))


def _evaluation(run: Run) -> EvaluateSegmentation:
    stage = run.stage(EvaluateSegmentation.name)
    assert isinstance(stage, EvaluateSegmentation)
    return stage


def judged(
    folder: Path, card: Path, *, side: int = SIDE, on_stage: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """The evaluation of a model after the whole pipeline: the threshold of least VOI on the validation part, and the
    scores on the test part.

    The validation run segments as many planes as the test run, and is scored on the 16 that were not trained on.
    """
    model = {"inference": {"model": str(card.resolve())}}
    on_stage("validation")
    before = (WATCH[1] - (TEST[1] - TEST[0]), WATCH[1])
    points = sweep_of(segment(folder / "validation", cut_out(folder.parent, before, side), WATCH, model))
    threshold = best(points).threshold
    on_stage("test")
    cut = {**model, "segmentation": {"threshold": threshold}}
    run = segment(folder / "test", cut_out(folder.parent, TEST, side), TEST, cut)
    found = sweep_of(run)
    return {
        "threshold": threshold,
        "validation_voi": best(points).scores.voi,
        "test": scores_of(run).to_dict(),
        "best_test_voi": best(found).scores.voi,
        "sweep": [[p.threshold, p.scores.voi_split, p.scores.voi_merge] for p in found],
    }
