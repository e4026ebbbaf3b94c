"""What is handed on after `petaseg edit`: the edited neurons, in each format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr

from pipeline.runs.run import Run
from pipeline.stages import opened
from tests.handover.handed import handed_run, plain_contacts, voxels
from tests.runs import petaseg, run


@pytest.fixture(scope="module")
def edited(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run whose two largest segments that touch are merged."""
    file = handed_run(tmp_path_factory.mktemp("run"))
    before = voxels(run(file), "labels")
    sizes = dict(zip(*(each.tolist() for each in np.unique(before, return_counts=True)), strict=True))
    pairs = plain_contacts(Run.open(file), before)
    low, high = max(pairs, key=lambda pair: (min(sizes[pair[0]], sizes[pair[1]]), pair))
    assert (done := petaseg("edit", file, "--merge", f"{low},{high}")).returncode == 0, done.stderr
    opened.forget()
    finished = Run.open(file)
    assert np.array_equal(voxels(finished, "labels"), np.where(before == high, low, before))
    return finished


def segments_of_parquet(place: Path) -> dict[int, int]:
    table = pq.read_table(place / "supervoxels.parquet")
    return dict(zip(table["id"].to_pylist(), table["segment"].to_pylist(), strict=True))


def segments_of_pychunkedgraph(place: Path) -> dict[int, int]:
    table = pq.read_table(place / "nodes.parquet")
    return dict(zip(table["supervoxel"].to_pylist(), table["segment"].to_pylist(), strict=True))


def segments_of(labels: np.ndarray, supervoxels: np.ndarray) -> dict[int, int]:
    names, first = np.unique(supervoxels, return_index=True)
    return {int(name): int(labels.flat[place]) for name, place in zip(names, first, strict=True) if name}


def test_tables_and_graphs_hold_edited_neurons(edited: Run, tmp_path: Path) -> None:
    """The segment of each supervoxel is that of the edited labels."""
    expected = segments_of(voxels(edited, "labels"), voxels(edited, "supervoxels"))
    for to, read in (("parquet", segments_of_parquet), ("pychunkedgraph", segments_of_pychunkedgraph)):
        done = petaseg("export", edited.url, tmp_path / to, "--to", to)
        assert done.returncode == 0, done.stderr
        assert read(tmp_path / to) == expected


def test_agglomerates_are_edited_neurons(edited: Run, tmp_path: Path) -> None:
    """Supervoxels share an agglomerate of WEBKNOSSOS if, and only if, they share an edited label."""
    done = petaseg("export", edited.url, tmp_path / "dataset", "--to", "webknossos")
    assert done.returncode == 0, done.stderr
    group = zarr.open_group(str(tmp_path / "dataset" / "segmentation" / "agglomerates" / "neurons"), mode="r")
    found = np.asarray(group["segment_to_agglomerate"][...])[1:]
    expected = segments_of(voxels(edited, "labels"), voxels(edited, "supervoxels"))
    _, neurons = np.unique([expected[name] for name in sorted(expected)], return_inverse=True)
    assert found.tolist() == (neurons + 1).tolist()
