"""The plan of a run: waves of chunks on the workers that a stage can use, memory, and money."""

from pathlib import Path

import pytest

from pipeline.config.reading import parse_config
from pipeline.config.run_file import RunConfig
from pipeline.geometry import BoundingBox, Vec
from pipeline.grid import ChunkGrid
from pipeline.ledger.pace import Level
from pipeline.runs.cost import WorkerShare, sample_seconds
from pipeline.runs.memory import Measured, PeakMemory, shortages
from pipeline.runs.outline import StageOutline
from pipeline.runs.plan import StagePlan, make_plan
from pipeline.runs.run import Run
from pipeline.runs.workers import slots_of
from tests.runs import affinity_run, petaseg
from tests.stages.test_every_stage import small_run

GB = 10**9
NETWORK = StageOutline("predict_heads", "A", (), gpus=0, network=True)
OTHER = StageOutline("relabel", "A", (), gpus=0, network=False)
STAGES = (NETWORK, OTHER)


def config(**tables: object) -> RunConfig:
    return parse_config({"run_directory": "run", "input": {"image": "image.zarr"}, **tables})


def planned(*levels: Level, slots: int | None) -> StagePlan:
    return StagePlan("agglomerate", levels, slots, WorkerShare(), 0)


def test_work_is_not_divided_by_workers_that_a_stage_cannot_use() -> None:
    """A stage of one chunk takes its time on 100 workers too, and the top of a tree takes a wave for each level."""
    assert planned(Level(0, 1, 60.0), slots=100).seconds == 60
    tree = planned(Level(0, 27, 1.0), Level(0, 8, 1.0), Level(0, 1, 1.0), slots=10)
    assert tree.seconds == 3 + 1 + 1
    assert tree.worker_seconds == 36
    assert planned(Level(20, 7, 1.0), slots=10).seconds == 1


def test_nobody_knows_the_workers_of_an_existing_scheduler() -> None:
    there = config(execution={"executor": "dask", "scheduler": "tcp://host:8786"})
    assert slots_of(there, None, network=False) is None
    assert planned(Level(0, 5, 1.0), slots=None).seconds is None


def test_the_workers_of_a_cluster_are_counted() -> None:
    """On a cluster a stage has the workers of its pool, each with its threads, and not those of ``execution``."""
    gpus = {"count": 3, "threads": 2, "gpus": 1}
    apart = config(cluster={"workers": {"count": 40}, "inference_workers": gpus}, execution={"workers": 2})
    assert slots_of(apart, "slurm", network=True) == 6
    assert slots_of(apart, "slurm", network=False) == 40
    assert slots_of(apart, None, network=True) == 2


def test_a_sample_is_that_of_the_finest_grid_in_whatever_order_a_stage_goes() -> None:
    """A tree that is gone through from its root takes the sample's time for a node, and not for the whole volume."""
    bounds = BoundingBox.from_shape((40, 40, 40))
    levels = ChunkGrid(bounds, bounds, Vec(10, 10, 10)).levels()
    assert sample_seconds(levels, 0.001) == sample_seconds(levels[::-1], 0.001) == pytest.approx(1.0)


def test_memory_is_that_of_a_worker_and_of_its_chunks_at_a_time() -> None:
    """A worker needs its libraries once, and the largest of its stages for each chunk that it processes at a time."""
    measured = Measured(GB, {"predict_heads": 3 * GB, "relabel": GB})
    assert measured.of_process(STAGES, 2) == 7 * GB
    assert measured.of_process((OTHER,), 2) == 3 * GB


def test_a_shortage_names_the_workers_and_the_key() -> None:
    """Each kind of a cluster's workers is compared with its own request, and only what does not suffice is named."""
    measured = Measured(GB, {"predict_heads": 3 * GB, "relabel": GB})
    shapes = {"workers": {"memory_gb": 2.5}, "inference_workers": {"memory_gb": 6, "threads": 2}}
    (found,) = shortages(config(cluster=shapes), "slurm", STAGES, measured)
    assert found.where == "each of cluster.inference_workers"
    assert (found.needed, found.present) == (7 * GB, 6 * GB)
    assert "cluster.inference_workers.memory_gb to at least 7" in found.remedy
    (found,) = shortages(config(cluster={"workers": {"memory_gb": 2.5}}), "slurm", STAGES, measured)
    assert found.where == "each of cluster.workers"


