"""A part of each kind is added as CONTRIBUTING.md says: a class or function, and one row of the registry it names."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.config.reading import parse_config
from pipeline.errors import ConfigError, VolumeError
from pipeline.execution import Engine
from pipeline.experiments.base import Scale, find_experiment, run_experiment
from pipeline.handover import hand_over
from pipeline.models.spec import build, load_card
from pipeline.registry import load
from pipeline.runs.launch import cluster_of, driver_of, submission_of, submit
from pipeline.runs.run import Run
from pipeline.synthetic.dataset import synthesize
from pipeline.training.config import TrainConfig
from pipeline.training.trainer import train
from pipeline.volumes import open_volume
from pipeline.volumes.formats import Entry
from pipeline.volumes.ingest import ingest
from tests import toys
from tests.runs import petaseg, results, run, write_run, write_volume
from tests.training.trainings import log, settings

ROOT = Path(__file__).resolve().parents[1]
TABLE = [
    tuple(cell.strip() for cell in line.strip("|").split("|"))
    for line in (ROOT / "CONTRIBUTING.md").read_text().splitlines()
    if re.match(r"\| an? ", line)
]
"""You want, you write, and one line in."""
REGISTRIES = {want: re.match(r"`(\w+)` in `(pipeline/[\w/]+)\.py`", line) for want, _, line in TABLE}
AFFINITIES = {"what": "affinities", "offsets": [[-1, 0, 0], [0, -1, 0], [0, 0, -1]]}
CHUNKS = {"chunk_shape": [8, 8, 8], "storage_chunk_shape": [8, 8, 8]}

HANDED_ON = "a format in which supervoxels and merge tree are handed on"

Register = Callable[[str, str, object], None]


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Register:
    """Adds one row to the registry that the table names for what one wants."""

    def add(want: str, name: str, row: object) -> None:
        table, file = REGISTRIES[want].groups()
        monkeypatch.setitem(load(f"{file.replace('/', '.').removesuffix('.__init__')}:{table}"), name, row)

    return add


def trained(folder: Path, **changes: object) -> TrainConfig:
    """Parse a training file with these keys and train it for one step."""
    data = settings(folder, steps=1, warmup_steps=0, validate_every=1, pictures=False).model_dump(mode="json")
    config = parse_config({**data, **changes}, TrainConfig)
    train(config)
    return config


def test_each_row_of_the_table_is_true_of_the_files():
    """Each row names a folder that exists and a registry whose rows are there, and has a toy in this file."""
    assert {want for want, *_ in TABLE} == {*TOYS, *ELSEWHERE}
    assert all((ROOT / file).is_file() for file in ELSEWHERE.values())
    for want, write, _ in TABLE:
        place = re.search(r"`(pipeline/[\w/]+)/(?:<\w+>|(\w+))\.py`", write)
        assert place, write
        assert (ROOT / place[1]).is_dir()
        assert place[2] is None or (ROOT / place[1] / f"{place[2]}.py").is_file()
        table, file = REGISTRIES[want].groups()
        rows = load(f"{file.replace('/', '.').removesuffix('.__init__')}:{table}")
        assert len(rows) > 1, f"{want}: {table} in {file}"


def test_a_storage_format(register: Register, tmp_path: Path) -> None:
    """A toy format is found by its ending, understands its own option, and is ingested."""
    np.savetxt(tmp_path / "section.txt", np.arange(12).reshape(3, 4), fmt="%d")
    url = f"{tmp_path}/section.txt#resolution=40,8,8&times=2"
    with pytest.raises(ConfigError, match="unknown option 'times'"):
        open_volume(url)
    entry = Entry("tests.toys:TextVolume", options=("resolution", "offset", "times"), suffixes=(".txt",))
    register("a storage format", "text", entry)
    volume = open_volume(url)
    assert (volume.read(volume.spec.bounds)[0] == 2 * np.arange(12).reshape(3, 4)).all()
    copied = open_volume(ingest(url, f"{tmp_path}/copy.zarr").url)
    assert (copied.spec.resolution_nm, copied.read(copied.spec.bounds).sum()) == ((40.0, 8.0, 8.0), 132)
    with pytest.raises(ConfigError, match="mip is for zarr and precomputed, not for text"):
        open_volume(f"{tmp_path}/section.txt#mip=1")
    with pytest.raises(VolumeError, match=r"does not exist; a volume is .*\.txt"):
        open_volume(f"{tmp_path}/nothing")


def test_a_model(register: Register, tmp_path: Path) -> None:
    """A toy network is built by name, trained, and its card names it."""
    register("a model", "echo", "tests.toys:Echo")
    assert isinstance(build("echo", {"out_channels": 3}), toys.Echo)
    trained(tmp_path / "model", architecture="echo", arguments={"steps": 3})
    assert load_card(tmp_path / "model").architecture == "echo"


def test_a_loss(register: Register, tmp_path: Path) -> None:
    """A toy loss is refused before it has its row, then checks its keys and trains a network."""
    hinge = {**AFFINITIES, "losses": [{"kind": "hinge", "margin": 2.0, "weight": 0.5}]}
    with pytest.raises(ConfigError, match=r"losses\.0\.kind is 'hinge'; it must be one of bce"):
        trained(tmp_path, targets=[hinge])
    register("a loss", "hinge", "tests.toys:Hinge")
    with pytest.raises(ConfigError, match=r"losses.0.margn: unknown key; did you mean 'margin'"):
        trained(tmp_path, targets=[{**AFFINITIES, "losses": [{"kind": "hinge", "margn": 2.0}]}])
    config = trained(tmp_path / "model", targets=[hinge])
    assert config.channels[0].losses == (toys.Hinge(margin=2.0, weight=0.5),)
    assert config == parse_config(config.model_dump(mode="json"), TrainConfig)


def test_weights_of_voxels(register: Register, tmp_path: Path) -> None:
    """Toy weights are named in a training file, by name or table, and multiply the loss."""
    register("a kind of weights", "double", "tests.toys:Double")
    weighed = [{**AFFINITIES, "losses": [{"kind": "bce"}], "weights": w} for w in ("none", "double")]
    configs = [trained(tmp_path / str(number), targets=[each]) for number, each in enumerate(weighed)]
    assert configs[1].channels[0].weights == toys.Double()
    losses = [log(tmp_path / str(number))[0]["loss"] for number in range(2)]
    assert losses[1] == pytest.approx(2 * losses[0])


def test_a_training_target(register: Register, tmp_path: Path) -> None:
    """A toy target is learned beside the affinities, and the card names its channel."""
    register("a training target", "even", "tests.toys:Even")
    trained(tmp_path / "model", targets=[AFFINITIES, {"what": "even"}])
    assert [other.what for other in load_card(tmp_path / "model").other_channels] == ["even"]
    assert any("even" in key for key in log(tmp_path / "model")[0])


def test_a_learning_rule(register: Register, tmp_path: Path) -> None:
    """A toy rule trains a recurrent network, whose state it runs over the network's steps."""
    register("a learning rule", "last_step", "tests.toys:LastStepSettings")
    toys.LastStep.runs.clear()
    trained(tmp_path / "model", rule={"kind": "last_step"})
    assert 2 in toys.LastStep.runs
    penalised = {"kind": "last_step", "penalty": {"kind": "column"}}
    assert parse_config({**settings(tmp_path).model_dump(mode="json"), "rule": penalised}, TrainConfig).rule.penalty


