"""A volume of which not one chunk is stored is a mistake, and no image of zeros: it is refused where it is an input."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

from pipeline.errors import VolumeError
from pipeline.evaluation.compare import compare_volumes
from pipeline.runs.run import Run
from pipeline.stages import opened
from pipeline.training.config import LabelledVolume
from pipeline.training.sources import open_source
from pipeline.volumes import create_volume, open_volume
from pipeline.volumes.base import VolumeSpec
from pipeline.volumes.ingest import ingest
from tests.runs import write_run, write_volume

DATA = np.arange(1, 721, dtype="uint64").reshape(8, 9, 10)
AFFINITIES = np.full((3, 8, 9, 10), 200, np.uint8)
NOTHING = "has not one stored chunk"


def layer(path: Path, data: np.ndarray, *, foreign: bool) -> str:
    """A precomputed layer, without the mark of petaseg if it is foreign."""
    spec = VolumeSpec(open_volume(write_volume(path / "a.zarr", data)).bounds, (8, 8, 8), data.dtype, None, (8, 8, 8))
    create_volume(f"{path}/layer", spec, format="precomputed").write(spec.bounds, data)
    if foreign:
        info = json.loads((path / "layer/info").read_text())
        (path / "layer/info").write_text(json.dumps({key: info[key] for key in info if key != "petaseg"}))
    return f"{path}/layer"


def test_a_layer_whose_folder_of_chunks_is_missing_is_refused(tmp_path: Path) -> None:
    """Single missing chunks are background; a scale without any is one whose chunks were not copied."""
    url = layer(tmp_path, DATA, foreign=True)
    chunks = sorted(path for path in Path(url).rglob("*") if path.name != "info" and path.is_file())
    for chunk in chunks[1:]:
        chunk.unlink()
    assert open_volume(url)[...].any()
    chunks[0].rename(chunks[0].with_name("notes.txt"))
    for place in (url, f"precomputed://{url}"):
        with pytest.raises(VolumeError, match=f"{NOTHING}.*bring its chunks"):
            open_volume(place)
    shutil.rmtree(chunks[0].parent)
    with pytest.raises(VolumeError, match=NOTHING):
        open_volume(url)


def test_chunks_that_are_compressed_files_count(tmp_path: Path) -> None:
    url = layer(tmp_path, DATA, foreign=True)
    for chunk in Path(url).glob("*/*"):
        chunk.rename(f"{chunk}.gz")
    assert open_volume(url).shape == DATA.shape


def test_a_layer_of_shards_without_a_shard_is_refused(tmp_path: Path) -> None:
    url = layer(tmp_path, DATA, foreign=True)
    info = json.loads(Path(url, "info").read_text())
    rules = {"@type": "neuroglancer_uint64_sharded_v1", "hash": "identity", "preshift_bits": 0, "minishard_bits": 0}
    info["scales"][0]["sharding"] = {**rules, "shard_bits": 0}
    Path(url, "info").write_text(json.dumps(info))
    with pytest.raises(VolumeError, match=NOTHING):
        open_volume(url)


def test_a_layer_of_zeros_that_petaseg_made_opens(tmp_path: Path) -> None:
    """No chunk of zeros is stored."""
    assert not open_volume(layer(tmp_path, DATA * 0, foreign=False))[...].any()


def empty_zarr(path: str) -> str:
    array = zarr.create_array(path, shape=DATA.shape, dtype="u8", chunks=(4, 4, 4), fill_value=0)
    array.attrs["resolution_nm"] = [8, 8, 8]
    return path


def empty_zarr_v2(path: str) -> str:
    array = zarr.create_array(path, shape=DATA.shape, dtype="u8", chunks=(4, 4, 4), fill_value=0, zarr_format=2)
    array.attrs["resolution_nm"] = [8, 8, 8]
    return path


def empty_hdf5(path: str) -> str:
    with h5py.File(f"{path}.h5", "w") as file:
        dataset = file.create_dataset("raw", shape=DATA.shape, dtype="u8", chunks=(4, 4, 4))
        dataset.attrs["resolution_nm"] = [8, 8, 8]
    return f"{path}.h5"


EMPTY: list[Callable[[str], str]] = [empty_zarr, empty_zarr_v2, empty_hdf5]


@pytest.mark.parametrize("make", EMPTY)
def test_nothing_is_no_input_of_any_command(make: Callable[[str], str], tmp_path: Path) -> None:
    nothing = make(f"{tmp_path}/nothing")
    there = write_volume(tmp_path / "there.zarr", DATA)
    affinities = write_volume(tmp_path / "affinities.zarr", AFFINITIES)
    image = write_volume(tmp_path / "image.zarr", DATA.astype("u1"))
    commands: list[Callable[[], object]] = [
        lambda: ingest(nothing, f"{tmp_path}/out.zarr"),
        lambda: compare_volumes(nothing, there),
        lambda: compare_volumes(there, nothing),
        lambda: Run.open(write_run(tmp_path, input={"affinities": affinities, "mask": nothing})),
        lambda: Run.open(write_run(tmp_path, input={"affinities": affinities}, evaluation={"labels": nothing})),
        lambda: open_source(LabelledVolume(image=image, labels=nothing)),
    ]
    opened.forget()
    for command in commands:
        with pytest.raises(VolumeError, match=NOTHING):
            command()
    assert not Path(tmp_path, "out.zarr").exists()


@pytest.mark.parametrize("make", EMPTY)
def test_one_stored_chunk_is_enough(make: Callable[[str], str], tmp_path: Path) -> None:
    """Chunks of zeros may be left out."""
    url = make(f"{tmp_path}/a")
    if url.endswith(".h5"):
        with h5py.File(url, "r+") as file:
            file["raw"][0, 0, 0] = 1
    else:
        zarr.open_array(url)[0, 0, 0] = 1
    assert open_volume(url).is_stored
    assert ingest(url, f"{tmp_path}/out.zarr").voxels == DATA.size


def test_labels_of_nothing_that_petaseg_made_are_scored(tmp_path: Path) -> None:
    """A segmentation of background alone is a bad one, and no mistake of files."""
    truth = write_volume(tmp_path / "truth.zarr", DATA)
    nothing = write_volume(tmp_path / "labels.zarr", DATA * 0)
    assert not open_volume(nothing).is_stored
    assert compare_volumes(truth, nothing).box.shape == DATA.shape


def test_a_virtual_dataset_is_stored_in_its_parts(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "part.h5", "w") as file:
        file["raw"] = DATA
    layout = h5py.VirtualLayout(DATA.shape, DATA.dtype)
    layout[...] = h5py.VirtualSource(str(tmp_path / "part.h5"), "raw", DATA.shape)
    with h5py.File(tmp_path / "whole.h5", "w") as file:
        file.create_virtual_dataset("raw", layout)
    assert open_volume(f"{tmp_path}/whole.h5#resolution=8,8,8").is_stored
