"""Bool is 0 and 1 in uint8, whichever format stores it: masks, labels and what is ingested."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import zarr

import petaseg
from pipeline.errors import VolumeError
from pipeline.runs.run import Run
from pipeline.volumes import open_volume
from pipeline.volumes.ingest import ingest
from tests.runs import write_run, write_volume

SHAPE = (5, 8, 11)
INSIDE = np.random.default_rng(0).random(SHAPE) > 0.5
SIZE = "#resolution=8,8,8"


def to_zarr(path: str) -> None:
    zarr.create_array(path, data=INSIDE, chunks=SHAPE)


def to_hdf5(path: str) -> None:
    with h5py.File(path, "w") as file:
        file["mask"] = INSIDE


def to_tiff(path: str) -> None:
    """One bit a voxel, whose rows end within a byte."""
    tifffile.imwrite(path, INSIDE, photometric="minisblack", metadata=None)


WRITERS: list[tuple[str, Callable[[str], None]]] = [
    ("a.zarr", to_zarr),
    ("a.h5", to_hdf5),
    ("a.npy", lambda path: np.save(path, INSIDE)),
    ("a.tif", to_tiff),
]


@pytest.mark.parametrize(("name", "write"), WRITERS)
def test_bool_is_read_as_0_and_1_in_every_format(name: str, write: Callable[[str], None], tmp_path: Path) -> None:
    write(f"{tmp_path}/{name}")
    volume = open_volume(f"{tmp_path}/{name}{SIZE}")
    assert (volume.dtype, volume.shape) == (np.uint8, SHAPE)
    np.testing.assert_array_equal(volume[...], INSIDE.astype(np.uint8))


@pytest.mark.parametrize(("name", "write"), WRITERS)
def test_bool_is_ingested_as_0_and_1(name: str, write: Callable[[str], None], tmp_path: Path) -> None:
    write(f"{tmp_path}/{name}")
    report = ingest(f"{tmp_path}/{name}{SIZE}", f"{tmp_path}/out.zarr")
    assert report.spec.dtype == np.uint8
    np.testing.assert_array_equal(open_volume(report.url)[...], INSIDE.astype(np.uint8))


def test_only_0_and_1_are_written_to_bool(tmp_path: Path) -> None:
    to_zarr(f"{tmp_path}/a.zarr")
    volume = open_volume(f"{tmp_path}/a.zarr{SIZE}", mode="r+")
    volume[...] = 1 - INSIDE.astype(np.uint8)
    assert (zarr.open_array(f"{tmp_path}/a.zarr")[...] == ~INSIDE).all()
    with pytest.raises(VolumeError, match="only 0 and 1 are written, not 2"):
        volume[0, 0, 0] = 2


def test_masks_and_truth_of_bool_are_used_by_a_run(tmp_path: Path) -> None:
    affinities = write_volume(tmp_path / "affinities.zarr", np.full((3, *SHAPE), 200, np.uint8))
    to_zarr(f"{tmp_path}/a.zarr")
    mask = f"{tmp_path}/a.zarr{SIZE}"
    given = {"input": {"affinities": affinities, "mask": mask}, "evaluation": {"labels": mask}}
    inputs = Run.open(write_run(tmp_path, **given)).inputs
    assert inputs.truth is not None
    assert (inputs.mask_url, inputs.truth.labels) == (mask, mask)


@pytest.mark.parametrize("kind", ["neurons", "mask", "objects"])
def test_arrays_and_volumes_of_bool_are_scored(kind: str, tmp_path: Path) -> None:
    """A volume of bool and arrays of it have the scores of the same voxels in uint8."""
    to_zarr(f"{tmp_path}/a.zarr")
    volume, voxels = petaseg.open(f"{tmp_path}/a.zarr{SIZE}"), INSIDE.astype(np.uint8)
    found = petaseg.evaluate(volume, INSIDE, as_=kind).to_dict()
    assert str(found) == str(petaseg.evaluate(volume, voxels, as_=kind).to_dict())
