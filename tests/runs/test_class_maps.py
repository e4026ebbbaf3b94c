"""Class maps: the most probable class of each voxel, exact in any chunks, counted, scored, shown and handed on."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import distributed  # noqa: F401  (its defaults are there before the first test, so that they stay)
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import petaseg
from pipeline.errors import ConfigError, VolumeError
from pipeline.geometry import Vec
from pipeline.runs.class_summary import summarise_classes
from pipeline.runs.exported import exported
from pipeline.runs.plan import make_plan
from pipeline.runs.report import write_report
from pipeline.runs.run import Run
from pipeline.runs.seams import seam_report
from pipeline.runs.status import RunWatch
from pipeline.runs.verify import verify_run
from pipeline.segmentation.pyramid import majority, most_frequent
from pipeline.viewing.layers import layers_of_run
from pipeline.viewing.report_page import write_page
from pipeline.volumes import open_volume
from tests.heads import heads_run, write_model
from tests.object_runs import result_of
from tests.runs import petaseg as command
from tests.runs import results, run, write_run, write_volume
from workflows.terminal.report import report_table
from workflows.terminal.summary import show_summary

SHAPE = (12, 14, 16)
RANDOM = np.random.default_rng(0)
STORED = RANDOM.integers(0, 4, (3, *SHAPE)).astype(np.uint8) * 60
"""Probabilities of three classes with many ties."""
TISSUE = RANDOM.random(SHAPE) < 0.8
TRUTH = RANDOM.integers(0, 4, SHAPE).astype(np.int16) - 1
EXPECTED = np.where(TISSUE, STORED.argmax(0), 0)


def write(folder: Path, stored: np.ndarray = STORED, truth: np.ndarray = TRUTH, **tables: Any) -> Path:
    """A run file for a class map of a given head, with a mask and true classes, of which -1 is not scored."""
    folder.mkdir(parents=True, exist_ok=True)
    given = {
        "heads": {"classes": write_volume(folder / "classes.zarr", stored)},
        "mask": write_volume(folder / "mask.zarr", TISSUE.astype(np.uint8)),
    }
    default: dict[str, Any] = {
        **{"input": given, "chunk_shape": [6, 4, 8], "storage_chunk_shape": [2, 2, 2]},
        **{"segmentation": {"kind": "classes"}, "downsample": {"levels": 2}, "measures": {}},
        "evaluation": {"labels": write_volume(folder / "truth.zarr", truth)},
    }
    return write_run(folder, **{**default, **tables})


# -- the voxels -----------------------------------------------------------------------------------------------------


def test_each_voxel_has_its_most_probable_class(tmp_path: Path) -> None:
    """The map is numpy's argmax over the stored numbers, of equal ones the first; masked voxels are 0."""
    finished = run(write(tmp_path))
    found = result_of(finished)
    assert (found.dtype, finished.kind.volume) == (np.uint8, "class_map")
    np.testing.assert_array_equal(found, EXPECTED)


def test_chunks_and_executors_change_no_byte(tmp_path: Path) -> None:
    """Any chunk shape and any executor give the same bytes and the same sums, and the run is proven."""
    file = write(tmp_path)
    first = run(file)
    for name, changes in {
        "whole": ["chunk_shape=[12,14,16]"],
        "threads": ["chunk_shape=[2,14,16]", "execution.executor=threads"],
        "dask": ["execution.executor=dask", "execution.workers=2"],
    }.items():
        other = run(file, f"run_directory={tmp_path}/{name}", *changes)
        assert results(other) == results(first)
        assert summarise_classes(other).classes == summarise_classes(first).classes
        assert write_report(other).scores == write_report(first).scores
        assert all(proof.proven for proof in verify_run(other, None, seed=0))


