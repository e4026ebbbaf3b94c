"""``petaseg export --to webknossos``: a dataset whose layer, arrays and metadata are as WEBKNOSSOS' library reads them.

The library itself reads such a dataset in ``with_webknossos.py``; here its rules are followed with zarr alone.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import zarr

from pipeline.errors import VolumeError
from pipeline.handover import hand_over, sorting
from pipeline.handover import webknossos as format_of
from pipeline.handover.webknossos import EDGE, MEMBER, local_edges
from pipeline.runs.run import Run
from pipeline.volumes import open_volume
from pipeline.volumes import webknossos as layers
from tests.handover.handed import handed_run, plain_contacts, voxels
from tests.runs import petaseg, run, write_run, write_volume
from tests.stages.test_downsample import image_run

ARRAYS = {
    "segment_to_agglomerate": "uint64",
    "agglomerate_to_segments_offsets": "uint64",
    "agglomerate_to_segments": "uint32",
    "agglomerate_to_positions": "int32",
    "agglomerate_to_edges_offsets": "uint64",
    "agglomerate_to_edges": "uint32",
    "agglomerate_to_affinities": "float32",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(handed_run(tmp_path_factory.mktemp("run")))


@pytest.fixture(scope="module")
def dataset(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("out") / "dataset"
    done = petaseg("export", finished.url, place, "--to", "webknossos")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in place.iterdir()} == {"datasource-properties.json", "segmentation"}
    return place


def attachment(dataset: Path) -> dict[str, np.ndarray]:
    group = zarr.open_group(str(dataset / "segmentation" / "agglomerates" / "neurons"), mode="r")
    assert set(group.array_keys()) == set(ARRAYS)
    return {name: np.asarray(group[name][...]) for name in ARRAYS}


def segmentation(finished: Run, dataset: Path) -> np.ndarray:
    """The voxels of the layer over the region of the run, (z, y, x)."""
    layer = zarr.open_array(str(dataset / "segmentation" / "1"), mode="r")
    roi = finished.layout.roi
    return np.asarray(layer[(0, *roi.slices()[::-1])]).T


def test_the_layer_holds_supervoxels_from_1_to_n(finished: Run, dataset: Path) -> None:
    """Ids are numbered in their order, at the place of the run, and nothing lies elsewhere."""
    ids, found = voxels(finished, "supervoxels"), segmentation(finished, dataset)
    names = np.unique(ids[ids > 0])
    assert np.array_equal(found, np.where(ids > 0, np.searchsorted(names, ids) + 1, 0))
    layer = zarr.open_array(str(dataset / "segmentation" / "1"), mode="r")
    assert (layer.dtype, layer.shape) == (np.uint32, (1, 256, 256, 256))
    assert np.count_nonzero(layer[...]) == np.count_nonzero(ids)


def test_the_metadata_are_those_of_the_format(dataset: Path) -> None:
    """Codecs, order of axes and names are the ones that WEBKNOSSOS' library writes itself."""
    properties = json.loads((dataset / "datasource-properties.json").read_text())
    assert properties["scale"] == {"factor": [6.0, 8.0, 20.0], "unit": "nanometer"}
    (layer,) = properties["dataLayers"]
    assert layer["boundingBox"] == {"topLeft": [8, 40, 4], "width": 25, "height": 23, "depth": 19}
    assert (layer["category"], layer["dataFormat"], layer["elementClass"]) == ("segmentation", "zarr3", "uint32")
    axes = {"c": 0, "x": 1, "y": 2, "z": 3}
    assert layer["mags"] == [{"mag": [1, 1, 1], "path": "./segmentation/1", "axisOrder": axes}]
    (named,) = layer["attachments"]["agglomerates"]
    assert named == {"name": "neurons", "path": "./segmentation/agglomerates/neurons", "dataFormat": "zarr3"}
    group = json.loads((dataset / named["path"] / "zarr.json").read_text())
    version = {"artifact_schema_version": 4, "artifact_class": "AgglomerateViewArtifact"}
    assert group["attributes"] == {"voxelytics": version}
    (codec,) = json.loads((dataset / "segmentation" / "1" / "zarr.json").read_text())["codecs"]
    assert codec["name"] == "sharding_indexed"
    inner = [(each["name"], each.get("configuration")) for each in codec["configuration"]["codecs"]]
    assert [name for name, _ in inner] == ["transpose", "bytes", "zstd"]
    assert inner[0][1] == {"order": [3, 2, 1, 0]}


