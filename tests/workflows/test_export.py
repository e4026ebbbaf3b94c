"""Exports are read back, voxel by voxel, by the libraries of the programs for which they are made."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cloudvolume
import h5py
import numpy as np
import pytest
import tifffile
import zarr

from pipeline.errors import ConfigError, VolumeError
from pipeline.geometry import BoundingBox
from pipeline.runs.exported import exported, image_of
from pipeline.runs.run import Run
from pipeline.storage import ObjectStore
from pipeline.volumes import open_volume, precomputed_shards
from pipeline.volumes.base import VolumeSpec
from pipeline.volumes.export import LARGEST_ID, WRITERS, Exported, export
from tests.runs import petaseg, run, write_volume
from tests.stages.test_downsample import image_run
from workflows.commands.export import KINDS

BOX = BoundingBox((5, -4, 10), (21, 19, 37))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(image_run(tmp_path_factory.mktemp("run")))


def levels(finished: Run, name: str = "labels", number: int = 5) -> list[np.ndarray]:
    """The levels of a volume within the box, cut by hand."""
    found = []
    for mip in range(number):
        volume = open_volume(f"{finished.layout.volume_url(name)}#mip={mip}")
        z, y, x = (round(a / b) for a, b in zip(volume.resolution_nm, finished.layout.resolution_nm, strict=True))
        start = [BOX.start.z // z, BOX.start.y // y, BOX.start.x // x]
        stop = [-(-BOX.stop.z // z), -(-BOX.stop.y // y), -(-BOX.stop.x // x)]
        found.append(volume.read(BoundingBox(tuple(start), tuple(stop))))
    return found


def written(finished: Run, folder: Path, kind: str, name: str | None = None, sharded: bool = False) -> Path:
    export(exported(finished, name), str(folder / "out"), kind, BOX, image=image_of(finished), sharded=sharded)
    assert [path.name for path in folder.iterdir()] == ["out"], "nothing hidden is left"
    return folder / "out"


@pytest.mark.parametrize("shard_bytes", [None, 1, 4096, 1 << 28])
def test_cloudvolume_reads_every_level(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shard_bytes: int | None
) -> None:
    """Voxels, offsets and sizes, in the order x, y, z of that library, in chunks and in shards of any size."""
    monkeypatch.setattr(precomputed_shards, "SHARD_BYTES", shard_bytes)
    monkeypatch.setattr(precomputed_shards, "MINISHARD_CHUNKS_BITS", 1)
    place = written(finished, tmp_path, "precomputed", sharded=shard_bytes is not None)
    assert bool(list(place.glob("*/*.shard"))) == (shard_bytes is not None)
    for mip, expected in enumerate(levels(finished)):
        layer = cloudvolume.CloudVolume(f"file://{place}", mip=mip, progress=False, fill_missing=True)
        assert (layer.layer_type, layer.encoding) == ("segmentation", "compressed_segmentation")
        assert np.array_equal(np.asarray(layer[:])[..., 0].T, expected)
        mine = open_volume(f"{finished.result_url}#mip={mip}")
        assert tuple(layer.resolution[::-1]) == mine.resolution_nm


@pytest.mark.parametrize("sharded", [False, True])
def test_heads_with_channels_become_images(finished: Run, tmp_path: Path, sharded: bool) -> None:
    place = written(finished, tmp_path, "precomputed", "affinities", sharded)
    layer = cloudvolume.CloudVolume(f"file://{place}", mip=1, progress=False, fill_missing=True)
    assert layer.layer_type == "image"
    assert np.array_equal(np.asarray(layer[:]).T, levels(finished, "affinities", 2)[1])


def test_shards_hold_what_fits_into_memory(finished: Run, tmp_path: Path) -> None:
    """A shard holds as many chunks as its bytes allow, whatever the grid; all shards tile the level once."""
    for shape in [(70, 300, 130), (64, 64, 64), (1, 4000, 65)]:
        spec = VolumeSpec(BoundingBox.from_shape(shape), (8, 8, 8), np.dtype("uint64"), None, (8, 16, 32))
        sharding = precomputed_shards.sharding_of(spec)
        grid = spec.bounds.shape.ceil_div(spec.storage_chunk)
        bits = [sharding[f"{name}_bits"] for name in ("preshift", "minishard", "shard")]
        assert sum(bits) == sum((side - 1).bit_length() for side in grid)
        writer = precomputed_shards.ShardWriter(ObjectStore(tmp_path), {"sharding": sharding}, spec)
        assert spec.bytes_of(writer.shard_shape) == spec.bytes_of(spec.storage_chunk) << sum(bits[:2])
        assert spec.bytes_of(writer.shard_shape) <= precomputed_shards.SHARD_BYTES


def test_ome_zarr_has_the_image_and_labels_that_point_at_it(finished: Run, tmp_path: Path) -> None:
    """A reader finds ``labels/labels`` by the image's group, and by its source the image again."""
    place = written(finished, tmp_path, "ome-zarr")
    assert zarr.open_group(str(place), mode="r")["labels"].attrs["ome"]["labels"] == ["labels"]
    group = zarr.open_group(f"{place}/labels/labels", mode="r")
    ome = group.attrs["ome"]
    assert (place / "labels" / "labels" / ome["image-label"]["source"]["image"]).resolve() == place
    paths = [dataset["path"] for dataset in ome["multiscales"][0]["datasets"]]
    for path, expected in zip(paths, levels(finished), strict=True):
        assert np.array_equal(group[path][...], expected)
    image = zarr.open_group(str(place), mode="r")
    assert np.array_equal(image["0"][...], open_volume(finished.inputs.url).read(BOX))
    first = [
        zarr.open_group(str(each), mode="r").attrs["ome"]["multiscales"][0]["datasets"]
        for each in (place, f"{place}/labels/labels")
    ]
    places = [[dataset["coordinateTransformations"] for dataset in each] for each in first]
    assert places[0] == places[1], "image and labels lie on each other at every level"
    assert open_volume(f"{place}/labels/labels#mip=2").bounds.start == (2, -1, 2)


