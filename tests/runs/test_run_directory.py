"""A run writes only into directories of its own, and never replaces the results of another input unasked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr

from pipeline.errors import ConfigError, CorruptError, PetasegError, VolumeError
from pipeline.runs.directory import KEY, InputMark, discard, read_mark
from pipeline.runs.lease import Lease
from pipeline.runs.run import Run
from pipeline.runs.status import read_status
from pipeline.stages import opened
from pipeline.storage import ObjectStore
from pipeline.volumes.ingest import ingest
from tests.runs import petaseg, results, run, write_run, write_volume
from tests.volumes.test_hostile_targets import state

CHUNKS = {"chunk_shape": [8, 8, 8], "storage_chunk_shape": [8, 8, 8]}


def affinities(path: Path, seed: int = 0) -> str:
    return write_volume(path, np.random.default_rng(seed).integers(0, 256, (3, 8, 8, 16), np.uint8))


def run_file(folder: Path, source: str, directory: str = "run") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return write_run(folder, input={"affinities": source}, run_directory=directory, **CHUNKS)


def a_foreign_run_file(place: Path) -> None:
    place.mkdir()
    (place / "run.yaml").write_text("of: another program\n")


def a_run_file_of_petaseg(place: Path) -> None:
    place.mkdir()
    (place / "run.yaml").write_text("run_directory: runs/first\ninput: {image: image.zarr}\n")


def a_note(place: Path) -> None:
    (place / "deep" / "down").mkdir(parents=True)
    (place / "deep" / "down" / "notes.txt").write_text("mine")


def labels_of_mine(place: Path) -> None:
    write_volume(place / "labels.zarr", np.ones((8, 8, 16), np.uint64))


def a_file(place: Path) -> None:
    place.write_text("mine")


def a_link_to_a_folder_of_mine(place: Path) -> None:
    a_note(place.parent / "mine")
    place.symlink_to("mine")


def a_foreign_lease(place: Path) -> None:
    place.mkdir()
    (place / "lease.json").write_text('{"flat": "second floor"}')


def a_foreign_outline(place: Path) -> None:
    place.mkdir()
    (place / "stages.json").write_text('["larva", "pupa"]')
    (place / "run.yaml").write_text("of: another program\n")


def a_foreign_mark(place: Path) -> None:
    place.mkdir()
    (place / KEY).write_text('{"of": "another program"}')


HOSTILE: list[Callable[[Path], None]] = [
    a_foreign_run_file,
    a_run_file_of_petaseg,
    a_note,
    labels_of_mine,
    a_file,
    a_link_to_a_folder_of_mine,
    a_foreign_lease,
    a_foreign_outline,
    a_foreign_mark,
]


@pytest.mark.parametrize("make", HOSTILE)
def test_a_directory_of_somebody_is_refused_and_stays(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """A run in a directory that holds anything that petaseg did not write is refused, with ``--overwrite`` too."""
    file = run_file(tmp_path / "a", affinities(tmp_path / "aff.zarr"), str(tmp_path / "target"))
    make(tmp_path / "target")
    before = state(tmp_path)
    for overwrite in (False, True):
        opened.forget()
        opened_run = Run.open(file)
        with pytest.raises(PetasegError, match="choose a"):
            opened_run.check_directory(overwrite=overwrite)
        with pytest.raises(PetasegError, match="choose a"):
            opened_run.create(overwrite=overwrite)
    with pytest.raises(PetasegError, match="choose a"):
        run(file)
    assert state(tmp_path) == before


@pytest.mark.parametrize("directory", [".", "./", "../a"])
def test_a_run_file_in_its_own_run_directory_stays(tmp_path: Path, directory: str) -> None:
    """The comments of a run file survive a run directory that is the run file's folder."""
    file = run_file(tmp_path / "a", affinities(tmp_path / "aff.zarr"), directory)
    file.write_text("# which cells I care about\n" + file.read_text())
    before = state(tmp_path)
    said = petaseg("run", file, "-q")
    assert said.returncode == 1
    assert "holds files that petaseg did not write (run.yaml)" in said.stderr.replace("\n", " ")
    assert state(tmp_path) == before