def test_a_machine_holds_all_of_its_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Worker processes need their memory each; threads share what is loaded."""
    monkeypatch.setattr("distributed.system.MEMORY_LIMIT", 10 * GB)
    measured = Measured(2 * GB, {"predict_heads": GB, "relabel": GB})
    processes = config(execution={"executor": "dask", "workers": 4})
    (found,) = shortages(processes, None, STAGES, measured)
    assert (found.where, found.needed, found.present) == ("this machine", 12 * GB, 10 * GB)
    assert not shortages(config(execution={"executor": "threads", "workers": 4}), None, STAGES, measured)
    elsewhere = config(execution={"executor": "dask", "workers": 4, "scheduler": "tcp://host:8786"})
    assert not shortages(elsewhere, None, STAGES, measured)


def test_the_peak_of_each_measurement_is_its_own() -> None:
    """What is allocated and freed during a measurement counts there, and not in the next one."""
    peak = PeakMemory()
    peak.begin()
    held = bytearray(b"x") * 200_000_000
    assert peak.growth() > 150_000_000
    del held
    peak.begin()
    assert peak.growth() < 100_000_000


def test_what_a_worker_does_once_is_no_part_of_a_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading and measuring the network is timed apart from the seconds of a chunk."""
    import time

    from pipeline.inference.predictor import Predictor
    from pipeline.stages import opened

    measured = Predictor.digest
    monkeypatch.setattr(Predictor, "digest", lambda self, shape: time.sleep(3) or measured(self, shape))
    opened.forget()
    plan = make_plan(Run.open(small_run(tmp_path)))
    assert plan.sample.once > 3
    assert plan.sample.seconds["predict_heads"] < 3
    assert plan.seconds is not None
    assert plan.seconds > plan.sample.once
    assert plan.money is None
    assert [stage.name for stage in plan.stages if not stage.measured] == ["evaluate_segmentation", "count_inside"]


def test_the_time_of_the_network_grows_with_the_patches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sample computes every patch that touches its chunk; in the run each patch is computed once, by one chunk."""
    from pipeline.runs import plan as plans

    measure = plans._seconds
    monkeypatch.setattr(plans, "_seconds", lambda *arguments: measure(*arguments) * 0 + 1.0)
    run = Run.open(small_run(tmp_path))
    plan = make_plan(run)
    lattice = run.stages[0].lattice()  # type: ignore[attr-defined]
    box = plan.sample.box
    assert plan.patches == len(lattice) == 18
    assert plan.patch_voxels == pytest.approx(18 * 12**3 / run.layout.roi.voxels)
    share = 18 / run.layout.roi.voxels / (len(lattice.touching(box)) / box.voxels)
    assert plan.sample.seconds["predict_heads"] == pytest.approx(share)
    assert share < 1
    assert plan.sample.seconds["blend_heads"] == 1
    assert plan.stages[1].bytes_uncompressed == 3 * run.layout.roi.voxels < plan.stages[0].bytes_uncompressed


def test_the_command_counts_a_cluster_and_prices(tmp_path: Path) -> None:
    """``petaseg plan --on slurm`` counts the cluster's workers, gives money, and warns of too little memory."""
    file = affinity_run(tmp_path)
    options = ("--set", "cluster.prices={cpu_hour: 36000, currency: EUR}", "--set", "cluster.workers.memory_gb=0.1")
    shown = petaseg("plan", file, "--on", "slurm", "--set", "cluster.workers.count=50", *options)
    assert shown.returncode == 0, shown.stderr
    assert "with 50 chunks at a time on slurm" in shown.stdout
    assert "EUR for the chunks that are not done" in shown.stdout
    assert "not enough memory each of cluster.workers needs" in shown.stdout
    assert "set cluster.workers.memory_gb to at least" in shown.stdout
