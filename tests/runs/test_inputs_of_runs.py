"""An input that another run or an ingest writes is used when it is complete, and known by what wrote it."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from pipeline.config.run_file import Execution
from pipeline.errors import ConfigError, VolumeError
from pipeline.evaluation.compare import compare_volumes
from pipeline.execution.runner import RunOptions, run_stage
from pipeline.execution.serial import SerialExecutor
from pipeline.grid import Chunk
from pipeline.runs.origin import input_fingerprint, require_finished
from pipeline.runs.run import Run
from pipeline.stages import opened
from pipeline.stages.base import Stage
from pipeline.training.config import LabelledVolume
from pipeline.training.sources import open_source
from pipeline.volumes import open_volume
from pipeline.volumes.ingest import ingest
from tests.runs import results, run, write_run, write_volume
from workflows.app import app

SHAPE = (20, 24, 28)
TABLES = {
    "chunk_shape": [10, 12, 14],
    "storage_chunk_shape": [10, 12, 14],
    "inference": {"model": "identity", "patch_shape": [12, 12, 12], "overlap": [4, 4, 4]},
    "segmentation": {"threshold": 0.5},
}


def image_file(folder: Path, **tables: object) -> Path:
    """A run from an image to neurons; its run directory is ``folder/run``."""
    folder.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(0).integers(0, 2, (5, 6, 7))
    image = np.kron(coarse, np.ones((4, 4, 4))).astype(np.uint8) * 150 + 50
    path = folder / "image.zarr"
    given = {"image": str(path) if path.exists() else write_volume(path, image)}
    return write_run(folder, **{**TABLES, **tables, "input": {**given, **tables.get("input", {})}})  # type: ignore[dict-item]


def next_file(folder: Path, first: Path, **tables: object) -> Path:
    """A run on the affinities of the run of ``first``."""
    given = {"affinities": str(first.parent / "run" / "affinities.zarr")}
    rest = {key: value for key, value in TABLES.items() if key != "inference"}
    return write_run(folder, **{**rest, **tables, "input": {**given, **tables.get("input", {})}})  # type: ignore[dict-item]


def run_part(file: Path, stage_name: str, chunks: int) -> None:
    """Run the stages of a run up to this one, of which only so many chunks are done."""
    opened.forget()
    opened_run = Run.open(file)
    opened_run.create()
    for stage in opened_run.stages:
        ledger = opened_run.ledger(stage)
        if stage.name == stage_name:
            stage.prepare()
            ledger.begin()
            for chunk in first_chunks(stage, chunks):
                ledger.record(stage.run_chunk(chunk))
            ledger.close()
            return
        run_stage(stage, ledger, SerialExecutor(), RunOptions.of(Execution(), "petaseg run run.yaml"))
        ledger.close()


def first_chunks(stage: Stage, number: int) -> Iterable[Chunk]:
    return list(stage.grids()[0])[:number]


def fingerprints(file: Path, *overrides: str) -> dict[str, str]:
    opened.forget()
    return {stage.name: stage.fingerprint for stage in Run.open(file, overrides).stages}


def test_affinities_that_a_run_has_not_finished_are_refused(tmp_path: Path) -> None:
    """The message names the run, how far it is, and the command that finishes it; nothing is written."""
    first = image_file(tmp_path / "first")
    run_part(first, "blend_heads", 3)
    second = next_file(tmp_path / "second", first)
    message = r"finished 3 of 8 chunks of blend_heads.*petaseg run .*first/run"
    with pytest.raises(VolumeError, match=message):
        run(second)
    assert not (tmp_path / "second" / "run").exists()
    run_part(first, "blend_heads", 8)
    assert Run.open(second).inputs.network is None


def test_a_chain_of_two_runs_gives_the_bytes_of_one(tmp_path: Path) -> None:
    first = image_file(tmp_path / "first")
    whole = results(run(first))
    chained = results(run(next_file(tmp_path / "second", first)))
    assert chained == {name: whole[name] for name in chained}


def test_axes_in_another_order_change_the_fingerprint_of_a_run_s_volume(tmp_path: Path) -> None:
    """Other axes read other voxels of the same extent; the order in which stages write is the one without ``#axes``."""
    first = image_file(tmp_path / "first", input={"start": [0, 0, 0], "stop": [20, 20, 20]})
    image = tmp_path / "first" / "image.zarr"
    shutil.rmtree(image)
    write_volume(image, np.random.default_rng(0).integers(0, 256, (20, 20, 20), np.uint8))
    run(first)

    def known_as(axes: str) -> str:
        volume = open_volume(f"{tmp_path}/first/run/affinities.zarr/0{axes}")
        return input_fingerprint(volume, volume.spec.bounds, str(tmp_path / "second"))

    assert known_as("") == known_as("#axes=czyx") != known_as("#axes=czxy")