INSIDE = {
    "the input": "aff.zarr",
    "within the input": "aff.zarr/run",
    "within an array of the input": "aff.zarr/0/run",
    "the folder of the input": ".",
    "the input by a link": "link.zarr",
    "within the input by a link": "link.zarr/run",
}


@pytest.mark.parametrize("source", ["aff.zarr", "aff.zarr/0", "link.zarr"])
@pytest.mark.parametrize("name", INSIDE)
def test_a_run_directory_and_its_inputs_are_apart(tmp_path: Path, name: str, source: str) -> None:
    """A run directory that is an input, holds one or lies in one is refused before anything is written."""
    affinities(tmp_path / "aff.zarr")
    (tmp_path / "link.zarr").symlink_to("aff.zarr")
    file = run_file(tmp_path / "a", str(tmp_path / source), str(tmp_path / INSIDE[name]))
    before = state(tmp_path)
    opened.forget()
    with pytest.raises(ConfigError, match=r"choose (another|a) run_directory"):
        Run.open(file)
    assert state(tmp_path) == before


@pytest.mark.parametrize("table", ["mask", "labels", "skeletons"])
def test_the_other_inputs_are_apart_from_the_run_directory_too(tmp_path: Path, table: str) -> None:
    """Mask, true labels and skeletons within the run directory are refused as well."""
    source = affinities(tmp_path / "aff.zarr")
    place = tmp_path / "run" / table
    write_volume(place, np.ones((8, 8, 16), np.uint64))
    tables = {"mask": {"input": {"affinities": source, "mask": str(place)}}}
    default = {"input": {"affinities": source}, "evaluation": {table: str(place)}}
    if table == "skeletons":
        shutil.rmtree(place)
        np.savez(
            place.with_suffix(".npz"),
            nodes_nm=np.zeros((2, 3)),
            edges=np.array([[0, 1]]),
            skeleton=np.zeros(2, np.int64),
        )
        default["evaluation"] = {table: str(place.with_suffix(".npz"))}
    file = write_run(tmp_path, **CHUNKS, **tables.get(table, default))
    opened.forget()
    with pytest.raises(ConfigError, match="choose another run_directory"):
        Run.open(file)


def test_another_input_of_equal_bounds_is_refused_and_replaced_when_asked(tmp_path: Path) -> None:
    """The results of the first input stay until ``--overwrite`` is given; a note of somebody's stays also then."""
    first = run_file(tmp_path / "a", affinities(tmp_path / "one.zarr"), str(tmp_path / "run"))
    second = run_file(tmp_path / "b", affinities(tmp_path / "two.zarr", 1), str(tmp_path / "run"))
    run(first)
    (tmp_path / "run" / "notes.txt").write_text("mine")
    (tmp_path / "run" / "report").mkdir(exist_ok=True)
    (tmp_path / "run" / "report" / "figure.svg").write_text("mine")
    before = state(tmp_path)
    refused = petaseg("run", second, "-q")
    assert refused.returncode == 1
    words = " ".join(refused.stderr.split())
    assert "one.zarr; this run reads" in words
    assert "--overwrite" in words
    assert "choose another run_directory" in words
    assert state(tmp_path) == before
    dry = petaseg("run", second, "--dry-run")  # the run file is sound; the directory may be free tomorrow
    assert (dry.returncode, "but not now" in dry.stdout, "--overwrite" in dry.stdout) == (0, True, True)
    assert petaseg("run", second, "-q", "--overwrite").returncode == 0
    opened.forget()
    assert read_mark(ObjectStore(tmp_path / "run")) == InputMark.of(Run.open(second).inputs)
    clean = run(run_file(tmp_path / "c", str(tmp_path / "two.zarr")))
    assert results(Run.open(second)) == results(clean)
    for name in ("notes.txt", "report/figure.svg"):
        assert (tmp_path / "run" / name).read_text() == "mine"


