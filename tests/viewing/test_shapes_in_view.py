"""Meshes and properties of a run in the viewer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.runs.run import Run
from pipeline.viewing.layers import layers_of_run
from pipeline.viewing.properties import properties_of
from pipeline.viewing.server import ServedLayer
from tests.runs import petaseg, run, write_run, write_volume
from tests.shapes.test_skeletons import several

WALL = 20


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two blocks of neurons side by side, with levels, meshes and measures."""
    affinities = np.full((3, 32, 32, 48), 250, np.uint8)
    affinities[:, :, :, WALL : WALL + 2] = 0
    folder = tmp_path_factory.mktemp("shapes")
    given = {"affinities": write_volume(folder / "affinities.zarr", affinities)}
    branches = {"downsample": {}, "meshes": {"smallest_voxels": 100}, "measures": {}}
    return run(write_run(folder, input=given, **branches))


def test_the_selected_neuron_is_seen_in_3d(finished: Run, tmp_path: Path) -> None:
    """In 3D a picture has many pixels of the selected neuron's mesh, and another neuron has another colour."""
    shares = []
    for number, label in enumerate(finished_labels(finished)[:2]):
        look = tmp_path / f"{number}.png"
        words = ("--layout", "3d", "--segment", label, "--size", "500x400", "--screenshot", look)
        assert petaseg("view", finished.url, *words).returncode == 0
        with Image.open(look) as image:
            pixels = np.asarray(image.convert("RGB")).astype(int)
        frame = (pixels[..., :2] > 180).all(-1) & (pixels[..., 2] < 60)
        coloured = (pixels.max(-1) - pixels.min(-1) > 40) & ~frame
        shares.append(coloured.mean())
        middle = np.median(pixels[coloured], axis=0)
        shares.append(tuple(middle))
    assert min(shares[0], shares[2]) > 0.02
    assert shares[1] != shares[3]


def test_skeletons_are_seen_in_3d(tmp_path: Path) -> None:
    """A run that has skeletons and no meshes shows lines, those of the selected neuron alone."""
    labels = write_volume(tmp_path / "given.zarr", several(), (32, 32, 32))
    rules = {"segmentation": {"kind": "labels"}, "skeletons": {"smallest_voxels": 1}}
    shapes = {"chunk_shape": [64, 64, 64], "storage_chunk_shape": [64, 64, 64]}
    made = run(write_run(tmp_path, input={"labels": labels}, **rules, **shapes))
    layer = layers_of_run(made)[-1]
    served = ServedLayer(layer.served, layer.properties, layer.folders)
    assert json.loads(served.find("skeletons/info")[0])["@type"] == "neuroglancer_skeletons"
    seen = []
    for label in (1, 2):
        look = tmp_path / f"{label}.png"
        words = ("--layout", "3d", "--segment", label, "--size", "500x400", "--screenshot", look)
        assert petaseg("view", made.url, *words).returncode == 0
        with Image.open(look) as image:
            pixels = np.asarray(image.convert("RGB")).astype(int)
        seen.append(pixels.max(-1) - pixels.min(-1) > 40)
    alone = [seen[0] & ~seen[1], seen[1] & ~seen[0]]
    assert min(lines.sum() for lines in alone) > 150


def finished_labels(finished: Run) -> list[int]:
    """The labels of the run that are shown at first, the largest first."""
    return list(layers_of_run(finished)[-1].selected)


def test_the_layer_names_meshes_and_properties(finished: Run) -> None:
    """The info of the labels points at meshes and properties, which list neurons by size."""
    layer = layers_of_run(finished)[-1]
    served = ServedLayer(layer.served, layer.properties, layer.folders)
    info = served.info()
    assert (info["mesh"], info["segment_properties"]) == ("mesh", "properties")
    assert json.loads(served.find("mesh/info")[0])["@type"] == "neuroglancer_multilod_draco"
    inline = json.loads(served.find("properties/info")[0])["inline"]
    assert list(map(int, inline["ids"])) == finished_labels(finished)
    voxels = next(each for each in inline["properties"] if each["id"] == "voxels")["values"]
    assert voxels == sorted(voxels, reverse=True)


def test_only_the_largest_have_properties() -> None:
    """Of more segments than a browser holds the largest are listed; of equal ones the smaller id comes first."""
    table = {
        "id": np.array([5, 6, 7, 8], np.uint64),
        "voxels": np.array([10, 30, 30, 20]),
        "volume_nm3": np.array([1e9, 3e9, 3e9, 2e9]),
        "surface_nm2": np.ones(4),
        "touches_border": np.array([True, False, True, False]),
    }
    inline = properties_of(table, most=3)["inline"]
    assert inline["ids"] == ["6", "7", "8"]
    assert inline["properties"][1]["values"] == [3.0, 3.0, 2.0]
    assert inline["properties"][-1]["values"] == [[], [0], []]
