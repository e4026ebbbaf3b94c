"""The mask of a run file reaches the supervoxels."""

import numpy as np
import pytest

from pipeline.errors import VolumeError
from pipeline.runs.run import Run
from pipeline.stages import opened
from pipeline.stages.base import Stage
from tests.runs import write_run, write_volume

SHAPE = (4, 6, 8)


def test_nothing_outside_of_the_mask_gets_a_label(tmp_path):
    """Exactly the voxels inside the mask belong to a supervoxel, where all affinities are high."""
    mask = np.ones(SHAPE, np.uint8)
    mask[:, 2:4, 3:] = 0
    stage = extraction(tmp_path, mask)
    stage.prepare()
    for chunk in stage.grids()[0]:
        stage.run_chunk(chunk)
        fragments = stage.load(chunk)["fragments"]
        np.testing.assert_array_equal(fragments > 0, mask[chunk.core.slices()] > 0)


def extraction(folder, mask, resolution_nm=(8, 8, 8), start=(0, 0, 0)) -> Stage:
    opened.forget()
    folder.mkdir(exist_ok=True)
    file = write_run(
        folder,
        input={
            "affinities": write_volume(folder / "affinities.zarr", np.full((3, *SHAPE), 255, np.uint8)),
            "mask": write_volume(folder / "mask.zarr", mask, resolution_nm, start),
        },
        chunk_shape=[4, 6, 4],
        storage_chunk_shape=[4, 6, 4],
    )
    return Run.open(file).stage("extract_supervoxels")


@pytest.mark.parametrize(("side", "start"), [((2, 3, 4), (0, 0, 0)), ((1, 2, 3), (0, 0, 0)), ((4, 4, 4), (-1, -1, -1))])
def test_a_mask_of_a_coarser_mip_is_looked_up_at_each_voxel(tmp_path, side, start):
    """Voxel v is inside where voxel v // factor of the mask is, also across chunks and at uneven ends."""
    counts = [-(-length // by) - first for length, by, first in zip(SHAPE, side, start, strict=True)]
    mask = np.random.default_rng(0).integers(0, 2, counts, np.uint8)
    fine = mask.copy()
    for axis, by in enumerate(side):
        fine = fine.repeat(by, axis)
    first = tuple(slice(-s * by, -s * by + length) for s, by, length in zip(start, side, SHAPE, strict=True))
    stage = extraction(tmp_path, mask, tuple(8 * by for by in side), start)
    stage.prepare()
    for chunk in stage.grids()[0]:
        stage.run_chunk(chunk)
        fragments = stage.load(chunk)["fragments"]
        np.testing.assert_array_equal(fragments > 0, fine[first][chunk.core.slices()] > 0)


@pytest.mark.parametrize(
    ("shape", "size", "message"),
    [
        (SHAPE, (16, 16, 16), "as many voxels as the input"),
        ((2, 3, 4), (12, 16, 16), "a whole number of the input's"),
        ((8, 12, 16), (4, 4, 4), "a whole number of the input's"),
        ((1, 3, 4), (16, 16, 16), "must cover all of it"),
        ((4, 6, 9), (8, 8, 8), "the same voxels"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(tmp_path, shape, size, message):
    with pytest.raises(VolumeError, match=message):
        extraction(tmp_path, np.ones(shape, np.uint8), size)


def test_another_coarse_mask_is_another_input(tmp_path):
    """The fingerprint of the supervoxels counts the mask's voxels and their size."""
    half, other = np.ones((2, 3, 4), np.uint8), np.ones((2, 3, 4), np.uint8)
    other[0, 0, 0] = 0
    masks = [(half, (16, 16, 16)), (other, (16, 16, 16)), (np.ones((1, 3, 4), np.uint8), (32, 16, 16))]
    prints = {extraction(tmp_path / str(n), mask, size).fingerprint for n, (mask, size) in enumerate(masks)}
    assert len(prints) == len(masks)