def test_a_directory_is_claimed_for_one_input(tmp_path: Path) -> None:
    """Before a chunk is computed, too, a directory is that of the input for which it was made."""
    first = run_file(tmp_path / "a", affinities(tmp_path / "one.zarr"), str(tmp_path / "run"))
    second = run_file(tmp_path / "b", affinities(tmp_path / "two.zarr", 1), str(tmp_path / "run"))
    Run.open(first).create()
    with pytest.raises(ConfigError, match=r"results of another input, .*one\.zarr"):
        Run.open(second).create()
    Run.open(second).create(overwrite=True)
    with pytest.raises(ConfigError, match=r"results of another input, .*two\.zarr"):
        Run.open(first).create()


def test_overwrite_computes_nothing_again_for_the_same_input(tmp_path: Path) -> None:
    """``--overwrite`` given once more goes on where the run stopped, since the results are of its own input."""
    file = run_file(tmp_path, affinities(tmp_path / "one.zarr"))
    run(file)
    before = state(tmp_path / "run" / "labels.zarr"), (tmp_path / "run/ledger/relabel/log.jsonl").read_bytes()
    assert petaseg("run", file, "-q", "--overwrite").returncode == 0
    assert before == (
        state(tmp_path / "run" / "labels.zarr"),
        (tmp_path / "run/ledger/relabel/log.jsonl").read_bytes(),
    )


def test_the_same_voxels_elsewhere_and_other_voxels_in_one_place_go_on(tmp_path: Path) -> None:
    """A moved input, an edited input and another configuration are the same run."""
    file = run_file(tmp_path, affinities(tmp_path / "one.zarr"))
    run(file)
    shutil.copytree(tmp_path / "one.zarr", tmp_path / "moved.zarr")
    run(file, f"input.affinities={tmp_path}/moved.zarr", "segmentation.threshold=0.9")
    shutil.rmtree(tmp_path / "moved.zarr")
    affinities(tmp_path / "moved.zarr", 1)
    edited = run(file, f"input.affinities={tmp_path}/moved.zarr")
    assert read_mark(edited.store) == InputMark.of(edited.inputs)
    assert all(stage.complete for stage in read_status(edited))


def test_a_run_directory_of_an_earlier_petaseg_goes_on_with_its_input(tmp_path: Path) -> None:
    """A directory without a mark is known by its outline: the same input goes on, another one is refused."""
    first = run_file(tmp_path / "a", affinities(tmp_path / "one.zarr"), str(tmp_path / "run"))
    second = run_file(tmp_path / "b", affinities(tmp_path / "two.zarr", 1), str(tmp_path / "run"))
    run(first)
    (tmp_path / "run" / KEY).unlink()
    with pytest.raises(ConfigError, match=r"results of another input, .*one\.zarr"):
        run(second)
    run(first, "segmentation.threshold=0.9")
    assert read_mark(ObjectStore(tmp_path / "run")) == InputMark.of(Run.open(first).inputs)
    (tmp_path / "run" / KEY).unlink()
    (tmp_path / "run" / "stages.json").write_text("{")
    run(first)


def test_a_driver_that_died_before_it_marked_its_directory_is_followed(tmp_path: Path) -> None:
    """A directory with nothing but a lease is nobody else's."""
    file = run_file(tmp_path, affinities(tmp_path / "one.zarr"))
    with Lease(Run.open(file).store, seconds=60):
        pass
    assert sorted(state(tmp_path / "run")) == [".lease.json.lock", "lease.json"]
    run(file)


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("deletions", [0, 1, 9, 20])
def test_an_interrupted_overwrite_is_refused_or_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deletions: int
) -> None:
    """While the old results are deleted, no chunk of theirs counts without its data, and the mark is still the old."""
    first = run_file(tmp_path / "a", affinities(tmp_path / "one.zarr"), str(tmp_path / "run"))
    second = run_file(tmp_path / "b", affinities(tmp_path / "two.zarr", 1), str(tmp_path / "run"))
    run(first)
    left, delete = iter(range(deletions)), ObjectStore.delete

    def die(store: ObjectStore, key: str) -> None:
        if next(left, None) is None:
            raise Killed
        delete(store, key)

    with monkeypatch.context() as patched:
        patched.setattr(ObjectStore, "delete", die)
        with pytest.raises(Killed):
            Run.open(second).create(overwrite=True)
    with pytest.raises(ConfigError, match="--overwrite"):
        run(second)
    Run.open(second).create(overwrite=True)
    assert all(stage.done == 0 for stage in read_status(Run.open(second)))
    assert results(run(second)) == results(run(run_file(tmp_path / "c", str(tmp_path / "two.zarr"))))