@settings(max_examples=8)
@given(
    shape=st.tuples(*(st.integers(3, 14) for _ in range(3))),
    chunk=st.tuples(*(st.integers(2, 9) for _ in range(3))),
    count=st.integers(2, 6),
    levels=st.integers(1, 5),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_random_head_in_random_chunks(
    shape: tuple[int, int, int], chunk: tuple[int, int, int], count: int, levels: int, seed: int
) -> None:
    """A head of random classes with many ties gives numpy's argmax in random chunks, as a float head does."""
    stored = np.random.default_rng(seed).integers(0, levels, (count, *shape)).astype(np.uint8) * 51
    with TemporaryDirectory() as name:
        for kind, voxels in (("uint8", stored), ("float", stored.astype(np.float32) / 255)):
            place = write_volume(Path(name) / f"{kind}.zarr", voxels)
            head = {"heads": {"classes": place if kind == "float" else f"{place}#scale=255"}}
            shapes = {"chunk_shape": list(chunk), "storage_chunk_shape": list(chunk)}
            file = write_run(Path(name) / kind, input=head, segmentation={"kind": "classes"}, **shapes)
            np.testing.assert_array_equal(result_of(run(file)), stored.argmax(0))


def test_a_network_makes_a_class_map_of_its_head(tmp_path: Path) -> None:
    """Only the head of classes is stored, and the map is the argmax of what is stored."""
    finished = run(heads_run(tmp_path, None, segmentation={"kind": "classes"}))
    stored = open_volume(finished.layout.volume_url("classes"))[...]
    assert finished.inputs.heads == ("classes",)
    np.testing.assert_array_equal(result_of(finished), stored.argmax(0))


def test_another_kind_and_back_in_one_run_directory(tmp_path: Path) -> None:
    """A mask of one class and the class map need no other prediction, and each is as if it had been made alone."""
    file = write(tmp_path, measures=None, downsample=None)
    mask = ["segmentation.kind=mask", "segmentation.head=classes:1:argmax", "segmentation.threshold=0.5"]
    run(file)
    np.testing.assert_array_equal(result_of(run(file, *mask)), EXPECTED * TISSUE == 1)
    np.testing.assert_array_equal(result_of(run(file)), EXPECTED)


# -- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["classes:1", "classes:1:argmax"])
def test_one_channel_of_a_head_makes_no_class_map(tmp_path: Path, head: str) -> None:
    with pytest.raises(ConfigError, match=f"'{head}', and a class map is made of all channels of a head: set it to"):
        Run.open(write(tmp_path, segmentation={"kind": "classes", "head": head}))


@pytest.mark.parametrize("channels", [None, 257])
def test_a_head_without_classes_is_refused(tmp_path: Path, channels: int | None) -> None:
    """A head of one channel, and one with more channels than uint8 tells apart, are refused with what is needed."""
    stored = np.full((*(() if channels is None else (channels,)), *SHAPE), 255, np.uint8)
    with pytest.raises(ConfigError, match=f"has {channels or 1} channels .*for each of 2 to 256 classes"):
        Run.open(write(tmp_path, stored))


@pytest.mark.parametrize("head", ["shape_descriptors", "flow", "membranes", "instance_distance"])
def test_other_heads_of_a_network_are_refused(tmp_path: Path, head: str) -> None:
    """Channels that are no probabilities of classes are refused, though there are several."""
    with pytest.raises(ConfigError, match=rf"head {head} has \d+ channels of \w+ values; a class map needs"):
        Run.open(heads_run(tmp_path, None, segmentation={"kind": "classes", "head": head}))


def test_a_model_without_classes_is_refused(tmp_path: Path) -> None:
    """The message names the heads that there are."""
    file = heads_run(tmp_path, None, segmentation={"kind": "classes"})
    others = [{"what": "foreground", "channels": 1}, {"what": "contours", "channels": 1}]
    write_model(tmp_path / "model", others)
    with pytest.raises(ConfigError, match=r"there is no head called classes; say .*foreground, contours"):
        Run.open(file)


def test_ids_as_true_classes_are_refused(tmp_path: Path) -> None:
    """A ground truth with an id above 255 is refused before anything is computed."""
    with pytest.raises(VolumeError, match=r"truth\.zarr holds 300; classes are from 0 to 255"):
        Run.open(write(tmp_path, truth=np.full(SHAPE, 300, np.uint32)))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("options", [[], ["--preview", "0.4"], ["--output", "other.zarr"]])
def test_a_class_map_is_not_relabelled(tmp_path: Path, options: list[str]) -> None:
    """Relabel says that there is no threshold and what to do instead, and writes nothing."""
    finished = run(write(tmp_path))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    said = command("relabel", str(tmp_path / "run.yaml"), *options)
    assert said.returncode != 0
    assert "makes a class map, which has no threshold and nothing to relabel" in said.stderr.replace("\n", " ")
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    with pytest.raises(ConfigError, match="has no threshold"):
        _ = finished.threshold


# -- what is said and scored ----------------------------------------------------------------------------------------


def test_the_summary_counts_the_voxels_of_each_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Voxels of each class, without those that are masked, are counted and shown with their shares."""
    finished = run(write(tmp_path))
    summary = summarise_classes(finished)
    assert summary.classes == tuple(int((TISSUE & (number == EXPECTED)).sum()) for number in range(3))
    assert (summary.masked, summary.voxels, summary.warnings) == (int((~TISSUE).sum()), TISSUE.size, ())
    show_summary(summary)
    said = capsys.readouterr().out
    assert "3 of 3 classes found" in said
    assert f"{summary.classes[1]:,}" in said
    assert f"masked            {summary.masked:,} voxels, stored as 0" in said
    write_report(finished)
    stored = json.loads(finished.store.get("report/summary.json"))
    assert (stored["classes"], stored["kind"]) == (list(summary.classes), "classes")


def test_a_map_of_one_class_and_a_mask_of_everything_are_warned_of(tmp_path: Path) -> None:
    """A class that no voxel has is no warning; one that all have is."""
    stored = np.zeros((3, *SHAPE), np.uint8)
    stored[1] = 255
    (warning,) = summarise_classes(run(write(tmp_path / "one", stored))).warnings
    assert warning.startswith("all voxels have class 1: ")
    file = write(tmp_path / "none")
    write_volume(tmp_path / "none" / "nothing.zarr", np.zeros(SHAPE, np.uint8))
    (warning,) = summarise_classes(run(file, f"input.mask={tmp_path}/none/nothing.zarr")).warnings
    assert warning.startswith(f"the mask excludes all {TISSUE.size:,} voxels")


def test_scores_are_those_of_the_volumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run scores its map as ``petaseg evaluate --as classes`` scores the two volumes; marks are left out."""
    finished = run(write(tmp_path))
    report = write_report(finished)
    assert report.scores == petaseg.evaluate(EXPECTED, TRUTH, as_="classes")
    assert report.scores.not_scored == (TRUTH == -1).sum()
    one = report.scores.classes[1]
    assert one.precision == ((EXPECTED == 1) & (TRUTH == 1)).sum() / ((EXPECTED == 1) & (TRUTH >= 0)).sum()
    assert one.recall == ((EXPECTED == 1) & (TRUTH == 1)).sum() / (TRUTH == 1).sum()
    report_table(finished, report)
    said = capsys.readouterr().out
    assert "against ground truth\n" in said
    assert "precision" in said
    assert "class_map.zarr" in said.replace("\n", "")


def test_a_truth_without_anything_to_score_is_refused(tmp_path: Path) -> None:
    finished = run(write(tmp_path, truth=np.full(SHAPE, -1, np.int16)))
    with pytest.raises(VolumeError, match=r"no voxel of .*truth\.zarr in .* is to be scored"):
        write_report(finished)


# -- handing on -----------------------------------------------------------------------------------------------------


def test_coarser_levels_count_the_background(tmp_path: Path) -> None:
    """A coarse voxel has the class that most of its voxels have, 0 among them, of several the smallest."""
    finished = run(write(tmp_path))
    level = open_volume(f"{finished.result_url}#mip=1")[...]
    blocks = EXPECTED.reshape(6, 2, 7, 2, 8, 2).transpose(0, 2, 4, 1, 3, 5).reshape(6, 7, 8, 8)
    counts = (blocks[..., None] == np.arange(3)).sum(3)
    np.testing.assert_array_equal(level, counts.argmax(-1))
    block = np.array([[[0, 0], [0, 5]], [[5, 7], [0, 5]]], np.uint8)
    two, first = Vec(2, 2, 2), Vec(0, 0, 0)
    assert (most_frequent(block, two, first).item(), majority(block, two, first).item()) == (0, 5)


def test_measures_have_a_row_for_each_class(tmp_path: Path) -> None:
    """The tables say how large each class is and where classes touch; class 0 has no row, as no object has."""
    import pyarrow.parquet as pq

    run(write(tmp_path))
    table = pq.read_table(tmp_path / "run" / "tables" / "objects.parquet").to_pydict()
    assert table["id"] == [1, 2]
    assert table["voxels"] == [int((number == EXPECTED).sum()) for number in (1, 2)]
    contacts = pq.read_table(tmp_path / "run" / "tables" / "contacts.parquet").to_pydict()
    assert (contacts["a"], contacts["b"]) == ([1], [2])


def test_a_viewer_and_an_export_have_the_map(tmp_path: Path) -> None:
    """The map is a layer of labels with its levels, and the volume that is exported; a page about the run has it."""
    finished = run(write(tmp_path))
    layers = {layer.name: layer for layer in layers_of_run(finished)}
    assert set(layers) == {"classes", "class_map", "truth"}
    layer = layers["class_map"]
    assert (layer.kind, layer.selected, len(layer.served.levels)) == ("segmentation", (), 3)
    assert layer.served.info()["data_type"] == "uint32"
    assert exported(finished, None).name == "class_map"
    assert write_page(finished).place.endswith("report.html")
    page = (tmp_path / "run" / "report" / "report.html").read_text()
    assert f"<td>2</td><td>{summarise_classes(finished).classes[2]:,}</td>" in page
    assert "meshes" not in page
    assert {test.number for test in seam_report(finished)} >= {"agreement"}


@pytest.mark.parametrize("form", ["tiff", "hdf5", "ome-zarr", "precomputed"])
def test_every_form_of_export_takes_a_class_map(tmp_path: Path, form: str) -> None:
    run(write(tmp_path))
    output = {"tiff": "out.tif", "hdf5": "out.h5", "ome-zarr": "out.ome.zarr", "precomputed": "out"}[form]
    said = command("export", str(tmp_path / "run.yaml"), str(tmp_path / output), "--to", form)
    assert said.returncode == 0, said.stderr
    place = f"precomputed://{tmp_path / output}" if form == "precomputed" else str(tmp_path / output)
    np.testing.assert_array_equal(open_volume(place)[...], EXPECTED)


def test_plan_and_status_know_the_stage(tmp_path: Path) -> None:
    """A plan counts a byte a voxel, and the outline of a run has no threshold."""
    opened = Run.open(write(tmp_path))
    stages = {stage.name: stage for stage in make_plan(opened).stages}
    assert stages["write_classes"].bytes_uncompressed == TISSUE.size
    assert RunWatch(run(tmp_path / "run.yaml").outline).read().threshold is None


def test_the_library_runs_a_class_map(tmp_path: Path) -> None:
    """``petaseg.run`` gives the map and its scores without a threshold, and ``petaseg.relabel`` is refused."""
    result = petaseg.run(write(tmp_path))
    np.testing.assert_array_equal(result.labels[...], EXPECTED)
    assert result.threshold is None
    assert repr(result).startswith(f"<finished run {tmp_path}/run, mean IoU ")
    assert result.scores is not None
    with pytest.raises(ConfigError, match="nothing to relabel"):
        petaseg.relabel(result)
