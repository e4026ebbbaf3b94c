"""A run directory holds what the present configuration says and nothing else, whatever was run in it before."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import LeaseError
from pipeline.runs.report import write_report
from pipeline.runs.run import Run
from pipeline.runs.verify import repair, verify_run
from pipeline.stages import opened
from pipeline.stages.extent import Extent, extent_key
from pipeline.storage import ObjectStore
from pipeline.volumes import open_volume, outside
from tests.runs import petaseg, run, write_run, write_volume

SHAPE = (24, 20, 20)
CHUNKS = {"chunk_shape": [8, 10, 10], "storage_chunk_shape": [8, 10, 10]}
ODD = ("input.start=[9,3,0]", "input.stop=[24,20,17]")
"""A region whose faces cut stored chunks, and that meets the first one."""
FIRST = ("input.stop=[12,20,20]",)
REGIONS: dict[str, tuple[tuple[str, ...], ...]] = {
    "beside": (FIRST, ("input.start=[16,0,0]",)),
    "across stored chunks": (FIRST, ODD),
    "smaller": ((), ODD),
    "larger": (ODD, ()),
    "forth and back": (ODD, FIRST, ODD),
    "other chunks": ((), ("chunk_shape=[16,20,20]",)),
    "other chunks and region": (("chunk_shape=[8,10,20]",), ODD),
}
NAMES = ("fragments", "supervoxels", "labels")


@pytest.fixture(scope="module")
def affinities(tmp_path_factory: pytest.TempPathFactory) -> str:
    data = np.random.default_rng(0).integers(0, 256, (3, *SHAPE), np.uint8)
    return write_volume(tmp_path_factory.mktemp("data") / "affinities.zarr", data)


def products(folder: Path) -> dict[str, bytes]:
    """All voxels of all volumes, outside of the region too, and the names of all other products."""
    opened.forget()
    volumes = [open_volume(f"{folder}/{name}.zarr") for name in NAMES]
    voxels = {volume.url.rpartition("/")[2]: volume.read(volume.spec.bounds).tobytes() for volume in volumes}
    stored = (path for path in folder.rglob("*") if path.is_file() and {"parts", "c"} & set(path.parts))
    return {**voxels, **{str(path.relative_to(folder)): b"" for path in stored}}


@pytest.mark.parametrize("name", REGIONS)
def test_a_run_directory_holds_the_present_region_and_nothing_else(tmp_path: Path, affinities: str, name: str) -> None:
    """After any changes of region and chunks, voxels and objects are those of a run in a new directory, and proven."""
    file = write_run(tmp_path / "moved", input={"affinities": affinities}, **CHUNKS)
    for overrides in REGIONS[name]:
        moved = run(file, *overrides)
    run(write_run(tmp_path / "new", input={"affinities": affinities}, **CHUNKS), *REGIONS[name][-1])
    assert products(tmp_path / "moved" / "run") == products(tmp_path / "new" / "run")
    assert all(proof.proven for proof in verify_run(moved, None, seed=0))


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("changes", [0, 1, 5, 12, 21])
def test_a_driver_that_dies_while_it_clears_leaves_it_to_the_next(
    tmp_path: Path, affinities: str, monkeypatch: pytest.MonkeyPatch, changes: int
) -> None:
    """After any number of deletions a driver may die; the next one with either region leaves exactly its own."""
    file = write_run(tmp_path / "moved", input={"affinities": affinities}, **CHUNKS)
    run(file)
    left = iter(range(changes))
    delete = ObjectStore.delete

    def die(store: ObjectStore, key: str) -> None:
        if ("/c/" in key or "parts/" in key) and next(left, None) is None:
            raise Killed
        delete(store, key)

    with monkeypatch.context() as patched:
        patched.setattr(ObjectStore, "delete", die)
        with pytest.raises(Killed):
            run(file, *FIRST)
    last = run(file, *(FIRST if changes % 2 else ()))
    folder = tmp_path / "new"
    run(write_run(folder, input={"affinities": affinities}, **CHUNKS), *(FIRST if changes % 2 else ()))
    assert products(tmp_path / "moved" / "run") == products(folder / "run")
    assert all(proof.proven for proof in verify_run(last, None, seed=0))


def test_old_marks_end_before_anything_of_theirs_is_removed(
    tmp_path: Path, affinities: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a driver dies at the first deletion, the stage counts as undone under the configuration of before."""
    file = write_run(tmp_path, input={"affinities": affinities}, **CHUNKS)
    before = run(file)

    def die(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Extent, "confine", die)
        with pytest.raises(Killed):
            run(file, *FIRST)
    assert before.ledger(before.stages[0], read_only=True).summary().done == 0


