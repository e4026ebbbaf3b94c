"""Ablation and recurrence train, predict and cut on real tissue, and share what they train."""

import csv
from pathlib import Path

import numpy as np
import pytest

from pipeline.evaluation.contingency import Contingency
from pipeline.evaluation.scores import score
from pipeline.experiments import ablation, recurrence
from pipeline.experiments.base import Scale, run_experiment
from pipeline.experiments.plain import BASE, Reading, Sizes, model_of, train_config
from pipeline.experiments.whole_volume import Cutting, judge, merge_tree, perfectly_merged, supervoxels
from pipeline.training.callbacks import CHECKPOINT, weights_of

TINY = Scale(tiny=True, seeds=(0,))


@pytest.fixture(autouse=True)
def real_data(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PETASEG_DATA", str(shared_data))


def table(folder: Path) -> list[dict[str, str]]:
    """The rows of an experiment's table."""
    with (folder / "table.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def output(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both experiments in one folder, the smallest size."""
    folder: Path = tmp_path_factory.mktemp("experiments")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PETASEG_DATA", str(shared_data))
        run_experiment(ablation.EXPERIMENT, folder, TINY)
        said: list[str] = []
        run_experiment(recurrence.EXPERIMENT, folder, TINY, said.append)
        (folder / "said.txt").write_text("\n".join(said))
    return folder


def test_the_ablation_has_a_row_for_each_thing_that_is_changed(output: Path) -> None:
    """Each row has the scores of its segmentation, and all but the first say what they differ from it."""
    rows = table(output / "ablation")
    assert [row["changed"] for row in rows] == [row.label for row in ablation.OF_TINY]
    assert [bool(row["less the first row"]) for row in rows] == [False] + [True] * (len(rows) - 1)
    for row in rows:
        assert float(row["VOI"]) == pytest.approx(float(row["VOI split"]) + float(row["VOI merge"]), abs=0.02)
        assert float(row["best VOI"]) <= float(row["VOI"])
    assert rows[1]["cut-edge F1"] != rows[0]["cut-edge F1"]
    assert rows[-1]["perfect agglomeration"] != rows[0]["perfect agglomeration"]
    assert (output / "ablation" / "plot.png").stat().st_size > 10_000


def test_the_network_that_both_experiments_need_is_trained_once(output: Path) -> None:
    """The plain U-Net of the recurrence is the one that the ablation has trained."""
    assert [row["network"] for row in table(output / "recurrence")] == [n.label for n in recurrence.NETWORKS]
    said = (output / "said.txt").read_text().splitlines()
    assert any(line.startswith("known") and f"trial=plain variant={BASE.label}" in line for line in said)


def test_each_row_is_a_training_file_that_is_read_and_trains_below_the_other_planes() -> None:
    """Every row of the ablation is a valid training file, on planes below 169, and differs from the first."""
    configs = [train_config(row.variant, Path("nowhere"), 100, 0) for row in (ablation.FIRST, *ablation.TRAININGS)]
    for config in configs:
        assert config.volumes[0].stop == (169, 250, 250)
    assert len({config.model_dump_json() for config in configs}) == len(configs)
    assert len({row.label for row in ablation.ROWS}) == len(ablation.ROWS)


def test_the_last_weights_are_those_of_the_checkpoint(output: Path) -> None:
    """Without the running mean a network has the weights of its last update."""
    folder = next(path.parent for path in (output / "trials").glob(f"plain-*/{CHECKPOINT}"))
    stored = weights_of(folder / CHECKPOINT)["state_dict"]
    last = model_of(folder, averaged=False).module.state_dict()
    assert all(np.array_equal(last[name], stored[f"network.{name}"]) for name in last)
    mean = model_of(folder, averaged=True).module.state_dict()
    assert any(not np.array_equal(last[name], mean[name]) for name in last)


def test_a_reading_of_the_smallest_scale_keeps_what_it_changes() -> None:
    """At the smallest scale patches are smaller; augmentation and weights stay."""
    found = Sizes.of(TINY).reading(Reading(augmentation="flips", averaged=False))
    assert (found.patch, found.augmentation, found.averaged) == (32, "flips", False)


def two_neurons() -> tuple[np.ndarray, np.ndarray]:
    """Affinities of two neurons with a membrane between them, and their labels."""
    truth = np.ones((24, 16, 16), np.uint32)
    truth[:, 8:] = 2
    affinities = np.full((3, 24, 16, 16), 255, np.uint8)
    affinities[1, :, 8] = 0
    return affinities, truth


def test_a_volume_with_clear_membranes_is_cut_without_fault() -> None:
    """Two neurons with a clear membrane between them are two supervoxels, and no threshold merges them."""
    affinities, truth = two_neurons()
    ids = supervoxels(affinities, Cutting().supervoxel_rules)
    found = judge(ids, merge_tree(ids, affinities), truth, slice(0, 12), slice(12, 24))
    assert (found.supervoxels, found.scores.voi, found.best.voi, found.perfect.voi) == (2, 0, 0, 0)


def test_a_perfect_agglomeration_leaves_the_fault_of_supervoxels_alone() -> None:
    """Small supervoxels cost a perfect agglomeration nothing; one over two neurons costs it what it merges."""
    truth = np.repeat(np.array([1, 1, 2, 2], np.uint32), 64).reshape(4, 8, 8)
    small = np.arange(1, 257, dtype=np.uint64).reshape(4, 8, 8)
    assert perfectly_merged(truth, small).voi == 0
    over_both = np.repeat(np.array([5, 6, 6, 7], np.uint64), 64).reshape(4, 8, 8)
    merged = np.repeat(np.array([1, 1, 1, 2], np.uint64), 64).reshape(4, 8, 8)
    assert perfectly_merged(truth, over_both).voi == score(Contingency.from_labels(truth, merged)).voi > 0
