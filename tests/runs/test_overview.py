"""The picture of a run shows a part that has truth, if there is truth."""

import numpy as np

from pipeline.geometry import Vec
from pipeline.runs.report import planes, point_on_labels, point_with_truth
from pipeline.stages import opened
from tests.runs import run, write_run, write_volume

SHAPE = (16, 24, 24)


def finished(folder, labels):
    """A run on affinities of two cells, with this truth."""
    affinities = np.full((3, *SHAPE), 255, np.uint8)
    affinities[:, :, :, 12] = 0
    write_volume(folder / "affinities.zarr", affinities)
    write_volume(folder / "truth.zarr", labels)
    tables = {"input": {"affinities": "affinities.zarr"}, "evaluation": {"labels": "truth.zarr"}}
    shapes = {"chunk_shape": [8, 8, 8], "storage_chunk_shape": [8, 8, 8]}
    return run(write_run(folder, **tables, **shapes))


def test_a_section_with_truth_is_drawn_where_few_have_it(tmp_path):
    """Truth of one corner is drawn, where the middle section has none; -1 is no label."""
    labels = np.zeros(SHAPE, np.int32)
    labels[2, 3:20, 4:20] = 7
    labels[9] = -1
    done = finished(tmp_path, labels)
    point = point_with_truth(done)
    assert point[0] == 2
    drawn = planes(opened.source(done.inputs.truth.labels), done.inputs.truth.box, point)
    assert (drawn.xy == 7).any()
    assert (drawn.xz == 7).any()


def test_the_middle_is_drawn_where_all_is_labelled_and_where_nothing_is():
    """Truth everywhere gives the middle; planes with a few labels are passed over."""
    assert point_on_labels(np.ones((9, 9, 9), bool), Vec(4, 3, 2)) == (4, 3, 2)
    few = np.zeros((9, 9, 9), bool)
    few[4, 4, 4] = True
    few[7] = True
    assert point_on_labels(few, Vec(4, 4, 4))[0] == 7


def test_a_run_without_a_labelled_voxel_draws_the_middle(tmp_path):
    """Without a label there is no such point."""
    assert point_with_truth(finished(tmp_path, np.zeros(SHAPE, np.uint32))) is None
