"""The mask of a run file reaches the supervoxels."""

import numpy as np

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


def extraction(folder, mask) -> Stage:
    opened.forget()
    file = write_run(
        folder,
        input={
            "affinities": write_volume(folder / "affinities.zarr", np.full((3, *SHAPE), 255, np.uint8)),
            "mask": write_volume(folder / "mask.zarr", mask),
        },
        chunk_shape=[4, 6, 4],
        storage_chunk_shape=[4, 6, 4],
    )
    return Run.open(file).stage("extract_supervoxels")
