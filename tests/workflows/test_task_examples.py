"""The pairs of training file and run file in ``examples/`` go from made-up volumes to scores."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from pipeline.config.reading import load_config
from pipeline.runs.report import write_report
from pipeline.synthetic.dataset import synthesize
from pipeline.training.config import TrainConfig
from pipeline.training.trainer import train
from tests.runs import run

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TASKS = {
    "clefts": ("train_clefts.yaml", "run_clefts.yaml", "mask"),
    "lucchi": ("train_lucchi.yaml", "run_lucchi.yaml", "mask"),
    "mitoem-bc": ("train_mitoem.yaml", "run_mitoem_bc.yaml", "objects"),
    "mitoem-bcd": ("train_mitoem.yaml", "run_mitoem_bcd.yaml", "objects"),
    "nucmm": ("train_nucmm.yaml", "run_nucmm.yaml", "objects"),
    "classes": ("train_classes.yaml", "run_classes.yaml", "classes"),
}


def make_data(text: str, folder: Path) -> None:
    """Do the ``petaseg synthesize`` command of a training file, with smaller volumes."""
    (command,) = re.findall(r"^#   petaseg synthesize (.*)$", text, re.MULTILINE)
    kind, output, *words = command.split()
    count, settings = words[words.index("--count") + 1], [each for each in words if "=" in each]
    smaller = [each for each in settings if not each.startswith("shape=")]
    synthesize(kind, folder / output, count=int(count), overrides=["shape=[48,96,96]", *smaller])


@pytest.mark.parametrize(("training", "run_file", "kind"), TASKS.values(), ids=TASKS)
def test_an_example_goes_from_made_up_volumes_to_scores(tmp_path, monkeypatch, training, run_file, kind):
    """Training and run fit each other and the data of the command in the training file, and the result is scored."""
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "examples" / training
    make_data(file.read_text(), tmp_path)
    short = ["steps=2", "validate_every=2", "warmup_steps=0", "pictures=false"]
    train(load_config(file, short, TrainConfig))
    finished = run(tmp_path / "examples" / run_file, "execution.executor=serial")
    assert finished.kind.name == kind
    assert write_report(finished).scores is not None
    found = json.loads(finished.store.get("report/scores.json"))["scores"]
    assert {"objects": "ap_50", "mask": "dice", "classes": "mean_iou"}[kind] in found


def test_every_run_file_of_the_examples_is_tested():
    """No run file lies in the folder that is not of a pair."""
    assert {path.name for path in EXAMPLES.glob("run_*.yaml")} == {pair[1] for pair in TASKS.values()}
