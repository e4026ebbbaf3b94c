"""A second segmentation beside the first: the bytes of a run at its threshold, and the first stays as it is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from pipeline.errors import ConfigError, VolumeError
from pipeline.runs.applied import read_applied
from pipeline.runs.beside import name_of
from pipeline.runs.origin import require_finished
from pipeline.runs.run import Run
from pipeline.stages import opened
from pipeline.stages.relabel import Relabel
from pipeline.storage import ObjectStore
from pipeline.volumes import open_volume
from tests.runs import petaseg, real_affinities, results, run, write_run, write_volume
from workflows.driver import segment

SHAPE = (24, 45, 42)
CHUNK = [12, 15, 14]
TABLES = {"chunk_shape": CHUNK, "storage_chunk_shape": CHUNK, "agglomeration": {"stop_score": 0.2}}


@pytest.fixture
def file(shared_data: Path, tmp_path: Path) -> Path:
    source = write_volume(tmp_path / "affinities.zarr", real_affinities(shared_data, SHAPE))
    made = write_run(tmp_path, input={"affinities": source}, **TABLES)
    run(made)
    return made


def beside(place: Path, threshold: float, name: str = "labels_03") -> Run:
    opened.forget()
    overrides = [f"segmentation.threshold={threshold}"]
    return segment(str(place), overrides, only_after="tables", beside=name, report=True).run


def labels(file: Path, name: str) -> bytes:
    volume = open_volume(str(file.parent / "run" / f"{name}.zarr"))
    return volume.read(volume.spec.bounds).tobytes()


def fresh(file: Path, threshold: float) -> bytes:
    """The labels of a run of its own at a threshold."""
    elsewhere = f"run_directory={file.parent / f'fresh-{threshold}'}"
    return results(run(file, f"segmentation.threshold={threshold}", elsewhere))["labels"]


def test_a_second_segmentation_has_the_bytes_of_a_run_and_leaves_the_first_alone(file: Path) -> None:
    """Configuration, records and labels of the run stay as they are, to the byte."""
    folder = file.parent / "run"
    log = ("lease.json", "petaseg.log", "petaseg.jsonl")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name not in log}
    beside(file, 0.3)
    assert {path: path.read_bytes() for path in before} == before
    assert labels(file, "labels_03") == fresh(file, 0.3) != labels(file, "labels")
    assert read_applied(ObjectStore(folder)).values == {}
    told = json.loads((folder / "beside" / "labels_03" / "summary.json").read_text())
    assert told["labels"] == str(folder / "labels_03.zarr")
    beside(file, 0.9)
    assert labels(file, "labels_03") == fresh(file, 0.9)
    assert Run.open(file).is_complete(Run.open(file).stage("relabel"))


def test_it_is_resumed_looked_at_and_verified_by_its_folder(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a crash, ``petaseg run``, ``status`` and ``verify`` take its folder like a run directory."""
    write, left = Relabel.write, [3]

    def dying(self, chunk, products):
        left[0] -= 1
        if not left[0]:
            raise SystemExit
        write(self, chunk, products)

    with monkeypatch.context() as patch:
        patch.setattr(Relabel, "write", dying)
        with pytest.raises(SystemExit):
            beside(file, 0.3)
    folder, volume = file.parent / "run" / "beside" / "labels_03", str(file.parent / "run" / "labels_03.zarr")
    opened.forget()
    shown = petaseg("status", folder)
    assert shown.returncode == 1
    assert "threshold     0.3" in shown.stdout
    with pytest.raises(VolumeError, match=r"finished 2 of .* `petaseg run .*beside/labels_03`|relabel .*--output"):
        require_finished(volume)
    assert petaseg("run", folder, "--quiet").returncode == 0
    assert labels(file, "labels_03") == fresh(file, 0.3)
    require_finished(volume)
    proven = petaseg("verify", folder, "--all")
    assert proven.returncode == 0, proven.stdout
    assert petaseg("status", folder).returncode == 0
    assert petaseg("verify", file, "--all").returncode == 0