def test_a_generator(register: Register, tmp_path: Path) -> None:
    """A toy generator makes a data set with its own settings."""
    register("a generator", "stripes", ("tests.toys", "StripesConfig", "make_stripes", {"target": "mask"}))
    report = synthesize("stripes", tmp_path / "made", count=2, overrides=["width=2"])
    assert report.count == 2
    assert "width: 2" in (tmp_path / "made" / "parameters.yaml").read_text()


def test_an_experiment(register: Register, tmp_path: Path) -> None:
    """A toy experiment is found by name, and run into a table and a plot."""
    register("an experiment", "counting", ("tests.toys", toys.EXPERIMENT.title))
    run_experiment(find_experiment("counting"), tmp_path, Scale(seeds=(1, 2, 3)))
    assert "| 3 |" in (tmp_path / "counting" / "table.md").read_text()


def test_a_format_of_handing_on(register: Register, tmp_path: Path) -> None:
    """``hand_over`` finds a toy format, which gets the stored supervoxels of a run."""
    affinities = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 16), "uint8")
    source = write_volume(tmp_path / "affinities.zarr", affinities)
    register(HANDED_ON, "list", "tests.toys:hand_over_as_list")
    hand_over(run(write_run(tmp_path, input={"affinities": source}, **CHUNKS)), str(tmp_path / "out"), "list")
    ids = [int(line) for line in (tmp_path / "out" / "ids.txt").read_text().split()]
    found = np.unique(open_volume(str(tmp_path / "run" / "supervoxels.zarr"))[...])
    assert ids == found[found > 0].tolist()


