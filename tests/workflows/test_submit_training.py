"""A training file is submitted like a run file, and what does not fit is said before anything is queued."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from pipeline.clusters.setup import remember_setup, remembered_setup, setup_file
from pipeline.clusters.slurm import names
from pipeline.config.reading import parse_config
from pipeline.errors import ConfigError, ModelError, PetasegError
from pipeline.training.config import TrainConfig, with_absolute_paths
from pipeline.training.submission import lone_job
from pipeline.training.trainer import identity, train
from tests.deploy.slurm import sbatch_lines
from tests.training.trainings import MINI, stored_cubes
from workflows.app import app
from workflows.commands.submit_training import is_training_file


def training(folder: Path, **changes: Any) -> Path:
    """A training file with relative paths, and its volumes."""
    held_back = stored_cubes(folder, [16, 0, 0], [24, 32, 32])
    used = stored_cubes(folder, [0, 0, 0], [16, 32, 32])
    relative = [{key: value if isinstance(value, list) else Path(value).name for key, value in volume.items()}
                for volume in (used, held_back)]  # fmt: skip
    data = {"output": "model", "name": "mini", "volumes": relative[:1], "validation": relative[1], "device": "cpu"}
    data |= {"arguments": MINI, "patch_shape": [8, 16, 16], "overlap": [2, 4, 4]}
    file = folder / "train.yaml"
    file.write_text(yaml.safe_dump({**data, **changes}))
    return file


def shown(*arguments: object) -> str:
    """What a command prints; it must succeed."""
    done = CliRunner().invoke(app, [str(each) for each in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def refused(*arguments: object) -> str:
    """The message of a command that is refused."""
    done = CliRunner().invoke(app, [str(each) for each in arguments])
    assert isinstance(done.exception, PetasegError), done.output
    return str(done.exception)


@pytest.fixture(autouse=True)
def _own_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def test_a_dry_run_prints_the_job_of_a_training_and_writes_nothing(tmp_path: Path) -> None:
    """The job has the cores of all processes, and what ``cluster.driver`` says of memory, time and partition."""
    driver = {"memory_gb": 2.0, "walltime": "8:00:00", "queue": "cpu", "mail_user": "ada"}
    file = training(tmp_path, threads=3, devices=2, loaders=1, cluster={"qos": "long", "driver": driver})
    text = shown("submit", file, "--on", "slurm", "--dry-run")
    lines = sbatch_lines(text)
    expected = {"time": "8:00:00", "partition": "cpu", "qos": "long", "cpus-per-task": "8", "mem": "1908M"}
    assert lines.items() >= {**expected, "mail-user": "ada"}.items()
    assert lines["job-name"] == names.job_name(str(tmp_path / "model"), "training")
    assert "gpus-per-node" not in lines
    assert f"train {tmp_path}/model/cluster/training.yaml" in text
    assert not (tmp_path / "model").exists()


def test_a_training_on_gpus_asks_for_as_many_as_it_uses(tmp_path: Path) -> None:
    file = training(tmp_path, device="cuda", devices=4, threads=2)
    lines = sbatch_lines(shown("submit", file, "--on", "slurm", "--dry-run"))
    assert (lines["gpus-per-node"], lines["cpus-per-task"]) == ("4", "8")


def test_a_dry_run_prints_the_manifests_of_a_training_and_writes_nothing(tmp_path: Path) -> None:
    """The claim is mounted at the volumes' folder; what only SLURM reads is named."""
    mounted = {"kubernetes": {"claims": [{"claim": "lab", "path": str(tmp_path)}]}, "image": "petaseg:1"}
    file = training(tmp_path, cluster={**mounted, "queue": "long"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.config.kubernetes.RESERVED", ())
        text = shown("submit", file, "--on", "kubernetes", "--dry-run")
    assert f"- {tmp_path}/model/cluster/training.yaml" in text
    assert "# cluster.queue" in text
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("changes", "options", "words"),
    [
        ({"device": "auto"}, (), "device is auto; a job must say what it needs"),
        ({"stepz": 3}, (), "stepz: unknown key; did you mean 'steps'?"),
        ({"cluster": {"workers": {"count": 2}}}, (), "cluster.workers is given; a training is one job without workers"),
        ({"volumes": [{"image": "nowhere.zarr", "labels": "nowhere.zarr"}]}, (), "nowhere.zarr"),
        ({"output": "s3://bucket/model"}, (), "a training writes into a folder of a disk"),
        ({"patch_shape": [8, 17, 16]}, (), "the nearest patch that fits is [8, 16, 16]"),
        ({"patch_shape": [32, 16, 16]}, (), "choose a smaller patch or a larger box"),
        ({}, ("--overwrite",), "--overwrite is for runs"),
        ({}, ("--on", "kubernetes"), "cluster.image is not set"),
        ({"cluster": {"image": "i"}}, ("--on", "kubernetes"), "name the claim that holds the data in cluster.claim"),
        ({}, ("--on", "kubernetes", "--setup", "lines.sh"), "--setup is for jobs on SLURM"),
    ],
)
def test_what_is_wrong_with_a_training_is_said_before_anything_is_queued(
    changes: dict[str, Any], options: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    file = training(tmp_path, **changes)
    assert words in refused("submit", file, *(options if "--on" in options else ("--on", "slurm", *options)))
    assert not (tmp_path / "model").exists()


def test_a_training_without_a_cluster_is_refused_with_the_two_ways_to_name_one(tmp_path: Path) -> None:
    assert "set cluster.kind in the training file" in refused("submit", training(tmp_path))
    assert "#SBATCH" in shown("submit", training(tmp_path, cluster={"kind": "slurm"}), "--dry-run")


@pytest.mark.parametrize(
    ("keys", "training_file"),
    [
        ({"output": "m", "name": "n", "volumes": []}, True),
        ({"volumes": [], "stepz": 3}, True),
        ({"run_directory": "r", "input": {}}, False),
        ({"run_directory": "r", "input": {}, "output": "m"}, False),
        ({"cluster": {}}, False),
        ([], False),
    ],
)
def test_a_training_file_is_known_by_its_keys(keys: object, training_file: bool, tmp_path: Path) -> None:
    """A misspelt or a missing key does not make a run file out of a training file, nor the other way round."""
    file = tmp_path / "some.yaml"
    file.write_text(yaml.safe_dump(keys))
    assert is_training_file(str(file)) == training_file
    assert not is_training_file(str(tmp_path))
    assert not is_training_file(str(tmp_path / "missing.yaml"))


def test_the_place_of_a_training_changes_no_weight(tmp_path: Path) -> None:
    """A training may go on from its checkpoint on another cluster: the place is no part of its identity."""
    here = parse_config(yaml.safe_load(training(tmp_path).read_text()), TrainConfig)
    there = here.model_copy(update={"cluster": here.cluster.model_copy(update={"queue": "gpu"})})
    assert identity(with_absolute_paths(here)) == identity(with_absolute_paths(there))
    assert lone_job(there).cluster.queue == "gpu"


def test_a_submitted_training_goes_on_here_and_the_other_way_round(tmp_path: Path) -> None:
    """The job's file has absolute paths, the user's relative ones: a checkpoint of one belongs to the other too."""
    here = parse_config(yaml.safe_load(training(tmp_path, steps=2, pictures=False).read_text()), TrainConfig)
    there = with_absolute_paths(here)
    for one, other in ((here, there), (there, here)):
        shutil.rmtree(tmp_path / "model", ignore_errors=True)
        train(one)
        assert train(other).steps == 2
        with pytest.raises(ModelError, match=r"other settings \(.*seed: 0 there, 1 here"):
            train(other.model_copy(update={"seed": 1}))


def test_a_training_on_several_nodes_is_not_submitted(tmp_path: Path) -> None:
    """One job has one node: a training on two is refused, with the remedy."""
    config = parse_config(yaml.safe_load(training(tmp_path).read_text()), TrainConfig)
    with pytest.raises(
        ConfigError, match=r"nodes is 2; `petaseg submit` trains in one job on one node: leave nodes out"
    ):
        lone_job(config.model_copy(update={"nodes": 2}))


def test_setup_lines_are_remembered_for_the_run_and_for_no_other(tmp_path: Path) -> None:
    """The lines are kept in the user's home for that user alone, since run directories come from anywhere."""
    assert remembered_setup("/data/run") == ""
    remember_setup("/data/run", "module load cuda\n")
    assert remembered_setup("/data/run") == "module load cuda\n"
    assert remembered_setup("/data/other") == ""
    path = setup_file("/data/run")
    assert path.is_relative_to(tmp_path / "home")
    assert (path.stat().st_mode & 0o077, path.parent.stat().st_mode & 0o077) == (0, 0)
    remember_setup("/data/run", " \n")
    assert remembered_setup("/data/run") == ""
    assert list(path.parent.iterdir()) == []


def test_remembered_lines_stand_in_the_next_jobs(tmp_path: Path) -> None:
    """A submission without ``--setup`` repeats the lines of the last one; one with it replaces them."""
    file = training(tmp_path, cluster={"kind": "slurm"})
    remember_setup(str(tmp_path / "model"), "module load remembered\n")
    assert "module load remembered" in shown("submit", file, "--dry-run")
    (tmp_path / "other.sh").write_text("module load other\n")
    text = shown("submit", file, "--dry-run", "--setup", tmp_path / "other.sh")
    assert ("module load other" in text, "load remembered" in text) == (True, False)
    assert "module load" not in shown("submit", file, "--dry-run", "--setup", "/dev/null")


def test_lines_that_cannot_be_kept_or_read_are_refused_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("no folder")
    with pytest.raises(ConfigError, match=r"cannot be kept in .*make room there, or leave --setup out"):
        remember_setup("/data/run", "x")
    (tmp_path / "home").unlink()
    setup_file("/data/run").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"cannot be read .*give --setup again, or delete it"):
        remembered_setup("/data/run")
