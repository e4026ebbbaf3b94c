"""The hours and the money that a run has cost and will cost, with an interval of the promised coverage."""

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.config.cluster import Prices
from pipeline.config.reading import parse_config
from pipeline.config.run_file import RunConfig
from pipeline.runs.cost import (
    COVERAGE,
    Estimate,
    RunCost,
    StageHours,
    WorkerShare,
    forecast,
    share_of,
    stage_hours,
    unmeasured,
)
from pipeline.runs.outline import StageOutline
from pipeline.stages.base import ChunkReport
from pipeline.storage import ObjectStore
from tests.ledger.ledgers import GRIDS, ledger
from tests.runs import petaseg, write_run, write_volume

STAGE = StageOutline("count_voxels", "A", tuple(GRIDS), gpus=0, network=False)
NETWORK = StageOutline("predict_heads", "A", tuple(GRIDS), gpus=1, network=True)
HOUR = 3600


def config(**tables: object) -> RunConfig:
    return parse_config({"run_directory": "run", "input": {"image": "image.zarr"}, **tables})


def held(samples: list[tuple[np.ndarray, int]]) -> float:
    """The share of the samples whose forecast interval, made after some chunks, held the true sum."""
    hits = 0
    for seconds, done in samples:
        found = forecast(seconds[:done], len(seconds) - done)
        hits += found.low <= seconds[done:].sum() <= found.high
    return hits / len(samples)


@pytest.mark.parametrize("done", [2, 5, 30, 400])
def test_the_interval_holds_the_truth_as_often_as_it_says(done: int) -> None:
    """The interval of a forecast holds the true sum in the promised share of runs."""
    dice = np.random.default_rng(done)
    samples = [(dice.normal(10, 2, 1000).astype(np.float32), done) for _ in range(400)]
    assert held(samples) == pytest.approx(COVERAGE, abs=0.06)


def test_neighbouring_chunks_that_resemble_each_other_widen_the_interval() -> None:
    """The interval is wider when neighbouring chunks resemble each other, as in blood vessels and cell bodies."""
    dice = np.random.default_rng(0)
    samples = [(np.repeat(dice.lognormal(2, 0.6, 100), 20), 1000) for _ in range(400)]
    assert held(samples) > 0.8
    wide, narrow = forecast(samples[0][0][:1000], 1000), forecast(dice.permutation(samples[0][0][:1000]), 1000)
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_nothing_is_forecast_of_what_is_done() -> None:
    assert forecast(np.ones(5, np.float32), 0) == Estimate()


def test_random_errors_add_up_as_squares_and_common_errors_as_they_are() -> None:
    one, other = Estimate(10, random_error=(3, 3)), Estimate(10, random_error=(4, 4))
    assert ((one + other).low, (one + other).high) == (15, 25)
    guess = unmeasured(10) + unmeasured(10)
    assert (guess.low, guess.value, guess.high) == (10, 20, 40)
    assert (unmeasured(10) * 2).high == 40


def recorded(folder: Path, seconds: dict[int, list[float]]):
    """A ledger whose chunks took given seconds, by level."""
    book = ledger(ObjectStore(folder))
    for level, each in seconds.items():
        for chunk, took in zip(GRIDS[level], each, strict=False):
            book.record(ChunkReport(level, chunk.index, "00" * 16, took, 80, 0))
    return book


def test_hours_are_those_of_the_ledger_and_the_mean_of_what_is_missing(tmp_path: Path) -> None:
    count = len(GRIDS[0])
    done = recorded(tmp_path, {0: [HOUR] * (count - 8)})
    hours = stage_hours(STAGE, done, WorkerShare(), None)
    above = sum(len(grid) for grid in GRIDS[1:])
    assert hours.spent == count - 8
    assert hours.left is not None
    assert hours.left.value == pytest.approx(8 + above)
    assert (hours.left.low, hours.left.high) == pytest.approx((8 + above / 2, 8 + above * 2))


def test_a_level_is_judged_by_itself_as_soon_as_it_can_be(tmp_path: Path) -> None:
    """A level is forecast from its own chunks once enough of them are done, not from those below."""
    above = len(GRIDS[1])
    done = recorded(tmp_path, {0: [HOUR] * len(GRIDS[0]), 1: [3 * HOUR] * (above - 1)})
    hours = stage_hours(STAGE, done, WorkerShare(), None)
    assert hours.left is not None
    assert hours.left.value == pytest.approx(3 + 3 * sum(len(grid) for grid in GRIDS[2:]))


def test_a_finished_stage_has_nothing_left(tmp_path: Path) -> None:
    done = recorded(tmp_path, {grid.level: [HOUR] * len(grid) for grid in GRIDS})
    assert stage_hours(STAGE, done, WorkerShare(), None).left == Estimate()


