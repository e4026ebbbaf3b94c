"""The smallest part of each kind that CONTRIBUTING.md says how to add; ``test_extending.py`` registers them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.clusters.base import DriverJob, JobState, Submission, WorkerPool
from pipeline.clusters.tls import Tls
from pipeline.config.cluster import WorkerShape
from pipeline.config.run_file import Table
from pipeline.execution.base import Item, Outcome, Result, attempt
from pipeline.execution.stopping import Gate
from pipeline.experiments.base import Experiment, Report
from pipeline.handover.source import Source
from pipeline.models.cells import Recurrence
from pipeline.models.recurrent import RecurrentNetwork
from pipeline.needs import Needs
from pipeline.storage import local_path
from pipeline.synthetic.sample import Sample, sample_rng
from pipeline.training.loss_specs import LossSpec
from pipeline.training.rule_specs import RuleSettings
from pipeline.training.rules import Rule, Trajectory
from pipeline.training.rules.base import check_steps, shaped, tensors
from pipeline.training.target_specs import Pair, TargetSpec
from pipeline.training.weight_specs import Labelled, WeightSpec
from pipeline.volumes.base import Mode, VolumeSpec
from pipeline.volumes.checked import CheckedVolume
from pipeline.volumes.location import Location
from pipeline.volumes.placement import Stated, placement, refuse_writing


class TextVolume(CheckedVolume):
    """One section as a file of numbers; a URL may ask for brighter ones: ``section.txt#times=2``."""

    def __init__(self, url: str, spec: VolumeSpec, section: np.ndarray) -> None:
        super().__init__(url, spec)
        self._section = section

    @classmethod
    def open(cls, location: Location, mode: Mode) -> TextVolume:
        refuse_writing(location, mode)
        section = np.loadtxt(local_path(location.base), dtype=np.uint8, ndmin=2)[None]
        resolution, bounds = placement(location, Stated(), section.shape)
        section *= int(location.options.get("times", 1))
        return cls(location.url, VolumeSpec(bounds, resolution, section.dtype), section)

    def _load(self, box):
        return self._section[box.slices(self.spec.bounds.start)]


class Hinge(LossSpec):
    """Mean of max(0, 1 - t x), with t = -1 or 1."""

    kind: Literal["hinge"] = "hinge"
    margin: float = 1.0

    def of(self, logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        return ((self.margin - (2 * targets - 1) * logits).clamp(min=0) * weights).mean()


class Double(WeightSpec):
    """Every voxel weighs two."""

    kind: Literal["double"] = "double"
    times: float = 1.0

    def of(self, at: Labelled) -> np.ndarray:
        return np.full_like(at.target, 2 * self.times)


class Even(TargetSpec):
    """Where labels are even."""

    what: Literal["even"] = "even"

    def target(self, labels: np.ndarray, resolution_nm: Sequence[float]) -> Pair:
        even = (labels % 2 == 0).astype(np.float32)[None]
        return even, np.ones_like(even)


class LastStep:
    """Gradients of the last step alone."""

    runs: ClassVar[list[int]] = []
    """The steps of each run."""

    def __call__(self, recurrence: Recurrence, x: Tensor, steps: int, *, keep: bool = False) -> Trajectory:
        check_steps(steps)
        self.runs.append(steps)
        state = recurrence.initial(x)
        with torch.no_grad():
            for _ in range(steps - 1):
                state = recurrence.step(x, state)
        previous = tuple(part.detach().requires_grad_() for part in tensors(state))
        after = recurrence.step(x, shaped(previous, state))
        return Trajectory(after, previous, tensors(after), [after])


class LastStepSettings(RuleSettings):
    """The rule has no settings of its own."""

    kind: Literal["last_step"] = "last_step"

    def rule(self) -> Rule:
        return LastStep()


class Echo(RecurrentNetwork):
    """A recurrence of one channel, read by as many as are asked for."""

    dimensions = 3

    def __init__(self, out_channels: int, steps: int = 2) -> None:
        super().__init__()
        self.out_channels, self.steps = out_channels, steps
        self.input, self.readout = nn.Conv3d(1, 1, 3, padding=1), nn.Conv3d(1, out_channels, 1)

    def drive(self, image: Tensor) -> Tensor:
        return self.input(image)

    def initial(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)

    def step(self, x: Tensor, state: Tensor) -> Tensor:
        return torch.tanh(x + state / 2)

    def read(self, state: Tensor, x: Tensor, image: Tensor) -> Tensor:
        return self.readout(state)


class StripesConfig(Table):
    """Settings of ``make_stripes``."""

    width: int = 4
    """Pixels of a stripe."""


def make_stripes(index: int, *, seed: int, config: StripesConfig) -> Sample:
    """An image (y, x) of stripes with noise, and where they are."""
    stripes = np.tile(np.arange(16) // config.width % 2, (16, 1)).astype(np.uint8)
    noise = sample_rng(seed, index).normal(0, 0.1, stripes.shape)
    return Sample((stripes + noise).astype(np.float32), stripes, {})


EXPERIMENT = Experiment(
    name="counting",
    title="How many seeds are there?",
    run=lambda scale, store: Report(["seeds"], [[len(scale.seeds)]], ["All."], lambda figure: figure.subplots()),
)


class BackwardsExecutor:
    """Draws all items and begins with the last."""

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def map_unordered(
        self,
        function: Callable[[Item], Result],
        items: Iterable[Item],
        *,
        needs: Needs,
        max_in_flight: int | None = None,
        gate: Gate | None = None,
    ) -> Generator[Outcome[Item, Result], None, None]:
        for item in reversed(list(items)):
            if gate is not None and gate.closed:
                return
            yield attempt(function, item)

    def avoid(self, node: str) -> bool:
        return False

    def close(self) -> None:
        """Nothing to release."""


def hand_over_as_list(source: Source, place: Path, on_progress: Callable[[int, int], None]) -> None:
    """The ids of the supervoxels of a run, one a line."""
    ids = {name for _, part in source.parts() for name in part.supervoxels["id"].tolist()}
    (place / "ids.txt").write_text("\n".join(map(str, sorted(ids))))


class PaperCluster:
    """A cluster whose drivers exist on paper only."""

    name = "paper"
    alive: ClassVar[set[str]] = set()

    def render(self, submission: Submission) -> dict[str, str]:
        return {"driver.txt": f"please run {submission.run_url}"}

    def submit(self, submission: Submission) -> DriverJob:
        self.alive.add(submission.run_url)
        return DriverJob(self.name, submission.run_url)

    def state(self, job: DriverJob) -> JobState:
        return JobState("running" if job.id in self.alive else "unknown")

    def logs(self, job: DriverJob, *, workers: bool = False) -> Iterator[str]:
        yield "nobody has read it yet"

    def cancel(self, job: DriverJob) -> None:
        self.alive.discard(job.id)

    def pool(self, name: str, shape: WorkerShape, submission: Submission, tls: Tls | None) -> WorkerPool:
        raise NotImplementedError("paper has no workers")