def test_the_first_run_decides_which_stages_of_the_second_are_computed_again(tmp_path: Path) -> None:
    """What changes the first run's affinities changes every stage of the second; another threshold changes none."""
    first = image_file(tmp_path / "first")
    second = next_file(tmp_path / "second", first)
    run(first)
    before = results(run(second)), fingerprints(second)
    run(first, "segmentation.threshold=0.7")
    assert fingerprints(second) == before[1]
    with pytest.raises(VolumeError, match="finished 0 of 8 chunks of blend_heads"):
        changed_but_unfinished(first, second)
    run(first, "inference.augmentation=flips")
    opened.forget()
    changed = Run.open(second)
    assert all(changed.ledger(stage, read_only=True).summary().done == 0 for stage in changed.stages)
    run(first)
    assert fingerprints(second) == before[1]


def changed_but_unfinished(first: Path, second: Path) -> None:
    """Begin the first run under another configuration, and open the second."""
    opened.forget()
    Run.open(first, ["inference.augmentation=flips"]).create()
    Run.open(second)


def test_a_moved_run_directory_is_still_the_same_run(tmp_path: Path) -> None:
    """Neither the place of the first run nor a link to its volume changes a fingerprint."""
    first = image_file(tmp_path / "first")
    run(first)
    before = fingerprints(next_file(tmp_path / "second", first))
    shutil.move(tmp_path / "first", tmp_path / "elsewhere")
    (tmp_path / "link.zarr").symlink_to(tmp_path / "elsewhere" / "run" / "affinities.zarr")
    for place in ("elsewhere/run/affinities.zarr", "link.zarr"):
        file = next_file(tmp_path / "second", first, input={"affinities": str(tmp_path / place)})
        assert fingerprints(file) == before


def test_another_volume_of_the_same_run_is_another_input(tmp_path: Path) -> None:
    """Each volume of a run is known by the stage that writes it."""
    first = image_file(tmp_path / "first")
    run(first)
    folder = tmp_path / "first" / "run"
    second = next_file(tmp_path / "second", first)
    masks = [fingerprints(second, f"input.mask={folder}/{name}.zarr") for name in ("labels", "supervoxels")]
    truths = [fingerprints(second, f"evaluation.labels={folder}/{name}.zarr") for name in ("labels", "supervoxels")]
    assert masks[0]["extract_supervoxels"] != masks[1]["extract_supervoxels"]
    assert truths[0]["evaluate_segmentation"] != truths[1]["evaluate_segmentation"]


@pytest.mark.parametrize("key", ["input.mask", "evaluation.labels"])
def test_masks_and_truth_of_an_unfinished_run_are_refused(tmp_path: Path, key: str) -> None:
    first = image_file(tmp_path / "first")
    run_part(first, "relabel", 5)
    second = next_file(tmp_path / "second", first)
    with pytest.raises(VolumeError, match="finished 5 of 8 chunks of relabel"):
        fingerprints(second, f"{key}={tmp_path}/first/run/labels.zarr")


def test_an_array_within_an_unfinished_volume_of_a_run_is_refused(tmp_path: Path) -> None:
    first = image_file(tmp_path / "first")
    run_part(first, "blend_heads", 3)
    volume = tmp_path / "first" / "run" / "affinities.zarr"
    array = next(path.parent for path in volume.glob("*/zarr.json"))
    with pytest.raises(VolumeError, match="finished 3 of 8 chunks"):
        fingerprints(next_file(tmp_path / "second", first, input={"affinities": str(array)}))


def test_a_region_that_the_first_run_did_not_write_is_refused(tmp_path: Path) -> None:
    """A run of a part gives its volumes to runs of that part, also under another offset, and to no larger one."""
    first = image_file(tmp_path / "first", input={"start": [0, 0, 0], "stop": [20, 12, 28]})
    run(first)
    second = next_file(tmp_path / "second", first)
    with pytest.raises(VolumeError, match=r"which writes .*; this run needs .*input\.start"):
        fingerprints(second)
    assert fingerprints(second, "input.stop=[20, 12, 28]")
    shifted = f"input.affinities={tmp_path}/first/run/affinities.zarr#offset=5,0,0"
    assert fingerprints(second, shifted, "input.start=[5,0,0]", "input.stop=[25, 12, 28]")
    with pytest.raises(VolumeError, match="this run needs"):
        fingerprints(second, shifted, "input.start=[5,0,0]", "input.stop=[25, 13, 28]")


def test_a_run_of_a_part_gives_the_bytes_of_one_run_there(tmp_path: Path) -> None:
    """A second run on the part that the first run predicted gives the same bytes as one run of that part."""
    part = {"start": [0, 0, 0], "stop": [20, 12, 28]}
    first = image_file(tmp_path / "first", input=part)
    whole = results(run(first))
    chained = results(run(next_file(tmp_path / "second", first, input=part)))
    assert chained == {name: whole[name] for name in chained}


@pytest.mark.parametrize("name", ["affinities", "labels"])
def test_a_run_never_reads_a_volume_of_its_own_directory(tmp_path: Path, name: str) -> None:
    """Neither a volume of an earlier configuration nor a foreign volume of such a name is read and written over."""
    first = image_file(tmp_path / "first")
    run(first)
    own = tmp_path / "first" / "run"
    key = "input.affinities" if name == "affinities" else "input.mask"
    second = next_file(tmp_path / "second", first)
    with pytest.raises(ConfigError, match="this run's own directory"):
        fingerprints(second, f"run_directory={own}", f"{key}={own}/{name}.zarr")


