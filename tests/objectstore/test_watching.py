"""A run whose directory is in a bucket is watched, and logs its events, like one on a disk."""

import json

from pipeline.config.reading import parse_config
from pipeline.config.run_file import Execution
from pipeline.execution.runner import RunOptions, run_stage
from pipeline.execution.serial import SerialExecutor
from pipeline.ledger.ledger import Ledger
from pipeline.runs.outline import RunOutline, StageOutline, read_outline
from pipeline.runs.status import RunWatch, find_run_directory
from pipeline.storage import ObjectStore
from tests.contracts.toy import ToyStage
from workflows.events.event_log import FOLDER, event_log


def test_a_run_in_a_bucket_is_watched(bucket: str, tmp_path) -> None:
    """The state of a run in a bucket is followed from the bucket alone, chunk by chunk to its end."""
    store = find_run_directory(f"{bucket}/run")
    stage = ToyStage(ObjectStore(tmp_path), level_count=3)
    config = parse_config({"run_directory": store.url, "input": {"image": "image.zarr"}})
    store.put("run.yaml", b"run_directory: run\ninput: {image: image.zarr}\n")
    RunOutline(store.url, "petaseg run toy.yaml", config, (StageOutline.of(stage),)).write()
    outline = read_outline(store)
    assert outline is not None
    watch = RunWatch(outline)
    ledger = Ledger(store, stage.name, stage.fingerprint, stage.grids())
    assert watch.follow().stages[0].done == 0
    for count, chunk in enumerate(stage.chunks()[:3]):
        ledger.record(stage.run_chunk(chunk))
        ledger.flush()
        assert watch.follow().stages[0].done == count + 1
    with event_log(store) as log:
        run_stage(stage, ledger, SerialExecutor(), RunOptions.of(Execution(), "petaseg run run.yaml"), on_event=log)
    ledger.close()
    status = watch.follow()
    assert status.complete
    assert status.stages[0].voxels_per_second > 0
    lines = [json.loads(line) for key in store.list(FOLDER) for line in store.get(key).splitlines()]
    assert sum(line["event"] == "chunk_done" for line in lines) == stage_total(stage) - 3


def stage_total(stage: ToyStage) -> int:
    return sum(len(grid) for grid in stage.grids())
