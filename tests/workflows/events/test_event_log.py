"""The event log: one line of JSON for each event, with the chunk's coordinates, also after a crash."""

import json
import logging
import uuid
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.run_file import Execution
from pipeline.errors import StageFailed
from pipeline.execution.runner import NodeAvoided, RunOptions, run_stage
from pipeline.execution.serial import SerialExecutor
from pipeline.ledger.ledger import Ledger
from pipeline.runs.run import Run
from pipeline.storage import ObjectStore
from tests.contracts.toy import ToyStage
from tests.runs import run
from tests.stages.test_every_stage import small_run
from workflows.events.event_log import FILE, FOLDER, event_log

Line = dict[str, Any]


def lines(data: bytes | str) -> list[Line]:
    """All lines as JSON; asserts that none is torn."""
    return [json.loads(line) for line in data.splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(small_run(tmp_path_factory.mktemp("logged")))


@pytest.fixture
def logged(finished: Run) -> list[Line]:
    return lines(finished.store.get(FILE))


def test_every_chunk_has_a_line_with_its_voxels(finished: Run, logged: list[Line]) -> None:
    """Each done chunk has exactly one line in the event log, with its box in voxels."""
    for stage in finished.stages:
        expected = {
            (chunk.name, chunk.level, chunk.index, chunk.core.start, chunk.core.stop)
            for grid in stage.grids()
            for chunk in grid
        }
        places = [line["chunk"] for line in logged if line["event"] == "chunk_done" and line["stage"] == stage.name]
        assert {
            (p["name"], p["level"], tuple(p["index"]), tuple(p["start"]), tuple(p["stop"])) for p in places
        } == expected
        assert len(places) == len(expected)


def test_a_line_says_when_who_and_how_long(finished: Run, logged: list[Line]) -> None:
    times = [datetime.fromisoformat(line["time"]) for line in logged]
    assert all(time.utcoffset().total_seconds() == 0 for time in times)
    assert all(later >= earlier or line["event"] == "message" for earlier, later, line in zip(times, times[1:], logged))
    done = [line for line in logged if line["event"] == "chunk_done"]
    assert all(line["worker"] and line["seconds"] >= 0 and line["attempt"] == 1 for line in done)
    assert all(set(line["timings"]) == {"read", "wait", "compute", "write", "idle"} for line in done)
    assert any(line["counters"].get("patches") for line in done if "counters" in line)
    assert {line["level"] for line in logged} == {"info"}


def test_stages_and_the_driver_begin_and_end(finished: Run, logged: list[Line]) -> None:
    events = [line["event"] for line in logged]
    assert (events[0], events[-1]) == ("driver_started", "driver_stopped")
    names = [stage.name for stage in finished.stages]
    assert sorted(line["stage"] for line in logged if line["event"] == "stage_started") == sorted(names)
    assert sorted(line["stage"] for line in logged if line["event"] == "stage_finished") == sorted(names)


def test_the_log_for_people_stays_as_it_is(finished: Run, logged: list[Line]) -> None:
    text = finished.store.get("petaseg.log").decode()
    assert "petaseg.runner: predict_heads: 0 of 4 chunks are done already" in text
    assert "{" not in text
    messages = [line["message"] for line in logged if line["event"] == "message"]
    assert "predict_heads: 0 of 4 chunks are done already" in messages


def test_a_second_driver_goes_on_in_the_same_file(finished: Run, logged: list[Line]) -> None:
    run(Path(finished.source))
    again = lines(finished.store.get(FILE))
    assert again[: len(logged)] == logged
    assert [line["event"] for line in again[len(logged) :] if line["event"] != "message"] == [
        "driver_started",
        "driver_stopped",
    ]


def toy(store: ObjectStore, **options: Any) -> None:
    """Run a toy stage with an event log."""
    stage = ToyStage(store, **options)
    ledger = Ledger(store, stage.name, stage.fingerprint, stage.grids())
    with event_log(store) as log:
        run_stage(
            stage,
            ledger,
            SerialExecutor(),
            RunOptions.of(Execution(), "petaseg run run.yaml", sleep=lambda _: None),
            on_event=log,
        )


def test_failures_say_why_and_whether_they_are_final(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path)
    with pytest.raises(StageFailed):
        toy(store, faults={"1_0_2": "fail"})
    failed = [line for line in lines(store.get(FILE)) if line["event"] == "chunk_failed"]
    assert [(line["attempt"], line["final"], line["level"]) for line in failed] == [
        (1, False, "warning"),
        (2, False, "warning"),
        (3, True, "error"),
    ]
    assert {line["error"] for line in failed} == {"ValueError: chunk 1_0_2 cannot be computed"}
    assert failed[0]["chunk"] == {
        "name": "1_0_2",
        "level": 0,
        "index": [1, 0, 2],
        "start": [6, -3, 15],
        "stop": [10, 1, 20],
    }


def test_nodes_and_messages_are_written_too(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path)
    with event_log(store) as log:
        log(NodeAvoided("relabel", "node-3", "OSError: no disk"))
        try:
            raise ValueError("in a {bracket}")
        except ValueError:
            logging.getLogger("petaseg.toy").exception("something %s", "happened")
    logging.getLogger("petaseg.toy").warning("afterwards")
    _, avoided, message, _ = lines(store.get(FILE))
    assert (avoided["event"], avoided["node"], avoided["error"]) == ("node_avoided", "node-3", "OSError: no disk")
    assert (message["level"], message["message"]) == ("error", "something happened")
    assert "ValueError: in a {bracket}" in message["traceback"]


def test_a_line_that_a_dead_driver_left_torn_stays_alone(tmp_path: Path) -> None:
    """A line that a dead driver left torn stays apart, and the next driver begins a new line."""
    store = ObjectStore(tmp_path)
    toy(store)
    whole = store.get(FILE)
    store.put(FILE, whole[:-30])
    toy(store)
    text = store.get(FILE).decode().splitlines()
    torn = text[len(whole.splitlines()) - 1]
    with pytest.raises(ValueError):
        json.loads(torn)
    assert lines("\n".join(text[len(whole.splitlines()) :]))[0]["event"] == "driver_started"


def test_a_bucket_gets_segments_whose_names_sort_by_time() -> None:
    store = ObjectStore(f"mem://{uuid.uuid4().hex}")
    toy(store)
    found = [line for key in store.list(FOLDER) for line in lines(store.get(key))]
    assert [found[0]["event"], found[-1]["event"]] == ["driver_started", "driver_stopped"]
    assert sum(line["event"] == "chunk_done" for line in found) == 48


def test_a_full_disk_ends_the_log_and_not_the_run(tmp_path: Path) -> None:
    """A full disk ends the event log with a message, and the run completes."""
    file = small_run(tmp_path)
    Run.open(file).create()
    (tmp_path / "run" / FILE).symlink_to("/dev/full")
    finished = run(file)
    assert all(finished.is_complete(stage) for stage in finished.stages)
    assert "the end of the event log" in finished.store.get("petaseg.log").decode()
