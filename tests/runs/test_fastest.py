"""The precision that is faster is measured when a run begins, and holds for all of it, wherever it goes on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.config.run_file import Execution
from pipeline.errors import ConfigError, CorruptError, WorkerEnvironmentError
from pipeline.execution.runner import RunOptions, run_stage
from pipeline.execution.serial import SerialExecutor
from pipeline.geometry import BoundingBox
from pipeline.inference import predictor
from pipeline.inference.options import PredictOptions
from pipeline.inference.predictor import Predictor
from pipeline.models.spec import load_card, load_model
from pipeline.runs.precision import faster, measured
from pipeline.runs.run import Run
from pipeline.runs.status import RunWatch, open_outline
from pipeline.runs.verify import verify_stage
from pipeline.stages import opened
from pipeline.stages.environment import Environment
from pipeline.stages.fastest import Fastest, record, recorded
from pipeline.storage import ObjectStore
from tests.runs import write_run, write_volume
from workflows.session import open_session
from workflows.terminal.status import show_status

SHORT, LONG = {"float32": 2.0, "bfloat16": 1.0}, {"float32": 1.0, "bfloat16": 2.0}
"""Seconds of a patch by precision, on a machine with fast bfloat16, and on one without."""
FOUND = Fastest("bfloat16", {"float32": 2.8e6, "bfloat16": 5.4e6}, "voxels a CPU-second", "node1")


@pytest.fixture(autouse=True)
def _nothing_opened():
    opened.forget()
    yield
    opened.forget()


@pytest.fixture
def file(tmp_path) -> Path:
    """Two chunks of an image, whose precision is left to a measurement."""
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 16), dtype=np.uint8)
    return write_run(
        tmp_path,
        input={"image": write_volume(tmp_path / "image.zarr", image)},
        chunk_shape=[8, 8, 8],
        storage_chunk_shape=[8, 8, 8],
        inference={
            **{"model": "identity", "device": "cpu", "patch_shape": [8] * 3, "overlap": [4] * 3},
            "precision": "fastest",
        },
    )


@pytest.fixture
def machine(monkeypatch):
    """A function that makes this machine one on which patches take these seconds; its list holds what was measured."""
    asked = []

    def become(seconds):
        def measure(loaded, options, **_):
            asked.append(options.precision)
            return seconds[options.precision]

        monkeypatch.setattr(predictor, "measure", measure)
        return asked

    return become


def begun(file, *overrides) -> Run:
    """The run after a driver has begun it."""
    with open_session(str(file), overrides) as session:
        return session.run


def computed(run: Run) -> Run:
    """The run after its first stage."""
    stage = run.stages[0]
    ledger = run.ledger(stage)
    run_stage(stage, ledger, SerialExecutor(), RunOptions.of(Execution(attempts=1), "again"))
    ledger.close()
    return run


def precision(run: Run) -> str:
    return run.stages[0].options.precision


@pytest.mark.parametrize(("seconds", "chosen"), [(SHORT, "bfloat16"), (LONG, "float32")])
def test_the_faster_precision_is_in_the_fingerprint_as_if_the_run_file_named_it(file, machine, seconds, chosen):
    asked = machine(seconds)
    assert precision(Run.open(file)) == "fastest"
    run = begun(file)
    assert asked == ["float32", "bfloat16"]
    prints = {each: Run.open(file, [f"inference.precision={each}"]).stages[0].fingerprint for each in asked}
    assert prints["float32"] != prints["bfloat16"]
    assert run.stages[0].fingerprint == prints[chosen]
    assert Run.open(file).stages[0].fingerprint == Run.open(run.url).stages[0].fingerprint == prints[chosen]


def test_a_run_goes_on_in_its_precision_on_a_machine_where_the_other_one_is_faster(file, machine):
    """Neither a resume nor a check measures again, and what is done stays done."""
    machine(SHORT)
    run = computed(begun(file))
    opened.forget()
    asked = machine(LONG)
    asked.clear()
    again = begun(file)
    assert (precision(again), asked) == ("bfloat16", [])
    stage = again.stages[0]
    assert again.is_complete(stage)
    assert verify_stage(stage, again.ledger(stage, read_only=True), None, seed=0).proven
    assert recorded(run.store, key(run)) == run.fastest


def key(run: Run) -> str:
    (name,) = run.store.list("precisions/")
    return name.removeprefix("precisions/").removesuffix(".json")


def test_a_worker_that_computes_other_bytes_is_refused(file, machine, monkeypatch):
    """The measured precision is no reason to admit another kind of machine."""
    machine(SHORT)
    run = computed(begun(file))
    opened.forget()
    other = Environment("0b" * 16, {"device": "cpu"}, "node2")
    monkeypatch.setattr(opened, "environment", lambda *_: other)
    stage = Run.open(file).stages[0]
    with pytest.raises(WorkerEnvironmentError, match="node2 computes other bytes"):
        stage.run_chunk(next(iter(stage.grids()[0])))
    assert precision(run) == "bfloat16"


def test_another_patch_is_measured_by_itself_and_the_first_choice_stays(file, machine):
    machine(SHORT)
    begun(file)
    machine(LONG)
    assert precision(begun(file, "inference.overlap=[2,2,2]")) == "bfloat16"
    assert precision(begun(file, "inference.patch_shape=[8,8,16]")) == "float32"
    assert precision(Run.open(file)) == "bfloat16"


def test_of_two_drivers_that_measure_the_first_decides(tmp_path):
    store, slower = ObjectStore(tmp_path), replace(FOUND, precision="float32", host="node2")
    assert record(store, "0a", FOUND) == FOUND
    assert record(store, "0a", slower) == FOUND


def test_a_run_directory_that_gets_another_input_has_its_precision_recorded_again(file, machine, tmp_path):
    """The results of the other input are deleted with their record; what was known then holds, and is recorded."""
    machine(SHORT)
    begun(file)
    image = write_volume(tmp_path / "other.zarr", np.full((8, 8, 16), 7, np.uint8))
    machine(LONG)
    with open_session(str(file), [f"input.image={image}"], overwrite=True) as session:
        run = session.run
    assert precision(run) == "bfloat16"
    assert recorded(run.store, key(run)) == run.fastest


def test_a_damaged_record_is_refused(file, machine):
    machine(SHORT)
    run = begun(file)
    for data in (b"{", FOUND.encode().replace(b'"bfloat16",', b'"float16",')):
        run.store.put(f"precisions/{key(run)}.json", data)
        with pytest.raises(
            CorruptError, match=r"precisions/\w+\.json cannot be read .*write the precision of this run"
        ):
            Run.open(file)


def test_a_plan_measures_records_nothing_and_samples_in_the_chosen_precision(file, machine):
    machine(SHORT)
    run = Run.open(file).decided(keep=False)
    sample = run.restricted_to(BoundingBox.from_shape((8, 8, 8)), run.url + "-sample")
    assert precision(run) == precision(sample) == "bfloat16"
    assert run.store.list("precisions/") == []


def test_status_and_log_say_what_was_chosen_and_why(file, machine, capsys):
    machine(SHORT)
    told = []
    with open_session(str(file), announce=told.append) as session:
        run = session.run
    words = f"precision {run.fastest}"
    assert str(FOUND) == "bfloat16 (measured on node1, in million voxels a CPU-second: bfloat16 5.4, float32 2.8)"
    assert told == [words]
    begun(file)
    log = (Path(run.url) / "petaseg.log").read_text()
    assert log.count(words) == 2
    show_status(RunWatch(open_outline(run.url)).read())
    assert f"{'precision':<14}{run.fastest}" in capsys.readouterr().out
    assert RunWatch(run.outline).read().as_dict()["precision"] == str(run.fastest)


@pytest.mark.parametrize(("rate", "chosen"), [(1.09, "float32"), (1.1, "bfloat16"), (0.5, "float32")])
def test_bfloat16_must_be_faster_by_a_tenth(rate, chosen):
    assert faster({"float32": 1.0, "bfloat16": rate}) == chosen


def test_this_machine_is_measured_in_both_precisions(file):
    found = measured(Run.open(file).inputs.network)
    assert min(found.rates.values()) > 0
    assert found.precision == faster(found.rates)
    assert found.unit == "voxels a CPU-second"


def test_a_driver_without_the_gpu_of_its_workers_cannot_measure(file, monkeypatch):
    monkeypatch.setattr("pipeline.runs.precision.gpu_present", lambda: False)
    run = Run.open(file, ["inference.device=cuda", "inference.gpu=NVIDIA H200"])
    with pytest.raises(ConfigError, match="no GPU on which that could be measured; set it to bfloat16 or float32"):
        run.decided(keep=False)


def test_a_predictor_does_not_run_in_a_precision_that_is_not_measured():
    with pytest.raises(ConfigError, match="which one that is has not been measured"):
        Predictor(load_model(load_card("identity")), PredictOptions(device="cpu", precision="fastest"))
