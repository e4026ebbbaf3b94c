"""Affinities of distant voxels take part in agglomeration if the run file says so, in any chunks alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.runs.run import Run
from tests.runs import results, run, write_run, write_volume

SHAPE = (20, 24, 28)
OFFSETS = [[-1, 0, 0], [0, -1, 0], [0, 0, -1], [-3, 0, 0], [0, 0, -6]]
FAR = [[-3, 0, 0], [0, 0, -6]]


def write(folder: Path, affinities: np.ndarray, offsets: list[list[int]] = OFFSETS, **agglomeration: Any) -> Path:
    """A run file for given affinities."""
    return write_run(
        folder,
        input={"affinities": write_volume(folder / "affinities.zarr", affinities), "affinity_offsets": offsets},
        chunk_shape=[10, 12, 14],
        storage_chunk_shape=[10, 12, 14],
        supervoxels={"threshold": 0.3, "filter_width": 1},
        agglomeration=agglomeration,
    )


@pytest.fixture(scope="module")
def affinities() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (len(OFFSETS), *SHAPE)).astype(np.uint8)


def test_far_affinities_count_and_chunks_do_not(tmp_path: Path, affinities: np.ndarray) -> None:
    """Far affinities change the merge tree, and leave it the same in any chunks."""
    near, far = (results(run(write(tmp_path / name, affinities, **more))) for name, more in TABLES.items())
    assert near["supervoxels"] == far["supervoxels"]
    assert near["merge_tree"] != far["merge_tree"]
    whole = [f"run_directory={tmp_path}/whole", "chunk_shape=[20,24,28]", "storage_chunk_shape=[5,6,7]"]
    assert results(run(tmp_path / "far" / "run.yaml", *whole)) == far


TABLES: dict[str, dict[str, Any]] = {"near": {}, "far": {"far_offsets": FAR}}


def test_an_edge_at_its_lower_voxel_is_the_same_edge(tmp_path: Path, affinities: np.ndarray) -> None:
    """A channel of the offset +6 holds at v what one of -6 holds at v + 6."""
    moved = affinities.copy()
    moved[4] = 0
    moved[4][..., :-6] = affinities[4][..., 6:]
    expected = results(run(write(tmp_path / "back", affinities, far_offsets=FAR)))
    found = results(run(write(tmp_path / "forth", moved, [*OFFSETS[:4], [0, 0, 6]], far_offsets=FAR)))
    assert found == expected


@pytest.mark.parametrize(
    ("offsets", "table", "message"),
    [
        (OFFSETS, {"far_offsets": [[0, 0, -5]]}, r"far_offsets names \[\[0, 0, -5\]\], which input.affinity_offsets"),
        (OFFSETS, {"far_offsets": [[0, -2, -2]]}, r"each must lead back by two voxels or more along one axis"),
        (OFFSETS, {"far_offsets": [[0, 0, -1]]}, r"each must lead back by two voxels or more along one axis"),
        ([*OFFSETS, [0, 0, -20]], {"far_offsets": [[0, 0, -20]]}, r"reach further, by \[\[0, 0, -20\]\]"),
        (OFFSETS, {"far_offsets": [[-3, 0, 0]], "across_sections": False}, r"far_offsets lead to other sections"),
        ([*OFFSETS, [0, -9, 0]], {}, r"names 6 channels, and .* has 5"),
    ],
)
def test_offsets_that_cannot_count_are_refused(
    tmp_path: Path, affinities: np.ndarray, offsets: list[list[int]], table: dict[str, Any], message: str
) -> None:
    """An offset without a channel, along two axes, or longer than a chunk is refused before anything is computed."""
    with pytest.raises(ConfigError, match=message):
        Run.open(write(tmp_path, affinities, offsets, **table))