def test_a_stage_without_chunks_is_unknown_until_a_sample_was_measured(tmp_path: Path) -> None:
    """A stage without done chunks or a measured sample is named as unknown in the forecast."""
    empty = recorded(tmp_path, {})
    unknown = stage_hours(STAGE, empty, WorkerShare(), None)
    assert unknown.left is None
    cost = RunCost((StageHours("first", 2.0, Estimate(), WorkerShare()), unknown), Prices())
    assert cost.unknown == ("count_voxels",)
    assert cost.total(lambda share: 1.0) == Estimate(2.0)
    per_voxel = 2 * HOUR / (GRIDS[0].roi.voxels / len(GRIDS[0]))
    sampled = stage_hours(STAGE, empty, WorkerShare(), per_voxel).left
    assert sampled is not None
    assert sampled.value == pytest.approx(2 * STAGE.total)
    assert (sampled.low, sampled.high) == pytest.approx((STAGE.total, 4 * STAGE.total))


@pytest.mark.parametrize(
    ("execution", "stage", "share"),
    [
        ({"executor": "serial"}, STAGE, WorkerShare(1, 1, 0)),
        ({"executor": "threads", "workers": 4}, STAGE, WorkerShare(1 / 4, 1, 0)),
        ({"executor": "threads", "workers": 4}, NETWORK, WorkerShare(1 / 4, 1, 1 / 4)),
        ({"executor": "dask", "workers": 3, "threads_per_worker": 2}, NETWORK, WorkerShare(1 / 2, 1, 1 / 6)),
    ],
)
def test_on_one_machine_chunks_share_its_gpu(execution: dict, stage: StageOutline, share: WorkerShare) -> None:
    """On one machine all chunks in flight share one GPU and the cores."""
    assert share_of(config(execution=execution), None, stage) == share


def test_on_a_cluster_a_chunk_holds_its_part_of_a_worker() -> None:
    """On a cluster a chunk is charged its share of the worker's cores and GPUs, whether it uses the GPUs or not."""
    gpu = {"cpus": 8, "gpus": 1, "threads": 2}
    apart = config(cluster={"workers": {"cpus": 4, "threads": 4}, "inference_workers": gpu})
    assert share_of(apart, "slurm", STAGE) == WorkerShare(1 / 4, 1, 0)
    assert share_of(apart, "slurm", NETWORK) == WorkerShare(1 / 2, 4, 1 / 2)
    together = config(cluster={"workers": gpu})
    assert share_of(together, "kubernetes", STAGE) == WorkerShare(1 / 2, 4, 1 / 2)


def test_money_is_hours_times_prices() -> None:
    prices = Prices(cpu_hour=0.05, gpu_hour=2.0, currency="EUR")
    stages = (
        StageHours("predict_heads", 10.0, Estimate(10.0, (2.0, 2.0)), WorkerShare(1 / 2, 4, 1 / 2)),
        StageHours("relabel", 3.0, Estimate(), WorkerShare(1, 1, 0)),
    )
    plain = RunCost(stages, prices).as_dict()
    assert plain["money"]["spent"] == pytest.approx(10 * (4 * 0.05 + 0.5 * 2) + 3 * 0.05)
    assert plain["money"]["total"] == pytest.approx(20 * 1.2 + 0.15)
    assert plain["money"]["high"] == pytest.approx(22 * 1.2 + 0.15)
    assert plain["worker_hours"]["spent"] == 8
    assert plain["cpu_hours"]["spent"] == 43
    assert plain["gpu_hours"]["spent"] == 5
    assert plain["chunk_hours"]["spent"] == 13
    assert "money" not in RunCost(stages, Prices()).as_dict()


@pytest.mark.slow
def test_status_tells_the_cost_before_during_and_after_a_run(tmp_path: Path) -> None:
    """Status gives no cost before a sample, then a forecast with an interval, and after the run what was spent."""
    affinities = np.kron(np.random.default_rng(0).integers(0, 2, (3, 4, 5, 6)), np.ones((1, 8, 8, 8))).astype(np.uint8)
    file = write_run(
        tmp_path,
        input={"affinities": write_volume(tmp_path / "affinities.zarr", 200 * affinities)},
        chunk_shape=[16, 16, 16],
        storage_chunk_shape=[16, 16, 16],
        cluster={"prices": {"cpu_hour": 36.0, "currency": "EUR"}},
    )
    before = json.loads(petaseg("status", file, "--json").stdout)["cost"]
    assert len(before["unknown"]) == 7
    assert before["money"]["total"] == 0
    assert "no chunk done yet, and no sample" in petaseg("status", file).stdout
    planned = petaseg("plan", file, "--keep")
    assert planned.returncode == 0, planned.stderr
    sampled = json.loads(petaseg("status", file, "--json").stdout)["cost"]
    assert sampled["unknown"] == []
    assert 0 < sampled["money"]["low"] < sampled["money"]["total"] < sampled["money"]["high"]
    assert petaseg("run", file, "--quiet").returncode == 0
    after = json.loads(petaseg("status", tmp_path / "run", "--json").stdout)
    seconds = sum(stage["seconds"] for stage in after["stages"])
    assert after["cost"]["money"]["spent"] == pytest.approx(seconds * 0.01)
    assert after["cost"]["money"]["high"] == after["cost"]["money"]["spent"]
    shown = petaseg("status", tmp_path / "run").stdout
    assert "EUR spent" in shown
    assert "in all" not in shown
