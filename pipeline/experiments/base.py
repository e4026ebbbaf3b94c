"""The parts of an experiment.

An experiment is a function of a scale. It gets its trials from a store, one by one. A trial that was computed before is
read, so an experiment that was killed continues where it was, and two experiments can share trained networks. It
returns a report: a table, remarks, and a plot.

    def run(scale: Scale, store: Trials) -> Report:
        scores = [store.get({"trial": "mine", "seed": seed}, lambda: train(seed))["f1"] for seed in scale.seeds]
        return Report(["F1"], [[mean_spread(scores)]], ["A remark."], lambda figure: draw(figure, scores))

    EXPERIMENT = Experiment(name="mine", title="The question", run=run)
"""

from __future__ import annotations

import csv
import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pipeline import __version__
from pipeline.errors import ConfigError
from pipeline.evaluation.files import make_folder, whole_file
from pipeline.experiments import EXPERIMENTS
from pipeline.registry import find, load

log = logging.getLogger("petaseg.experiments")

Key = dict[str, Any]
"""The identity of a trial as JSON: its kind, its seed, its settings."""
Result = dict[str, Any]
Cell = str | int | float


@dataclass(frozen=True)
class Scale:
    """How large an experiment is."""

    full: bool = False
    """Use larger sizes, for a GPU."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Every training is done once with each seed."""
    minutes: float | None = None
    """Wall-clock time of a training, where trainings are compared at equal time; None: the experiment's own number."""
    tiny: bool = False
    """A few updates on a few small images: shows only that the code runs."""
    one_update: bool = False
    """One update of each training, on few data: shows only that a scale can be computed."""

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(f"seeds are {list(self.seeds)}; at least one is needed, and each but once")
        if self.minutes is not None and self.minutes <= 0:
            raise ConfigError(f"minutes is {self.minutes}; a training needs some time: choose more than 0")

    def updates(self, own: int) -> int:
        """Updates of a training that has ``own`` of them at this scale."""
        return 1 if self.one_update else own

    def data(self, own: int, few: int = 2) -> int:
        """The number of pictures or volumes, of which this scale has ``own``."""
        return min(own, few) if self.one_update else own

    @property
    def device(self) -> torch.device:
        """The device for training: a GPU if there is one and the scale is full."""
        return torch.device("cuda" if self.full and torch.cuda.is_available() else "cpu")


class Trials:
    """A folder of computed trials: a JSON file for each, and other files that a trial keeps beside it.

    A trial's name is made of its key and the versions of petaseg and torch: with another version it is computed anew.
    """

    def __init__(self, folder: Path | str, say: Callable[[str], None] = log.info) -> None:
        self.folder, self.say = Path(folder), say
        self.seconds: dict[str, float] = {}
        """For each trial that was read or computed, the seconds that its computation took."""

    def get(self, key: Key, compute: Callable[[], Result]) -> Result:
        """The result of the trial, which is computed if it is not stored yet."""
        name, shown = self.name(key), " ".join(f"{k}={v}" for k, v in key.items() if not isinstance(v, dict | list))
        path = self.folder / f"{name}.json"
        if path.exists():
            record = json.loads(path.read_text())
            if name not in self.seconds:
                self.say(f"known    {shown}")
        else:
            start = perf_counter()
            record = {"key": key, "result": compute(), "seconds": round(perf_counter() - start, 2)}
            with whole_file(path) as temporary:
                temporary.write_text(json.dumps(record, indent=1) + "\n")
            self.say(f"{record['seconds']:6.1f} s {shown}")
        self.seconds[name] = record["seconds"]
        return json.loads(json.dumps(record["result"]))  # type: ignore[no-any-return]  # the same, new or known

    def file(self, key: Key, suffix: str) -> Path:
        """The path of a file of the trial, such as its weights; ``compute`` writes it before the record is written."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / f"{self.name(key)}{suffix}"

    def name(self, key: Key) -> str:
        """The name of the trial's files: its kind, and a hash of its key and the versions."""
        words = json.dumps({**key, "versions": [__version__, torch.__version__]}, sort_keys=True)
        return f"{key.get('trial', 'trial')}-{hashlib.sha256(words.encode()).hexdigest()[:16]}"