def test_h5py_reads_the_labels_with_their_place(finished: Run, tmp_path: Path) -> None:
    place = written(finished, tmp_path, "hdf5")
    with h5py.File(place) as file:
        assert np.array_equal(file["labels"][...], levels(finished)[0])
    again = open_volume(f"{place}.h5" if place.suffix else str(place.rename(tmp_path / "out.h5")))
    assert (again.bounds, again.resolution_nm) == (BOX, finished.layout.resolution_nm)


def test_tifffile_reads_sections_with_their_size(finished: Run, tmp_path: Path) -> None:
    """A BigTIFF of uint32 sections whose size of a voxel Fiji and petaseg find."""
    place = written(finished, tmp_path, "tiff")
    with tifffile.TiffFile(place) as file:
        assert file.is_bigtiff
        assert len(file.pages) == BOX.shape.z
        found = file.asarray()
    assert found.dtype == np.uint32
    assert np.array_equal(found, levels(finished)[0])
    assert open_volume(str(place.rename(tmp_path / "out.tif"))).resolution_nm == finished.layout.resolution_nm


def test_an_id_beyond_32_bits_is_no_tiff(tmp_path: Path) -> None:
    """It is refused with the formats that hold it, and no file is left."""
    ids = np.full((3, 4, 5), LARGEST_ID, np.uint64)
    small = Exported("labels", (write_volume(tmp_path / "small.zarr", ids),))
    large = Exported("labels", (write_volume(tmp_path / "large.zarr", ids + np.uint64(1)),))
    box = BoundingBox.from_shape((3, 4, 5))
    export(small, str(tmp_path / "small.tif"), "tiff", box)
    with pytest.raises(VolumeError, match=r"has the id 4294967296, and TIFF readers take ids up to 4294967295: export"):
        export(large, str(tmp_path / "large.tif"), "tiff", box)
    assert {path.name for path in tmp_path.iterdir()} == {"small.zarr", "large.zarr", "small.tif"}


@pytest.mark.parametrize("kind", WRITERS)
def test_nothing_is_replaced_and_nothing_half_done_is_left(finished: Run, tmp_path: Path, kind: str) -> None:
    class Died(BaseException):
        pass

    def die(done: int, total: int) -> None:
        if done:
            raise Died

    with pytest.raises(Died):
        export(exported(finished, None), str(tmp_path / "out"), kind, BOX, die)
    assert not list(tmp_path.iterdir())
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ConfigError, match="exists already, and nothing is replaced"):
        export(exported(finished, None), str(tmp_path / "out"), kind, BOX)
    assert (tmp_path / "out").read_text() == "mine"