def test_agglomerates_are_the_neurons(finished: Run, dataset: Path) -> None:
    """Every array, entry by entry, from the voxels: members, places inside, and scores of contacts within a neuron."""
    found, layer, labels = attachment(dataset), segmentation(finished, dataset), voxels(finished, "labels")
    assert {name: array.dtype.name for name, array in found.items()} == ARRAYS
    count = int(layer.max())
    neuron_of = np.zeros(count + 1, np.uint64)
    neuron_of[layer] = labels
    neurons, number = np.unique(neuron_of[1:], return_inverse=True)
    assert found["segment_to_agglomerate"].tolist() == [0, *(number + 1).tolist()]
    offsets, ends = found["agglomerate_to_segments_offsets"], found["agglomerate_to_edges_offsets"]
    assert len(offsets) == len(ends) == len(neurons) + 2
    expected = {
        pair: sum(value for _, value in faces) / (255 * len(faces))
        for pair, faces in plain_contacts(finished, layer).items()
        if neuron_of[pair[0]] == neuron_of[pair[1]]
    }
    edges = {}
    for i in range(1, len(neurons) + 1):
        members = found["agglomerate_to_segments"][offsets[i] : offsets[i + 1]]
        assert members.tolist() == (np.flatnonzero(number == i - 1) + 1).tolist()
        own = slice(ends[i], ends[i + 1])
        local = found["agglomerate_to_edges"][own].tolist()
        assert local == sorted(local)
        assert all(a < b for a, b in local)
        named = [(int(members[a]), int(members[b])) for a, b in local]
        edges.update(zip(named, found["agglomerate_to_affinities"][own].tolist(), strict=True))
    assert edges == {pair: float(np.float32(score)) for pair, score in expected.items()}
    places = found["agglomerate_to_positions"][:, ::-1] - np.array(finished.layout.roi.start)
    assert np.array_equal(layer[tuple(places.T)], found["agglomerate_to_segments"])


def test_the_files_do_not_depend_on_chunks_buckets_or_shards_of_rows(
    finished: Run, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another chunk shape and many small buckets give the same bytes; small shards hold the same rows."""
    monkeypatch.setattr(sorting, "LEAST_WIDTH", 700)
    monkeypatch.setattr(sorting, "WAITING", 50)
    other = run(handed_run(tmp_path / "run", (7, 24, 9)))
    hand_over(other, str(tmp_path / "dataset"), "webknossos")
    for path in (path for path in dataset.rglob("*") if path.is_file()):
        assert (tmp_path / "dataset" / path.relative_to(dataset)).read_bytes() == path.read_bytes(), path
    monkeypatch.setattr(layers, "ROW_CHUNK_BYTES", 64)
    monkeypatch.setattr(layers, "ROW_SHARD_BYTES", 256)
    hand_over(finished, str(tmp_path / "small"), "webknossos")
    first, small = attachment(dataset), attachment(tmp_path / "small")
    assert all(np.array_equal(first[name], small[name]) for name in ARRAYS)


def test_parts_that_do_not_touch_are_connected() -> None:
    """A neuron in three parts, as far affinities and corrections leave it, gets edges to its first supervoxel."""
    members = np.zeros(7, MEMBER)
    members["neuron"], members["segment"] = [4, 4, 4, 4, 4, 9, 9], [2, 3, 5, 7, 8, 4, 6]
    edges = np.array([(4, 3, 7, 0.5), (4, 5, 8, 0.25), (9, 4, 6, 0.75)], EDGE)
    places, scores, counts = local_edges(members, edges)
    assert places.tolist() == [[0, 1], [0, 2], [1, 3], [2, 4], [0, 1]]
    assert scores.tolist() == [1.0, 1.0, 0.5, 0.25, 0.75]
    assert counts.tolist() == [4, 1]


def test_the_image_is_a_layer_beside(tmp_path: Path) -> None:
    """An image of bytes becomes a layer of color, voxel by voxel."""
    given = {"start": [4, 0, 9], "stop": [23, 20, 38]}
    file = image_run(tmp_path, input={"image": str(tmp_path / "image.zarr"), **given})
    finished = run(file)
    hand_over(finished, str(tmp_path / "dataset"), "webknossos")
    roi = finished.layout.roi
    color = zarr.open_array(str(tmp_path / "dataset" / "color" / "1"), mode="r")
    assert np.array_equal(np.asarray(color[(0, *roi.slices()[::-1])]).T, open_volume(finished.inputs.url).read(roi))
    properties = json.loads((tmp_path / "dataset" / "datasource-properties.json").read_text())
    assert [layer["category"] for layer in properties["dataLayers"]] == ["segmentation", "color"]


def test_voxels_before_0_are_refused(tmp_path: Path) -> None:
    affinities = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 8)).astype(np.uint8)
    source = write_volume(tmp_path / "affinities.zarr", affinities, start=(0, -3, 0))
    finished = run(write_run(tmp_path, input={"affinities": source}))
    with pytest.raises(VolumeError, match=r"voxels of WEBKNOSSOS lie from 0 to 2\^31 along each axis: give the input"):
        hand_over(finished, str(tmp_path / "dataset"), "webknossos")
    assert not (tmp_path / "dataset").exists()


def test_more_ids_than_32_bits_hold_are_64_bits() -> None:
    ids = np.broadcast_to(np.uint64(1), 2**32)
    assert format_of.Numbers(ids[1:], ids[1:], ids[:0]).dtype == np.uint32
    assert format_of.Numbers(ids, ids, ids[:0]).dtype == np.uint64