@dataclass(frozen=True)
class Report:
    """The results of an experiment."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    """Texts and numbers; a cell may be a ``mean_spread``."""
    notes: Sequence[str]
    """Remarks, a sentence or two each."""
    plot: Callable[[Figure], None]
    """Draws on an empty figure whose layout is constrained."""


@dataclass(frozen=True)
class Experiment:
    """One experiment."""

    name: str
    """The name in the command; the module's name has underscores for its hyphens."""
    title: str
    run: Callable[[Scale, Trials], Report]
    figure_inches: tuple[float, float] = field(default=(10.0, 4.2))
    timed: bool = False
    """True if trainings are compared at equal time, so that ``Scale.minutes`` has an effect."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """The seeds if the user gives none."""


def find_experiment(name: str) -> Experiment:
    """The experiment of that name; ``ConfigError`` if there is none."""
    module, _ = find(EXPERIMENTS, name, "there is no experiment")
    return load(f"{module}:EXPERIMENT")  # type: ignore[no-any-return]


def run_experiment(
    experiment: Experiment, output: Path | str, scale: Scale, say: Callable[[str], None] = log.info
) -> Path:
    """Run it and write its report; returns the folder ``output/NAME``. All experiments share ``output/trials``."""
    if scale.minutes is not None and not experiment.timed:
        raise ConfigError(f"minutes is {scale.minutes:g}; {experiment.name} counts updates, not time: leave it out")
    start, store = perf_counter(), Trials(make_folder(Path(output) / "trials", "--output"), say)
    folder = make_folder(Path(output) / experiment.name, "the folder of the result")
    report = experiment.run(scale, store)
    facts = {
        "experiment": experiment.name,
        "title": experiment.title,
        "scale": asdict(scale),
        "device": str(scale.device),
        "threads": torch.get_num_threads(),
        "versions": {"petaseg": __version__, "torch": torch.__version__},
        "seconds": round(perf_counter() - start, 1),
        "trial_seconds": round(sum(store.seconds.values()), 1),
        "trials": len(store.seconds),
    }
    write_report(folder, experiment, report, facts)
    return folder


def write_report(folder: Path, experiment: Experiment, report: Report, facts: dict[str, Any]) -> None:
    """``plot.png``, ``table.csv``, ``table.md``, and ``result.json`` with all facts, each file written atomically."""
    with whole_file(folder / "plot.png") as path:
        figure = Figure(figsize=experiment.figure_inches, layout="constrained")
        report.plot(figure)
        FigureCanvasAgg(figure)
        figure.savefig(path, format="png", dpi=110)
    with whole_file(folder / "table.csv") as path, path.open("w", newline="") as file:
        csv.writer(file).writerows([report.columns, *report.rows])
    with whole_file(folder / "table.md") as path:
        path.write_text(markdown(report))
    table = {"columns": list(report.columns), "rows": [list(row) for row in report.rows], "notes": list(report.notes)}
    with whole_file(folder / "result.json") as path:
        path.write_text(json.dumps({**facts, **table}, indent=1) + "\n")


def markdown(report: Report) -> str:
    """The table, and the notes as a list; numbers with four digits."""
    lines = [report.columns, ["---"] * len(report.columns), *[[shown(cell) for cell in row] for row in report.rows]]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([table, "", *[f"- {note}" for note in report.notes]]).rstrip() + "\n"


def shown(cell: Cell) -> str:
    """The text of a cell of the table."""
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)


def mean_spread(values: Sequence[float], digits: int = 2) -> str:
    """``0.71 ± 0.03``: mean and standard deviation over seeds; of a single value, the value."""
    mean = f"{np.mean(values):.{digits}f}"
    return f"{mean} ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else mean