@pytest.mark.parametrize("way", ["relative", "link"])
def test_its_folder_is_known_however_it_is_named(file: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """By a relative path or a link ``petaseg run`` makes the second segmentation and leaves the first alone."""
    beside(file, 0.3)
    first, second = labels(file, "labels"), labels(file, "labels_03")
    monkeypatch.chdir(file.parent)
    if way == "link":
        (file.parent / "link").symlink_to("run")
    folder = f"{'run' if way == 'relative' else 'link'}/beside/labels_03"
    opened.forget()
    assert segment(folder).run.beside == Run.open(folder).beside == "labels_03"
    assert (labels(file, "labels"), labels(file, "labels_03")) == (first, second)


def test_a_run_with_ground_truth_has_a_second_segmentation_with_a_summary_and_a_picture(file: Path) -> None:
    """Scores are those of the first; the picture of the second needs no tables of the evaluation."""
    truth = write_volume(file.parent / "truth.zarr", np.ones(SHAPE, np.uint64))
    run(file, f"evaluation.labels={truth}")
    folder = file.parent / "run"
    assert petaseg("relabel", folder, "--threshold", "0.3", "--output", "labels_03").returncode == 0
    assert {path.name for path in (folder / "beside" / "labels_03").iterdir()} >= {"summary.json", "overview.png"}


def test_what_somebody_has_put_there_is_refused(file: Path) -> None:
    """A volume, a folder and a file of that name are not replaced."""
    place = file.parent / "run" / "mine.zarr"
    write_volume(place, np.ones(SHAPE, np.uint64))
    (file.parent / "run" / "file.zarr").write_text("mine")
    for name in ("mine", "file"):
        with pytest.raises(ConfigError, match="is there already, and `petaseg relabel --output` has not made it"):
            beside(file, 0.3, name)
    assert labels(file, "mine") == np.ones(SHAPE, np.uint64).tobytes()
    assert not (file.parent / "run" / "beside").exists()


@pytest.mark.parametrize("name", ["labels.zarr", "fragments", "../x", "a/b.zarr", "", ".zarr", "-x", "s3://b/x.zarr"])
def test_a_name_is_a_new_plain_one(name: str) -> None:
    with pytest.raises(ConfigError, match="it names a volume within the run directory"):
        name_of(name)
    assert name_of("labels_03.zarr") == name_of("labels_03") == "labels_03"


def test_it_never_computes_a_stage_of_the_run(file: Path) -> None:
    """Once the run has another tree, its folder is refused with what to do."""
    beside(file, 0.3)
    run(file, "agglomeration.stop_score=0.25")
    opened.forget()
    with pytest.raises(ConfigError, match="has no finished agglomerate under the configuration of labels_03"):
        segment(str(file.parent / "run" / "beside" / "labels_03"))


def test_it_goes_with_the_results_of_another_input(file: Path) -> None:
    """``--overwrite`` deletes it too, and keeps what somebody has put beside."""
    beside(file, 0.3)
    note = file.parent / "run" / "beside" / "note.txt"
    note.write_text("mine")
    other = write_volume(file.parent / "other.zarr", np.full((3, *SHAPE), 200, np.uint8))
    data = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump({**data, "input": {"affinities": other}}))
    opened.forget()
    segment(str(file), overwrite=True)
    assert not (file.parent / "run" / "labels_03.zarr").exists()
    left = [path for path in note.parent.rglob("*") if path.is_file()]
    assert left == [note]


def test_the_command_says_where_it_is(file: Path) -> None:
    done = petaseg("relabel", file, "--threshold", "0.3", "--output", "labels_03.zarr")
    assert done.returncode == 0, done.stderr
    assert "threshold 0.3" in done.stdout
    assert str(file.parent / "run" / "labels_03.zarr") in done.stdout
    assert Run.open(file).threshold == 0.5
