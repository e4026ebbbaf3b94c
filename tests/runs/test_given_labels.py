"""Labels of any program become the result of a run: they get levels, meshes, tables, scores, a page, and proof."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.errors import ConfigError, PetasegError
from pipeline.runs.run import Run
from pipeline.runs.summary import summarise
from pipeline.runs.verify import verify_run
from pipeline.viewing.layers import layers_of_run
from pipeline.volumes import open_volume
from tests.runs import petaseg, run, write_run, write_volume

SHAPE = (20, 24, 28)


def labels(seed: int = 0) -> np.ndarray:
    """Blocks with ids of 64 bits, some of them 0."""
    ids = np.random.default_rng(seed).integers(0, 6, (5, 4, 4)).astype(np.uint64)
    return np.kron(ids, np.ones((4, 6, 7), np.uint64)) << np.uint64(40)


def labels_run(folder: Path, chunk: tuple[int, int, int] = (10, 12, 14), **tables: Any) -> Path:
    folder.mkdir(exist_ok=True)
    given = {"labels": write_volume(folder / "labels.zarr", labels()), **tables.pop("input", {})}
    shapes = {"chunk_shape": list(chunk), "storage_chunk_shape": list(chunk)}
    return write_run(folder, input=given, segmentation={"kind": "labels"}, **shapes, **tables)


def files(folder: Path) -> dict[str, bytes]:
    places = [folder / "run" / name for name in ("segmentation.zarr", "meshes", "tables")]
    found = (path for place in places for path in sorted(place.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found if path.name != "zarr.json"}


def test_the_result_is_the_labels_with_all_that_neurons_get(tmp_path: Path) -> None:
    """The ids stay as they are; levels, meshes, tables and scores are made, and every chunk is proven."""
    truth = write_volume(tmp_path / "truth.zarr", labels())
    file = labels_run(tmp_path, downsample={}, meshes={"smallest_voxels": 9}, evaluation={"labels": truth})
    finished = run(file)
    assert (open_volume(finished.result_url).read(finished.layout.roi) == labels()).all()
    ids, voxels = np.unique(labels()[labels() > 0], return_counts=True)
    table = pq.read_table(tmp_path / "run/tables/objects.parquet")
    assert dict(zip(table["id"].to_pylist(), table["voxels"].to_pylist(), strict=True)) == dict(
        zip(ids.tolist(), voxels.tolist(), strict=True)
    )
    found = summarise(finished)
    assert (found.segments, found.labelled, found.threshold) == (len(ids), int(voxels.sum()), None)
    assert (tmp_path / "run/meshes/info").exists()
    assert all(proof.proven for proof in verify_run(finished, None, seed=0))
    said = petaseg("run", file)
    assert said.returncode == 0, said.stderr
    assert "VOI total" in said.stdout
    assert petaseg("report", file).returncode == 0


def test_any_chunk_shape_gives_the_same_bytes(tmp_path: Path) -> None:
    """Meshes and tables of another chunking are the same files; the voxels are the same."""
    for name, chunk in (("one", (10, 12, 14)), ("other", (20, 8, 28))):
        run(labels_run(tmp_path / name, chunk, meshes={"smallest_voxels": 9}))
    one, other = (files(tmp_path / name) for name in ("one", "other"))
    shapes = {name: data for name, data in one.items() if "segmentation" not in name}
    assert shapes
    assert shapes == {name: data for name, data in other.items() if "segmentation" not in name}


def test_a_mask_and_marks_make_zeros(tmp_path: Path) -> None:
    """Voxels outside of the tissue have no label, nor have those of a mark such as -1."""
    signed = (labels() >> np.uint64(40)).astype(np.int64)
    signed[0] = -1
    mask = np.ones(SHAPE, np.uint8)
    mask[:, 3:9] = 0
    given = {"labels": write_volume(tmp_path / "signed.zarr", signed)}
    given["mask"] = write_volume(tmp_path / "mask.zarr", mask)
    finished = run(labels_run(tmp_path, input=given))
    assert (open_volume(finished.result_url).read(finished.layout.roi) == np.where(mask, signed, 0).clip(0)).all()
    assert summarise(finished).masked == int((mask == 0).sum())


def test_an_image_beside_the_labels_is_shown_and_runs_no_network(tmp_path: Path) -> None:
    """The image is a layer of the viewer with its levels; the run has no prediction; it exports like any image."""
    image = write_volume(tmp_path / "image.zarr", np.full(SHAPE, 90, np.uint8))
    finished = run(labels_run(tmp_path, input={"image": image}, downsample={"levels": 1}))
    assert [stage.name for stage in finished.stages][:1] == ["take_labels"]
    assert [layer.name for layer in layers_of_run(finished)] == ["image", "segmentation"]
    said = petaseg("export", finished.url, tmp_path / "out.tiff", "--to", "tiff", "--volume", "image")
    assert said.returncode == 0, said.stderr


def test_relabel_says_that_nothing_can_be_cut(tmp_path: Path) -> None:
    """Labels that were given have no threshold, and the command says so."""
    finished = run(labels_run(tmp_path))
    said = petaseg("relabel", finished.url, "--threshold", "0.4")
    assert said.returncode == 1
    assert "segmentation.threshold is for kind" in said.stderr


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"segmentation": {"kind": "neurons"}}, "set segmentation.kind to labels"),
        ({"segmentation": {"kind": "labels", "threshold": 0.5}}, "segmentation.threshold is for kind"),
        ({"segmentation": {"kind": "labels", "min_size": 9}}, "segmentation.min_size is for kind"),
        ({"input": {"affinities": "affinities.zarr"}}, "exactly one of"),
        ({"input": {"image": "small.zarr"}}, "all must have the same voxels"),
        ({"input": {"labels": "floats.zarr"}}, "the segmentation .* labels must be integers"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    """Keys of other kinds, two sources, an image elsewhere and voxels that are no labels are refused at once."""
    write_volume(tmp_path / "small.zarr", np.zeros((4, 4, 4), np.uint8))
    write_volume(tmp_path / "floats.zarr", np.zeros(SHAPE, np.float32))
    tables = {"segmentation": {"kind": "labels"}, **change}
    tables["input"] = {"labels": write_volume(tmp_path / "labels.zarr", labels()), **tables.pop("input", {})}
    with pytest.raises(PetasegError, match=says):
        Run.open(write_run(tmp_path, **tables))


def test_labels_without_a_volume_are_refused(tmp_path: Path) -> None:
    """``kind: labels`` needs labels, and the message names the key."""
    image = write_volume(tmp_path / "image.zarr", np.zeros(SHAPE, np.uint8))
    with pytest.raises(ConfigError, match="name them in input"):
        Run.open(write_run(tmp_path, input={"image": image}, segmentation={"kind": "labels"}))
