"""Another threshold writes only the chunks that it changes, and the bytes are those of a fresh run."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from pipeline.ledger.ledger import Ledger
from pipeline.runs.run import Run
from pipeline.runs.unchanged import inputs_key, unchanged
from pipeline.runs.verify import verify_stage
from pipeline.stages import opened
from pipeline.stages.relabel import Relabel
from tests.runs import real_affinities, results, run, write_run, write_volume

CHUNK = [12, 15, 14]
SHAPE = (36, 45, 42)
TABLES = {"chunk_shape": CHUNK, "storage_chunk_shape": CHUNK, "agglomeration": {"stop_score": 0.2}}
THRESHOLDS = (0.55, 0.6, 0.62, 0.7, 0.9)


class Died(BaseException):
    """The end of a driver, which no handler of errors delays."""


@pytest.fixture(scope="module")
def affinities(shared_data, tmp_path_factory):
    return write_volume(tmp_path_factory.mktemp("data") / "affinities.zarr", real_affinities(shared_data, SHAPE))


@pytest.fixture(scope="module")
def fresh(affinities, tmp_path_factory):
    """The results of a fresh run at a threshold."""

    @cache
    def at(threshold: float) -> dict[str, bytes]:
        file = write_run(tmp_path_factory.mktemp("fresh"), input={"affinities": affinities}, **TABLES)
        return results(run(file, f"segmentation.threshold={threshold}"))

    return at


@pytest.fixture
def written(monkeypatch):
    """The chunks whose labels are written, by name."""
    names: list[str] = []
    write = Relabel.write

    def noting(self, chunk, products):
        write(self, chunk, products)
        names.append(chunk.name)

    monkeypatch.setattr(Relabel, "write", noting)
    return names


def tables(finished: Run) -> dict[str, dict[str, np.ndarray]]:
    opened.forget()
    return {
        chunk.name: finished.layout.get_part("assign_segments", chunk) for chunk in finished.stage("relabel").grids()[0]
    }


def test_only_chunks_whose_table_changes_are_written(tmp_path, affinities, fresh, written):
    """The chunks that are written are exactly those whose table from fragment to neuron is another one."""
    file = write_run(tmp_path, input={"affinities": affinities}, **TABLES)
    before = tables(run(file, "segmentation.threshold=0.5"))
    assert len(written) == len(before) == 27
    written.clear()
    finished = run(file, "segmentation.threshold=0.6")
    after = tables(finished)
    changed = {name for name in before if (before[name]["segment"] != after[name]["segment"]).any()}
    assert 0 < len(changed) < 27
    assert set(written) == changed
    assert results(finished) == fresh(0.6)
    assert all(verify_stage(stage, finished.ledger(stage, read_only=True), None, 0).proven for stage in finished.stages)


@pytest.mark.parametrize("seed", range(4))
def test_any_thresholds_after_each_other_with_crashes_give_the_bytes_of_fresh_runs(
    tmp_path, affinities, fresh, monkeypatch, seed
):
    """A driver that dies while it writes a chunk, and leaves half of it, loses nothing and leaves no wrong label."""
    file = write_run(tmp_path, input={"affinities": affinities}, **TABLES)
    dice, write = random.Random(seed), Relabel.write
    left = [0]

    def dying(self, chunk, products):
        left[0] -= 1
        if left[0] == 0:
            write(self, chunk, {"labels": np.full_like(products["labels"], 7)})
            raise Died
        write(self, chunk, products)

    monkeypatch.setattr(Relabel, "write", dying)
    died = 0
    for _ in range(8):
        threshold, left[0] = dice.choice(THRESHOLDS), dice.choice([-1, 1, 2, 4, 9])
        try:
            finished = run(file, f"segmentation.threshold={threshold}")
        except Died:
            died += 1
            continue
        finally:
            left[0] = -1
        assert results(finished) == fresh(threshold)
        stage = finished.stage("relabel")
        assert verify_stage(stage, finished.ledger(stage, read_only=True), None, 0).proven
    assert died


def run_dying_at(monkeypatch, name: str, file: Path, threshold: float) -> None:
    """Run until a method of the ledger is called that a threshold's new log needs, and die there."""

    def dies(*_):
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, name, dies)
        with pytest.raises(Died):
            run(file, f"segmentation.threshold={threshold}")


@pytest.mark.parametrize("place", ["take_over", "_arrays"])
def test_a_crash_while_the_new_log_begins_leaves_no_wrong_mark(tmp_path, affinities, fresh, monkeypatch, place):
    """A crash before or within the take-over costs at most that all chunks are written."""
    file = write_run(tmp_path, input={"affinities": affinities}, **TABLES)
    run(file, "segmentation.threshold=0.5")
    run_dying_at(monkeypatch, place, file, 0.6)
    assert results(run(file, "segmentation.threshold=0.62")) == fresh(0.62)
    assert results(run(file, "segmentation.threshold=0.6")) == fresh(0.6)


def test_a_deleted_volume_is_written_whole(tmp_path, affinities, fresh, written):
    """Marks are not taken over for a volume that somebody has deleted."""
    import shutil

    file = write_run(tmp_path, input={"affinities": affinities}, **TABLES)
    run(file, "segmentation.threshold=0.5")
    shutil.rmtree(tmp_path / "run" / "labels.zarr")
    written.clear()
    assert results(run(file, "segmentation.threshold=0.6")) == fresh(0.6)
    assert len(written) == 27


@pytest.mark.parametrize("damage", ["truncated", "deleted"])
def test_without_the_record_of_inputs_every_chunk_is_written(tmp_path, affinities, fresh, written, damage):
    file = write_run(tmp_path, input={"affinities": affinities}, **TABLES)
    finished = run(file, "segmentation.threshold=0.5")
    if damage == "deleted":
        finished.store.delete(inputs_key("relabel"))
    else:
        finished.store.put(inputs_key("relabel"), finished.store.get(inputs_key("relabel"))[:100])
    written.clear()
    assert results(run(file, "segmentation.threshold=0.6")) == fresh(0.6)
    assert len(written) == 27


def test_other_fragments_with_the_same_table_are_written_again():
    """Chunks are taken over only if both fragments and table have the same checksum, and nothing else differs."""
    inputs = np.arange(64, dtype=np.uint8).reshape(2, 32)
    record = {"beside": np.frombuffer(b"grid", np.uint8), "inputs": inputs}
    other = inputs.copy()
    other[1, 0] += 1  # in the checksum of the fragments
    assert unchanged(record, "grid", inputs).tolist() == [True, True]
    assert unchanged(record, "grid", other).tolist() == [True, False]
    assert not unchanged(record, "another grid", inputs).any()
    assert not unchanged(record, "grid", inputs[:1]).any()


def test_another_region_takes_nothing_over(tmp_path, affinities, written):
    """With another region of interest every chunk is written, and the bytes are those of a fresh run."""
    file = write_run(tmp_path / "a", input={"affinities": affinities}, **TABLES)
    run(file)
    written.clear()
    smaller = run(file, "input.stop=[36, 45, 41]")
    assert len(written) == 27
    other = run(write_run(tmp_path / "b", input={"affinities": affinities, "stop": [36, 45, 41]}, **TABLES))
    assert results(smaller) == results(other)