def test_verify_finds_what_another_region_has_left_and_repairs_it(tmp_path: Path, affinities: str) -> None:
    """Voxels outside of the region and parts of other chunks are no proof; ``--repair`` removes them, nothing else."""
    file = write_run(tmp_path, input={"affinities": affinities, "start": [9, 3, 0], "stop": [24, 20, 17]}, **CHUNKS)
    finished = run(file)
    clean = products(tmp_path / "run")
    labels = open_volume(finished.layout.volume_url("labels"), mode="r+")
    everywhere = labels.read(labels.spec.bounds)
    everywhere[everywhere == 0] = 77
    inside = finished.layout.roi.slices()
    everywhere[inside] = labels.read(finished.layout.roi)
    labels.write(labels.spec.bounds, everywhere)
    part = next((tmp_path / "run" / "parts" / "agglomerate").iterdir())
    shutil.copy(part, part.with_name("7_7_7"))
    shutil.copy(part, part.with_name("L9_0_0_0"))
    (part.parent / "note.txt").write_text("mine")
    said = petaseg("verify", file, "--sample", 0)
    assert said.returncode == 1
    assert "stray relabel" in said.stdout
    assert "stray agglomerate: 2 stored objects" in said.stdout
    assert petaseg("verify", file, "--sample", 0, "--repair").returncode == 1
    assert petaseg("verify", file, "--sample", 0).returncode == 0
    assert (part.parent / "note.txt").read_text() == "mine"
    (part.parent / "note.txt").unlink()
    assert products(tmp_path / "run") == clean


def test_scores_of_another_region_do_not_stay(tmp_path: Path, affinities: str) -> None:
    """A run without ground truth keeps the scores of its own region, and none of another one."""
    truth = write_volume(tmp_path / "truth.zarr", np.ones(SHAPE, np.uint64))
    file = write_run(tmp_path, input={"affinities": affinities}, **CHUNKS)
    write_report(run(file, f"evaluation.labels={truth}"))
    scores, parts = tmp_path / "run" / "report" / "scores.json", tmp_path / "run" / "parts" / "evaluate_segmentation"
    run(file)
    assert scores.exists()
    assert list(parts.iterdir())
    run(file, *FIRST)
    assert not scores.exists()
    assert not list(parts.iterdir())
    assert not list((tmp_path / "run" / "ledger" / "evaluate_segmentation").iterdir())


def test_another_threshold_lists_no_objects(tmp_path: Path, affinities: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the same region and chunks nothing is looked for, since there is nothing to be found."""
    file = write_run(tmp_path, input={"affinities": affinities}, **CHUNKS)
    run(file)

    def refuse(*_: object) -> None:
        raise AssertionError("strays were looked for")

    monkeypatch.setattr(Extent, "confine", refuse)
    run(file, "segmentation.threshold=0.9")


def test_a_damaged_record_of_the_extent_is_no_obstacle(tmp_path: Path, affinities: str) -> None:
    """Without a readable record, strays are looked for, and the record is written anew."""
    file = write_run(tmp_path, input={"affinities": affinities}, **CHUNKS)
    finished = run(file)
    record = tmp_path / "run" / extent_key("relabel")
    record.write_text("{")
    assert not finished.stage("relabel").extent.is_confined
    run(file, "segmentation.threshold=0.9")
    assert json.loads(record.read_text())["layout"] == finished.layout.fingerprint


def test_a_driver_that_was_followed_by_another_removes_nothing(tmp_path: Path, affinities: str) -> None:
    """``may_write`` is asked before each deletion."""
    file = write_run(tmp_path, input={"affinities": affinities}, **CHUNKS)
    run(file)
    before = products(tmp_path / "run")
    other = Run.open(file, FIRST)

    def followed() -> None:
        raise LeaseError("another driver works here")

    for stage in other.stages:
        with pytest.raises(LeaseError):
            stage.confine(followed)
    assert products(tmp_path / "run") == before
    assert outside.stored_outside(f"{tmp_path}/nothing.zarr", other.layout.roi) is not None
    assert not list(outside.stored_outside(f"{tmp_path}/nothing.zarr", other.layout.roi))
    assert not [proof for proof in verify_run(Run.open(file), 0, seed=0) if proof.strays]
    repair(Run.open(file), [], ["relabel"])
    assert products(tmp_path / "run") == before