def test_what_cannot_be_exported_is_refused_with_what_can(finished: Run, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"--volume is 'neurons'; this run has affinities, fragments, .*labels, image"
    ):
        exported(finished, "neurons")
    other = Run.open(finished.source, ["segmentation.threshold=0.77"])
    with pytest.raises(ConfigError, match="has not finished relabel under this configuration"):
        exported(other, None)
    with pytest.raises(ConfigError, match="--to is 'png'; there are precomputed"):
        export(exported(finished, None), str(tmp_path / "out"), "png", BOX)
    with pytest.raises(ConfigError, match="--sharded is for --to precomputed, and --to is tiff: leave it out"):
        export(exported(finished, None), str(tmp_path / "out"), "tiff", BOX, sharded=True)
    with pytest.raises(ConfigError, match="is not on this machine; export to a path"):
        export(exported(finished, None), "s3://bucket/out", "hdf5", BOX)


def test_the_command_exports_a_box(finished: Run, tmp_path: Path) -> None:
    """The page of help names every format."""
    assert all(kind in KINDS for kind in WRITERS)
    done = petaseg("export", finished.url, tmp_path / "out.h5", "--to", "hdf5", "--box", "5:9,0:8,10:20")
    assert done.returncode == 0, done.stderr
    assert open_volume(str(tmp_path / "out.h5")).bounds == BoundingBox((5, 0, 10), (9, 8, 20))
    done = petaseg("export", finished.url, tmp_path / "shards", "--to", "precomputed", "--sharded")
    assert done.returncode == 0, done.stderr
    labels = open_volume(f"precomputed://{tmp_path}/shards").read(finished.layout.roi)
    assert np.array_equal(labels, open_volume(finished.result_url).read(finished.layout.roi))
    refused = petaseg("export", finished.url, tmp_path / "no.h5", "--to", "hdf5", "--box", "0:9,0:8,10:20")
    assert refused.returncode != 0
    assert "choose a box within it" in " ".join(refused.stderr.split())


def test_a_run_of_affinities_exports_its_labels_alone(tmp_path: Path) -> None:
    """Without an image the labels are the group itself, and say that they are labels."""
    values = np.random.default_rng(0).integers(1, 9, (6, 7, 8)).astype(np.uint64)
    source = Exported("labels", (write_volume(tmp_path / "labels.zarr", values),))
    export(source, str(tmp_path / "out.zarr"), "ome-zarr", BoundingBox.from_shape((6, 7, 8)))
    attributes = json.loads((tmp_path / "out.zarr" / "zarr.json").read_text())["attributes"]["ome"]
    assert attributes["image-label"] == {"version": "0.5"}
    assert np.array_equal(open_volume(str(tmp_path / "out.zarr"))[...], values)


LIMITED = """
import resource, signal, sys
from workflows.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)),) * 2)
main()
"""


@pytest.mark.parametrize("room", [100, 3000])
@pytest.mark.parametrize("to", WRITERS)
def test_a_file_that_cannot_grow_is_an_error_and_leaves_nothing(tmp_path: Path, to: str, room: int) -> None:
    """A disk that takes no more bytes is named by its error, whatever the library of a format makes of it."""
    ids = np.random.default_rng(0).integers(1, 2**31, (20, 30, 40)).astype(np.uint64)
    source = write_volume(tmp_path / "labels.zarr", ids)
    file = tmp_path / "run.yaml"
    file.write_text(f"run_directory: run\ninput: {{labels: {source}}}\nsegmentation: {{kind: labels}}\n")
    assert (done := petaseg("run", file)).returncode == 0, done.stderr
    place = tmp_path / "out"
    words = [sys.executable, "-c", LIMITED, str(room), "export", str(file), str(place), "--to", to]
    said = subprocess.run(words, capture_output=True, text=True, check=False)
    assert said.returncode == 1, said.stderr
    assert "File too large" in " ".join(said.stderr.split())
    assert "Traceback" not in said.stderr
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]
