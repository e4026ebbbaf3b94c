"""Each stage runs on the workers that suit it, bad nodes are avoided, and chunks get more memory if needed."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.config.cluster import WorkerShape
from pipeline.config.run_file import Execution
from pipeline.errors import StageFailed
from pipeline.execution.dask import configure_dask
from pipeline.execution.pools import ClusterExecutor, workers_for
from pipeline.execution.runner import NodeAvoided, RunOptions, run_stage
from pipeline.ledger.ledger import Ledger
from pipeline.storage import ObjectStore
from tests.contracts.local_pool import LocalPool
from tests.contracts.toy import ToyStage

GENERAL = WorkerShape(count=2, memory_gb=1)
INFERENCE = WorkerShape(count=2, gpus=1, memory_gb=2)


class Bench:
    """A cluster executor over real local workers, and what a stage left behind."""

    def __init__(self, folder: Path) -> None:
        self.store = ObjectStore(folder)
        self.pools: dict[str, LocalPool] = {}
        configure_dask({})
        self.executor = ClusterExecutor(self.start, {"general": GENERAL, "inference": INFERENCE})
        self.events: list[object] = []

    def start(self, name: str, shape: WorkerShape) -> LocalPool:
        self.pools[name] = LocalPool(name, shape)
        return self.pools[name]

    def run(self, **options: object) -> tuple[ToyStage, Ledger]:
        store = ObjectStore(f"{self.store.url}/{options.get('name', 'first')}")  # a late try must not count elsewhere
        stage = ToyStage(store, **options)
        ledger = Ledger(store, stage.name, stage.fingerprint, stage.grids())
        settings = RunOptions.of(Execution(max_in_flight=4), "petaseg run run.yaml", sleep=lambda _: None)
        try:
            run_stage(stage, ledger, self.executor, settings, on_event=self.events.append)
        finally:
            ledger.close()
        return stage, ledger


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.executor.close()


def test_a_pool_has_workers_only_while_its_stage_runs(bench: Bench) -> None:
    network, _ = bench.run(network=True)
    assert {pool for _, pool in network.places()} == {"inference"}
    assert bench.pools["inference"].workers == 2
    other, _ = bench.run(name="merge_regions")
    assert {pool for _, pool in other.places()} == {"general"}
    assert [bench.pools[name].workers for name in ("inference", "general")] == [0, 2]
    bench.run(name="predict_again", network=True)
    assert [bench.pools[name].workers for name in ("inference", "general")] == [2, 0]


def test_a_chunk_that_ran_out_of_memory_is_tried_once_with_more(bench: Bench) -> None:
    stage, ledger = bench.run(faults={"1_2_0": "memory", "0_0_1": "memory"})
    assert ledger.summary().done == 48
    assert stage.tried()["1_2_0"] == 2
    assert bench.pools["general-large"].shape.memory_gb == 2 * GENERAL.memory_gb
    assert bench.pools["general-large"].most == 1
    assert ledger.notes() == ["2 chunks ran out of memory and were tried again with more: " + notes_of(ledger)]


def notes_of(ledger: Ledger) -> str:
    """The chunks that the note names, in whatever order they came."""
    names = ledger.notes()[0].rpartition(": ")[2]
    assert set(names.split(", ")) == {"1_2_0", "0_0_1"}
    return names


def test_a_node_that_fails_everything_is_avoided(bench: Bench) -> None:
    stage, ledger = bench.run(bad_node="node1")
    assert ledger.summary().done == 48
    assert ledger.quarantined() == []
    (note,) = ledger.notes()
    assert note.startswith("node node1 failed 5 chunks in a row and is avoided; its last error: OSError: the disk of")
    assert bench.pools["general"].shunned == ["node1"]
    assert [event.node for event in bench.events if isinstance(event, NodeAvoided)] == ["node1"]
    assert max(stage.tried().values()) <= 3


def test_without_another_node_nothing_is_avoided(bench: Bench) -> None:
    bench.executor = ClusterExecutor(bench.start, {"general": GENERAL.model_copy(update={"count": 1})})
    with pytest.raises(StageFailed, match="stopped early: 20 of the first 20 chunks failed"):
        bench.run(bad_node="node0")


@pytest.mark.parametrize(("items", "threads", "workers"), [(None, 1, 8), (3, 1, 3), (3, 2, 2), (0, 1, 1), (100, 4, 8)])
def test_no_more_workers_are_started_than_have_work(items: int | None, threads: int, workers: int) -> None:
    assert workers_for(WorkerShape(count=8, threads=threads), items) == workers
