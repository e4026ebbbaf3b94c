"""A run stores the heads that it names, each as a volume of its own, and resumes and proves them like affinities."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ConfigError, VolumeError
from pipeline.runs.directory import discard
from pipeline.runs.origin import origin_of
from pipeline.runs.plan import make_plan
from pipeline.runs.run import Run
from pipeline.runs.verify import verify_run
from pipeline.stages import opened
from pipeline.volumes import open_volume
from tests.heads import EVERY_HEAD, SHAPE, heads_run, write_model
from tests.runs import run, write_run, write_volume
from workflows.driver import segment

HEADS = ["affinities", "classes", "flow", "membranes"]


def voxels(folder: Path, name: str) -> np.ndarray:
    opened.forget()
    volume = open_volume(str(folder / "run" / f"{name}.zarr"))
    return volume.read(volume.spec.bounds)


def test_each_head_is_a_volume_that_says_what_its_numbers_mean(tmp_path: Path) -> None:
    finished = run(heads_run(tmp_path, HEADS))
    shapes = {name: voxels(tmp_path, name).shape for name in HEADS}
    assert shapes == {
        **{"affinities": (3, *SHAPE), "classes": (3, *SHAPE), "flow": (2, *SHAPE), "membranes": SHAPE},
    }
    stored = json.loads((tmp_path / "run" / "membranes.zarr" / "zarr.json").read_text())["attributes"]
    assert stored["petaseg_head"] == {
        **{"name": "membranes", "mapping": "probability", "stored": "round(255 v)", "at_0": 0.0, "at_255": 1.0},
    }
    assert stored["petaseg"] == {"made": True}
    assert stored["ome"]["multiscales"]
    assert all(proof.proven for proof in verify_run(finished, sample=None, seed=0))
    assert segment(str(tmp_path / "run.yaml")).seconds == {}


def test_heads_do_not_depend_on_the_chunks(tmp_path: Path) -> None:
    run(heads_run(tmp_path / "a", HEADS))
    run(heads_run(tmp_path / "b", HEADS, chunk=(12, 7, 22)))
    for name in HEADS:
        np.testing.assert_array_equal(voxels(tmp_path / "a", name), voxels(tmp_path / "b", name))


def test_a_run_that_names_no_heads_stores_affinities_alone(tmp_path: Path) -> None:
    run(heads_run(tmp_path, None))
    assert sorted(path.name for path in (tmp_path / "run").glob("*.zarr")) == [
        *("affinities.zarr", "fragments.zarr", "labels.zarr", "supervoxels.zarr"),
    ]


def test_a_damaged_voxel_of_any_head_is_found(tmp_path: Path) -> None:
    finished = run(heads_run(tmp_path, HEADS))
    volume = open_volume(str(tmp_path / "run" / "membranes.zarr"), mode="r+")
    array = volume.read(volume.spec.bounds)
    array[3, 4, 5] ^= 1
    volume.write(volume.spec.bounds, array)
    assert not all(proof.proven for proof in verify_run(finished, sample=None, seed=0))


def test_the_plan_counts_the_bytes_of_every_head(tmp_path: Path) -> None:
    plan = make_plan(Run.open(heads_run(tmp_path, HEADS)))
    assert plan.stages[0].bytes_uncompressed == 9 * np.prod(SHAPE)


def test_a_head_of_an_unfinished_run_is_refused_as_an_input_of_another(tmp_path: Path) -> None:
    """Also a head that only this model has."""
    first = Run.open(heads_run(tmp_path, HEADS))
    first.create()
    for stage in first.stages[:1]:
        stage.prepare()
    for name in ("membranes", "flow"):
        origin = origin_of(str(tmp_path / "run" / f"{name}.zarr"))
        assert origin is not None
        assert (origin.stage.name, origin.volume) == ("predict_heads", name)
        with pytest.raises(VolumeError, match="finished 0 of 8 chunks of predict_heads"):
            origin.require_finished(name)


def test_the_heads_of_a_run_are_deleted_with_its_results(tmp_path: Path) -> None:
    finished = run(heads_run(tmp_path, HEADS))
    discard(finished.store)
    assert not list((tmp_path / "run").glob("*.zarr"))


@pytest.mark.parametrize(
    ("inference", "message"),
    [
        ({"heads": ["affinities", "clefts"]}, r"no head 'clefts'; it predicts affinities, membranes, signed_distance"),
        ({"heads": ["classes"]}, r"neurons are made of affinities or membranes, and this run has"),
        ({"heads": []}, r"and this run has neither: add one to inference\.heads"),
        ({"heads": ["affinities", "depth"]}, r"head depth of model every-head has activation none"),
        ({"heads": ["affinities", "flow"], "augmentation": "flips"}, r"not known how the 2 channels of head flow"),
    ],
)
def test_heads_that_do_not_fit_are_refused(tmp_path: Path, inference: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Run.open(heads_run(tmp_path, None, inference=inference))


def test_a_head_that_is_called_like_the_volume_of_another_stage_is_refused(tmp_path: Path) -> None:
    file = heads_run(tmp_path, ["affinities", "labels"])
    write_model(tmp_path / "model", [*EVERY_HEAD, {"what": "labels", "channels": 1}])
    with pytest.raises(ConfigError, match="head labels of model every-head is called like a volume"):
        Run.open(file)


def test_a_faint_head_of_a_run_is_taken_as_it_is(tmp_path: Path) -> None:
    """A run says what its numbers mean, so tissue without an object, where all is low, is not taken for percent."""
    dark = {"offset": 400, "scale": 100}
    model = write_model(tmp_path, [{"what": "membranes", "channels": 1}], normalisation=dark)
    run(heads_run(tmp_path / "first", ["membranes"], inference={"model": model}))
    largest = voxels(tmp_path / "first", "membranes")[:, 10:, 10:].max()
    assert 0 < largest < 128
    opened.forget()
    start = {"start": [0, 10, 10]}  # the first corner of the image is empty, and membranes are 255 there
    heads = {"membranes": str(tmp_path / "first" / "run" / "membranes.zarr")}
    assert Run.open(write_run(tmp_path / "second", input={"heads": heads, **start})).inputs.given[0].name == "membranes"
    copied = write_volume(tmp_path / "copied.zarr", voxels(tmp_path / "first", "membranes"))
    with pytest.raises(VolumeError, match=f"none is larger than {largest}"):
        Run.open(write_run(tmp_path / "third", input={"heads": {"membranes": copied}, **start}))


def test_a_head_called_like_the_extremes_of_another_is_refused(tmp_path: Path) -> None:
    """Two heads would write membranes_least.zarr: refused before anything is computed, with what to change."""
    heads = [{"what": "membranes", "channels": 1}, {"what": "membranes_least", "channels": 1}]
    model = write_model(tmp_path / "model2", heads)
    copies = {"augmentation": "flips", "augmentation_rule": "mean+extremes"}
    file = heads_run(tmp_path, ["affinities", "membranes", "membranes_least"], inference={"model": model, **copies})
    with pytest.raises(ConfigError, match=r"mean\+extremes, which stores membranes_least.zarr for another head"):
        Run.open(file)