def test_an_execution_engine(register: Register, tmp_path: Path) -> None:
    """A run file names a toy executor, and the run gives the bytes of a plain loop."""
    affinities = write_volume(
        tmp_path / "affinities.zarr", np.random.default_rng(0).integers(0, 256, (3, 16, 16, 16), "uint8")
    )
    given = {"input": {"affinities": affinities}, **CHUNKS}
    backwards = {"executor": "backwards", "workers": 3}
    with pytest.raises(ConfigError, match=r"execution.executor is \"backwards\": input should be 'serial'"):
        Run.open(write_run(tmp_path / "toy", execution=backwards, **given))
    register("an execution engine", "backwards", Engine("tests.toys:BackwardsExecutor", takes=("workers",)))
    toy = run(write_run(tmp_path / "toy", execution=backwards, **given))
    assert results(toy) == results(run(write_run(tmp_path / "serial", **given)))


def test_a_kind_of_cluster(register: Register, tmp_path: Path) -> None:
    """``cluster.kind`` names a toy cluster; a run is submitted to it, seen there once, and cancelled."""
    affinities = write_volume(tmp_path / "affinities.zarr", np.zeros((3, 8, 8, 8), "uint8"))
    file = write_run(tmp_path, input={"affinities": affinities}, cluster={"kind": "paper"}, **CHUNKS)
    with pytest.raises(ConfigError, match=r"cluster.kind is \"paper\": input should be 'slurm' or 'kubernetes'"):
        Run.open(file)
    register("a kind of cluster", "paper", "tests.toys:PaperCluster")
    opened = Run.open(file)
    cluster = cluster_of(opened, None)
    assert cluster.render(submission_of(opened)) == {"driver.txt": f"please run {tmp_path}/run"}
    job = submit(opened, cluster)
    assert driver_of(opened) == job
    assert cluster.state(job).phase == "running"
    cluster.cancel(job)
    assert cluster.state(job).phase == "unknown"


def test_help_lists_what_the_registries_hold() -> None:
    """The command's help for ``--on`` and for generators lists the rows of their registries."""
    from pipeline.clusters import CLUSTERS
    from pipeline.synthetic import KINDS

    words = {name: petaseg(name, "--help").stdout for name in ("submit", "synthesize")}
    assert all(name in words["submit"] for name in CLUSTERS)
    assert all(name in words["synthesize"] for name in KINDS)


TOYS = {
    "a model": test_a_model,
    "a storage format": test_a_storage_format,
    "a generator": test_a_generator,
    HANDED_ON: test_a_format_of_handing_on,
    "an experiment": test_an_experiment,
    "a loss": test_a_loss,
    "a training target": test_a_training_target,
    "a kind of weights": test_weights_of_voxels,
    "a learning rule": test_a_learning_rule,
    "an execution engine": test_an_execution_engine,
    "a kind of cluster": test_a_kind_of_cluster,
}
"""What one wants -> the test that adds it."""
ELSEWHERE = {"a stage": "tests/runs/test_chain.py", "a key of the run file": "tests/runs/test_changes.py"}
"""What one wants -> the file with the test that adds it."""
