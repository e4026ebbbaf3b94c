"""What ``petaseg status`` says about a run's driver, its time left and its cost, whatever the run is called."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.runs.cost import write_rates
from pipeline.runs.lease import KEY, Holder, LeaseRecord
from pipeline.runs.outline import RunOutline
from pipeline.runs.run import Run
from pipeline.runs.status import RunWatch, open_outline
from pipeline.stages.base import ChunkReport
from pipeline.storage import ObjectStore
from tests.runs import affinity_run
from workflows.terminal.status import driver_lines, status_view, time_left, total_left

HERE = Holder.here()


def record(holder: Holder, renewed: float, **changes: object) -> LeaseRecord:
    return replace(LeaseRecord(holder, "one beat", renewed), **changes)  # type: ignore[arg-type]


def ended_process() -> Holder:
    """A process of this machine that is gone."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return Holder(HERE.host, process.pid, time.time())


def test_a_driver_of_this_machine_that_is_gone_is_dead_at_once() -> None:
    assert record(ended_process(), time.time()).state(time.time(), 60) == "dead"


def test_a_driver_elsewhere_is_dead_when_its_lease_has_expired() -> None:
    """On another machine only the lease tells; a beat that was seen to change counts by this machine's clock."""
    elsewhere = Holder("far.away", 1, 0.0)
    assert record(elsewhere, 1000).state(1059, 60) == "working"
    assert record(elsewhere, 1000).state(1061, 60) == "dead"
    assert record(elsewhere, 1000).state(5000, 60, heard=4990) == "working"


def test_a_living_driver_that_gives_no_sign_is_silent() -> None:
    assert record(HERE, 1000).state(1030, 60) == "working"
    assert record(HERE, 1000).state(2000, 60) == "silent"


def test_a_driver_that_ended_by_itself_or_is_unknown_is_not_dead() -> None:
    assert record(HERE, 1000, released=True).state(2000, 60) == "released"
    assert LeaseRecord.decode(b"{").state(2000, 60) == "unknown"


@pytest.fixture
def begun(tmp_path: Path) -> Run:
    """A run whose driver, this process, has recorded two of eight chunks of each 100 s, which ended together."""
    run = Run.open(affinity_run(tmp_path), ["execution.executor=threads", "execution.workers=2"])
    run.create()
    lease(run, HERE)
    ledger = run.ledger(run.stages[0])
    for chunk in list(run.stages[0].grids()[0])[:2]:
        ledger.record(ChunkReport(0, chunk.index, "5a" * 16, 100.0, chunk.core.voxels, 1))
    return run


def lease(run: Run, holder: Holder, **changes: object) -> None:
    run.store.put(KEY, record(holder, **{"renewed": time.time(), **changes}).encode())  # type: ignore[arg-type]


def test_two_chunks_that_ended_together_leave_three_waves(begun: Run) -> None:
    """The time left comes from the seconds of chunks and the workers, not from the time between two records."""
    first, second, *_ = RunWatch(begun.outline).read().stages
    assert first.seconds_left == pytest.approx(300, abs=3)
    assert second.seconds_left is None, "no chunk of it is done, and there is no sample"


def test_stages_that_have_not_begun_are_estimated_from_the_sample(begun: Run) -> None:
    """With the measured sample of the plan, every stage has a time left, in waves and level by level."""
    status = RunWatch(begun.outline).read()
    assert [time_left(status, stage) for stage in status.stages][1:] == ["not known yet"] * (len(status.stages) - 1)
    assert "6 stages" in next(total_left(status))
    voxels = begun.layout.roi.voxels / 8
    write_rates(begun.store, {stage.name: 10 / voxels for stage in begun.stages})
    left = {stage.name: stage.seconds_left for stage in RunWatch(begun.outline).read().stages}
    assert left["build_region_graph"] == pytest.approx(40)
    assert left["agglomerate"] == left["assign_segments"] == pytest.approx(50), "four waves, and the one node above"


def test_without_a_driver_no_time_is_left_and_the_driver_is_called_dead(begun: Run) -> None:
    """A run whose driver is gone shows that it is dead and the command that goes on."""
    lease(begun, ended_process())
    status = RunWatch(begun.outline).read()
    assert status.driver == status.as_dict()["driver"]["state"] == "dead"
    assert [stage.seconds_left for stage in status.stages] == [None] * len(status.stages)
    (line,) = driver_lines(status, time.time())
    assert line.startswith("driver        dead (process ")
    assert begun.command in line
    assert {time_left(status, stage) for stage in status.stages} == {""}
    assert not list(total_left(status))
    assert status_view(status)


def test_a_watch_that_sees_beats_believes_them_and_not_the_clocks(begun: Run) -> None:
    """A driver on a machine whose clock is an hour behind works as long as its beat changes."""
    late = {"renewed": time.time() - 3600}
    lease(begun, Holder("far.away", 1, 0.0), **late)
    watch = RunWatch(begun.outline)
    assert watch.read().driver == "dead"
    lease(begun, Holder("far.away", 1, 0.0), beat="another", **late)
    assert watch.read().driver == "working"


def costs_by_name(run: Run, folder: Path) -> list[str]:
    """The cost of a run by its file and its directory, by relative paths and through links."""
    (folder / "link.yaml").symlink_to(folder / "run.yaml")
    (folder / "link").symlink_to(folder / "run")
    names = [folder / "run.yaml", folder / "run", folder / "run" / "run.yaml", folder / "link.yaml", folder / "link"]
    outlines: list[RunOutline] = [open_outline(str(name)) for name in (*names, "run.yaml", "run", "./run/")]
    return [json.dumps(RunWatch(outline).read().cost.as_dict()) for outline in (*outlines, run.outline)]


@pytest.mark.parametrize("cluster", [None, "slurm"])
def test_the_cost_does_not_depend_on_how_the_run_is_called(
    begun: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: str | None
) -> None:
    """Shares of workers are those of the last driver, also if the run file is named without that driver's options."""
    monkeypatch.chdir(tmp_path)
    begun.create(cluster)
    costs = costs_by_name(begun, tmp_path)
    assert len(set(costs)) == 1
    worker_hours = json.loads(costs[0])["worker_hours"]["spent"]
    assert worker_hours == pytest.approx(200 / 3600 / (2 if cluster is None else 1))


def test_before_the_first_driver_the_cluster_of_the_run_file_counts(tmp_path: Path) -> None:
    run = Run.open(affinity_run(tmp_path), ["cluster.kind=slurm", "cluster.workers.cpus=4"])
    write_rates(ObjectStore(run.url), {stage.name: 1.0 for stage in run.stages})
    cost = RunWatch(run.outline).read().cost
    assert {stage.share.cores for stage in cost.stages} == {4.0}
