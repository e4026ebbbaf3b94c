"""Edits of a run from Python."""

import numpy as np
import pytest

import petaseg
from pipeline.errors import ConfigError
from tests.runs import write_volume


@pytest.fixture
def result(tmp_path):
    """Two blocks of supervoxels with a weak contact, cut apart."""
    affinities = np.full((3, 4, 8, 16), 255, np.uint8)
    affinities[2, :, :, 8] = 20
    source = write_volume(tmp_path / "affinities.zarr", affinities)
    return petaseg.run(
        {"run_directory": str(tmp_path / "run"), "input": {"affinities": source}},
        supervoxels={"filter_width": 1},
        segmentation={"threshold": 0.5},
        execution={"executor": "serial"},
    )


def test_neurons_are_merged_split_and_given_back(result):
    """Ids and voxels name neurons, also as numbers of numpy; ``undo`` takes edits back."""
    before = result.labels[...]
    a, b = before[2, 4, 2], before[2, 4, 13]
    assert a != b
    merged = result.edit(merge=[(a, np.array([2, 4, 13]))]).labels[...]
    assert (merged == np.where(before == b, a, before)).all()
    assert (result.edit(split=[([(2, 4, 2)], [(2, 4, 13)])]).labels[...] == before).all()
    assert (result.edit(undo=1).labels[...] == merged).all()
    assert (result.edit(undo=1).labels[...] == before).all()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "0 edits and undo=0 are given; give edits, or a number to take back"),
        ({"merge": [(1, 2)], "undo": 1}, "1 edits and undo=1 are given"),
        ({"merge": [((1, 2), 3)]}, r"\(1, 2\) is neither an id nor a voxel"),
        ({"split": [([], [(1, 2, 3)])]}, "a side is empty; give at least one voxel"),
        ({"merge": [(1, 10**9)]}, "merge .*: there is no segment and no supervoxel 1000000000"),
    ],
)
def test_what_is_no_edit_is_refused(result, given, said):
    with pytest.raises(ConfigError, match=said):
        result.edit(**given)
