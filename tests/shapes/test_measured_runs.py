"""``measures`` of whole runs: added to a finished run, the same bytes in any chunking, gone when labels change."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.runs.verify import repair, verify_run
from pipeline.stages import opened
from pipeline.stages.measure import CONTACT_TABLE, NEURONS, Measure
from pipeline.volumes import open_volume
from tests.runs import petaseg, run, write_run, write_volume

SHAPE = (20, 24, 28)


def measured(folder: Path, chunk: tuple[int, int, int], **tables) -> Path:
    affinities = np.random.default_rng(0).integers(0, 256, (3, *SHAPE)).astype(np.uint8)
    given = {"affinities": write_volume(folder / "affinities.zarr", affinities), "start": [1, 0, 3]}
    shapes = {"chunk_shape": list(chunk), "storage_chunk_shape": list(chunk)}
    return write_run(folder, input=given, supervoxels={"threshold": 0.3, "filter_width": 1}, **shapes, **tables)


def tables(folder: Path) -> dict[str, bytes]:
    return {key: (folder / "run" / key).read_bytes() for key in (NEURONS, CONTACT_TABLE)}


def test_any_chunk_shape_gives_the_same_tables(tmp_path):
    """Tables of runs in any chunk shape are the same files, and have a row for each label."""
    finished = run(measured(tmp_path / "whole", SHAPE, measures={}))
    first = tables(tmp_path / "whole")
    for chunk in [(10, 12, 14), (7, 24, 9)]:
        run(measured(tmp_path / str(chunk), chunk, measures={}))
        assert tables(tmp_path / str(chunk)) == first
    labels = open_volume(finished.layout.volume_url("labels")).read(finished.layout.roi)
    ids, voxels = np.unique(labels[labels > 0], return_counts=True)
    found = pq.read_table(tmp_path / "whole" / "run" / NEURONS)
    assert found["id"].to_pylist() == ids.tolist()
    assert found["voxels"].to_pylist() == voxels.tolist()


def test_tables_are_added_to_a_finished_run(tmp_path):
    """``petaseg add RUN measures`` computes nothing but the tables, which are those of a run that had them at once."""
    run(measured(tmp_path / "at-once", (10, 12, 14), measures={}))
    file = measured(tmp_path / "later", (10, 12, 14))
    run(file)
    said = petaseg("add", file, "measures")
    assert said.returncode == 0, said.stderr
    assert "computed measure;" in said.stdout
    assert tables(tmp_path / "later") == tables(tmp_path / "at-once")


def test_a_driver_that_dies_before_the_tables_leaves_them_to_the_next(tmp_path, monkeypatch):
    """Where all sums are stored and a table is missing, the next command writes it, and computes nothing."""
    file = measured(tmp_path, (10, 12, 14), measures={})

    def dies(stage):
        raise KeyboardInterrupt

    monkeypatch.setattr(Measure, "publish", dies)
    with pytest.raises(KeyboardInterrupt):
        run(file)
    assert not (tmp_path / "run" / "tables").exists()
    monkeypatch.undo()
    run(file)
    first = tables(tmp_path)
    (tmp_path / "run" / CONTACT_TABLE).unlink()
    run(file)
    assert tables(tmp_path) == first


def test_another_threshold_gives_other_tables(tmp_path, monkeypatch):
    """Tables of the old threshold are deleted before a label changes, and written anew at the end."""
    file = measured(tmp_path, (10, 12, 14), measures={})
    run(file)
    before = tables(tmp_path)
    monkeypatch.setattr(Measure, "publish", lambda stage: None)
    run(file, "segmentation.threshold=0.7")
    assert not (tmp_path / "run" / NEURONS).exists()
    monkeypatch.undo()
    opened.forget()
    run(file, "segmentation.threshold=0.7")
    assert tables(tmp_path) != before


@pytest.mark.parametrize("key", [NEURONS, CONTACT_TABLE, "skeletons/info", "tables/skeletons.parquet"])
@pytest.mark.parametrize("damage", ["altered", "missing"])
def test_verify_finds_published_files_that_differ(tmp_path, key, damage):
    """A published table that is missing or has another byte is found; repair and the next run bring it back."""
    file = measured(tmp_path, (10, 12, 14), measures={}, skeletons={"smallest_voxels": 10})
    finished = run(file)
    place = tmp_path / "run" / key
    before = place.read_bytes()
    assert all(proof.proven for proof in verify_run(finished, 0, seed=0))
    if damage == "missing":
        place.unlink()
    else:
        place.write_bytes(before[:100] + bytes([before[100] ^ 1]) + before[101:])
    altered = {proof.stage: proof.altered for proof in verify_run(finished, 0, seed=0) if not proof.proven}
    assert list(altered.values()) == [(key,)]
    repair(finished, (), altered=altered)
    run(file)
    assert place.read_bytes() == before