def test_results_with_a_volume_of_somebody_else_are_not_deleted(tmp_path: Path) -> None:
    """If a volume in the directory was not made by petaseg, an overwrite deletes nothing at all."""
    file = run_file(tmp_path, affinities(tmp_path / "one.zarr"))
    run(file)
    (tmp_path / "run" / "labels.zarr" / "proofread.txt").write_text("mine")
    before = state(tmp_path)
    with pytest.raises(VolumeError, match="delete it yourself"):
        discard(ObjectStore(tmp_path / "run"))
    assert state(tmp_path) == before


def test_a_volume_of_somebody_else_in_a_run_directory_is_not_written_on(tmp_path: Path) -> None:
    """Labels of another program of equal size, put in place of a run's, are refused by the stage and stay."""
    file = run_file(tmp_path, affinities(tmp_path / "one.zarr"))
    run(file)
    place = tmp_path / "run" / "labels.zarr"
    shutil.rmtree(place)
    mine = zarr.create_array(str(place), data=np.full((8, 8, 16), 7, "u8"), chunks=(8, 8, 8), zarr_format=2)
    mine.attrs["resolution_nm"] = [8, 8, 8]
    before = state(place)
    opened.forget()
    with pytest.raises(PetasegError, match=r"does not say that petaseg made it|different"):
        run(file, "segmentation.threshold=0.9")
    assert state(place) == before


def test_an_ingest_into_a_run_directory_is_refused(tmp_path: Path) -> None:
    """Only a run writes to its directory, also where its volumes are marked as made by petaseg."""
    source = affinities(tmp_path / "one.zarr")
    run(run_file(tmp_path, source))
    before = state(tmp_path / "run")
    for name in ("labels.zarr", "other.zarr", ""):
        with pytest.raises(ConfigError, match="where only that run writes"):
            ingest(source, f"{tmp_path}/run/{name}", overwrite=True)
    assert state(tmp_path / "run") == before


def test_a_damaged_mark_is_named(tmp_path: Path) -> None:
    """A mark that cannot be read is an error that names the file."""
    (tmp_path / KEY).write_text(json.dumps({"version": 1}))
    with pytest.raises(CorruptError, match=r"petaseg\.json cannot be read .*or choose another run_directory"):
        read_mark(ObjectStore(tmp_path))


@pytest.mark.parametrize("named", ["copy", "copy/run.yaml"])
def test_a_copied_run_directory_is_used_where_it_is(
    tmp_path: Path, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands that name a copied run directory read and write the copy, also its second segmentation."""
    file = run_file(tmp_path / "a", affinities(tmp_path / "aff.zarr"), str(tmp_path / "first"))
    run(file)
    assert petaseg("relabel", file, "--threshold", "0.3", "--output", "beside.zarr", "-q").returncode == 0
    shutil.copytree(tmp_path / "first", tmp_path / "copy")
    before = state(tmp_path / "first")
    assert petaseg("relabel", tmp_path / named, "--threshold", "0.9", "-q").returncode == 0
    assert petaseg("verify", tmp_path / "copy/beside/beside").returncode == 0
    assert state(tmp_path / "first") == before
    assert Run.open(tmp_path / named).url == str(tmp_path / "copy")
    assert Run.open(tmp_path / named).threshold == 0.9
    monkeypatch.chdir(tmp_path)
    assert Run.open(named).url == str(tmp_path / "copy")
    assert Run.open(tmp_path / "copy/beside/beside").layout.run_url == str(tmp_path / "copy")


def test_an_override_of_the_run_directory_wins_over_its_place(tmp_path: Path) -> None:
    """The ``run.yaml`` of a run directory makes another run if ``run_directory`` is overridden."""
    run(run_file(tmp_path / "a", affinities(tmp_path / "aff.zarr"), str(tmp_path / "first")))
    other = Run.open(tmp_path / "first", [f"run_directory={tmp_path / 'other'}"])
    assert other.url == str(tmp_path / "other")