def test_a_volume_that_the_run_no_longer_writes_is_refused(tmp_path: Path) -> None:
    """Affinities in the directory of a run that an earlier petaseg gave other affinities since are nobody's."""
    first = image_file(tmp_path / "first")
    run(first)
    affinities = write_volume(tmp_path / "given.zarr", np.full((3, *SHAPE), 200, np.uint8))
    rest = {key: value for key, value in TABLES.items() if key != "inference"}
    Run.open(write_run(tmp_path / "first", input={"affinities": affinities}, **rest)).outline.write()
    with pytest.raises(VolumeError, match="no stage of that run, as it was run last, writes affinities"):
        fingerprints(next_file(tmp_path / "second", first))


def test_a_foreign_volume_beside_a_run_file_is_a_plain_input(tmp_path: Path) -> None:
    """A volume called affinities.zarr beside a run.yaml belongs to no run as long as no driver has begun there."""
    affinities = np.full((3, *SHAPE), 200, np.uint8)
    rest = {key: value for key, value in TABLES.items() if key != "inference"}
    given = [write_volume(tmp_path / folder / "affinities.zarr", affinities) for folder in ("a", "b")]
    files = [write_run(tmp_path / "a", input={"affinities": place}, **rest) for place in given]
    assert fingerprints(files[0]) == fingerprints(files[1])


def test_training_and_scores_refuse_volumes_of_an_unfinished_run(tmp_path: Path) -> None:
    """``petaseg evaluate`` and ``petaseg train`` refuse labels that a run has not finished."""
    first = image_file(tmp_path / "first")
    run_part(first, "relabel", 5)
    labels = f"{tmp_path}/first/run/labels.zarr"
    with pytest.raises(VolumeError, match="finished 5 of 8 chunks of relabel"):
        require_finished(labels)
    training = tmp_path / "train.yaml"
    volume = {"image": f"{tmp_path}/first/image.zarr", "labels": labels}
    training.write_text(
        yaml.safe_dump({"name": "a", "output": f"{tmp_path}/model", "volumes": [volume], "validation": volume})
    )
    for command in (["evaluate", labels, labels], ["train", str(training)]):
        refused = CliRunner().invoke(app, command)
        assert "finished 5 of 8 chunks of relabel" in str(refused.exception), refused
    run(first)
    assert compare_volumes(labels, labels).scores.to_dict()


class Interruption(Exception):  # noqa: N818  (not an error of the program)
    """A test stops a copy half-way with this."""


def stop_at_once(done: int, total: int) -> None:
    raise Interruption


def test_an_ingest_that_has_not_finished_is_refused_everywhere(tmp_path: Path) -> None:
    """Runs, training and scores refuse a volume until ``petaseg ingest`` has finished it."""
    source, target = str(tmp_path / "image.npy"), f"{tmp_path}/big.zarr"
    np.save(source, np.full(SHAPE, 100, np.uint8))
    with pytest.raises(Interruption):
        ingest(source, target, resolution_nm=(8, 8, 8), on_progress=stop_at_once)
    file = write_run(tmp_path, input={"image": target}, **TABLES)
    whole = write_volume(tmp_path / "whole.zarr", np.full(SHAPE, 100, np.uint8))
    for read in (
        lambda: Run.open(file),
        lambda: Run.open(file, [f"input.image={whole}", f"input.mask={target}"]),
        lambda: Run.open(file, [f"input.image={whole}", f"evaluation.labels={target}"]),
        lambda: open_source(LabelledVolume(image=whole, labels=whole, mask=target)),
        lambda: compare_volumes(whole, target),
    ):
        with pytest.raises(VolumeError, match="give the same petaseg ingest command again"):
            read()
    ingest(source, target, resolution_nm=(8, 8, 8))
    assert Run.open(file).inputs.url == target
    assert open_volume(target).spec.bounds.shape == SHAPE


def test_a_run_is_shown_and_cancelled_while_its_input_is_computed_again(tmp_path: Path) -> None:
    """``petaseg logs`` and ``petaseg cancel`` look at the run directory alone."""
    first = image_file(tmp_path / "first")
    second = next_file(tmp_path / "second", first)
    run(first)
    run(second)
    run_part(first_with_flips(first), "blend_heads", 1)
    with pytest.raises(VolumeError, match="has finished 1 of 8"):
        Run.open(second)
    command = CliRunner()
    assert command.invoke(app, ["logs", str(second)]).exit_code == 0
    ended = command.invoke(app, ["cancel", str(second)])
    assert "no driver works on" in str(ended.exception)


def first_with_flips(first: Path) -> Path:
    """The same run file with other options of the network, so that its affinities are computed again."""
    data = yaml.safe_load(first.read_text())
    data["inference"]["augmentation"] = "flips"
    first.write_text(yaml.safe_dump(data))
    return first
