"""The summary and the preview of a run agree with its labels, voxel by voxel."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.runs.preview import preview
from pipeline.runs.run import Run
from pipeline.runs.summary import SPECK, Summary, summarise, summary_of
from pipeline.segmentation.sizes import Sizes
from pipeline.stages import opened
from tests.runs import petaseg, real_affinities, results, run, write_run, write_volume
from workflows.commands.relabel import parse_thresholds

SHAPE = (36, 45, 42)
CHUNKS = ([36, 45, 42], [12, 15, 14], [20, 45, 9])
TABLES = {"agglomeration": {"stop_score": 0.2}, "segmentation": {"min_size": 50}}


def tables(chunk: list[int]) -> dict[str, object]:
    return {**TABLES, "chunk_shape": chunk, "storage_chunk_shape": chunk}


@pytest.fixture(scope="module")
def source(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("data")
    inside = np.ones(SHAPE, np.uint8)
    inside[:, 20:30, 15:40] = 0
    return {
        "affinities": write_volume(folder / "affinities.zarr", real_affinities(shared_data, SHAPE), (10, 8, 8)),
        "mask": write_volume(folder / "mask.zarr", inside, (10, 8, 8)),
    }


def labels_of(finished: Run) -> np.ndarray:
    return np.frombuffer(results(finished)["labels"], np.uint64)


def check(found: Summary, labels: np.ndarray) -> None:
    """A summary agrees with the labels that it is about."""
    ids, sizes = np.unique(labels[labels > 0], return_counts=True)
    assert (found.segments, found.labelled) == (len(ids), sizes.sum())
    order = np.lexsort((ids, -sizes))[:10]
    assert found.largest == tuple(zip(ids[order].tolist(), sizes[order].tolist(), strict=True))
    assert found.specks == (sizes < SPECK).sum()
    assert found.median == pytest.approx(np.sort(sizes)[(len(sizes) - 1) // 2], rel=0.03)
    falling = np.sort(sizes)[::-1]
    assert found.half == pytest.approx(falling[np.searchsorted(np.cumsum(falling), sizes.sum() / 2)], rel=0.03)


@pytest.mark.parametrize("chunk", CHUNKS)
def test_a_summary_counts_what_the_labels_hold(tmp_path: Path, source: dict[str, str], chunk: list[int]) -> None:
    """Segments, voxels, the largest, specks and masked voxels are exact in any chunks."""
    finished = run(write_run(tmp_path, input=source, **tables(chunk)))
    found = summarise(finished)
    check(found, labels_of(finished))
    assert found.masked == 36 * 10 * 25
    assert found.labelled + found.masked + found.background == found.voxels == np.prod(SHAPE)
    assert found.voxel_um3 == pytest.approx(10 * 8 * 8 * 1e-9)


def test_a_preview_says_what_relabel_then_does(tmp_path: Path, source: dict[str, str]) -> None:
    """Of several thresholds at once: neurons, sizes, and chunks to write; and the run directory stays as it is."""
    file = write_run(tmp_path, input=source, **tables(CHUNKS[1]))
    now = run(file, "segmentation.threshold=0.6")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    previews = preview(now, [0.4, 0.6, 0.62, 0.9])
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before
    assert [each.is_present for each in previews] == [False, True, False, False]
    other_rules = Run.open(file, ["segmentation.threshold=0.3"])
    assert [each.rewritten for each in preview(other_rules, [0.4, 0.6, 0.62, 0.9])] == [
        each.rewritten for each in previews
    ], "what is written is counted against the labels that are there"
    for each in previews:
        run(file, "segmentation.threshold=0.6")
        opened.forget()
        old = {chunk.name: now.layout.get_part("assign_segments", chunk)["segment"] for chunk in now.layout.grid()}
        then = run(file, f"segmentation.threshold={each.threshold}")
        new = {chunk.name: then.layout.get_part("assign_segments", chunk)["segment"] for chunk in then.layout.grid()}
        assert each.rewritten == sum((old[name] != new[name]).any() for name in old)
        check(each.summary, labels_of(then))


def test_a_preview_of_unfinished_labels_counts_every_missing_chunk(tmp_path: Path, source: dict[str, str]) -> None:
    """Without labels, each chunk would be written."""
    file = write_run(tmp_path, input=source, **tables(CHUNKS[1]))
    finished = run(file)
    (tmp_path / "run" / "ledger" / "relabel" / "log.jsonl").unlink()
    assert [each.rewritten for each in preview(finished, [0.5])] == [27]


@pytest.mark.parametrize("text", ["", "0.3;0.4", "1.5", "nan", "-0.1"])
def test_thresholds_to_preview_are_numbers_from_0_to_1(text: str) -> None:
    with pytest.raises(ConfigError, match="give thresholds from 0 to 1"):
        parse_thresholds(text)
    assert parse_thresholds("0.5, 0.3,0.5") == [0.3, 0.5]


def test_a_preview_below_the_end_of_the_tree_is_refused(tmp_path: Path, source: dict[str, str]) -> None:
    finished = run(write_run(tmp_path, input=source, **tables(CHUNKS[0])))
    with pytest.raises(ConfigError, match=r"--preview: .*0\.1; the merge tree ends at agglomeration\.stop_score 0\.2"):
        preview(finished, [0.5, 0.1])


def made(folder: Path, affinities: np.ndarray, **more: object) -> Summary:
    source = write_volume(folder / "affinities.zarr", affinities)
    inputs = {"affinities": source, **more}
    return summarise(run(write_run(folder, input=inputs, chunk_shape=[24] * 3, storage_chunk_shape=[24] * 3)))


def test_a_volume_without_labels_is_warned_of(tmp_path: Path) -> None:
    """Low affinities everywhere give background, which is said with what to look at."""
    low = np.full((3, 24, 24, 24), 3, np.uint8)
    low[0, 0, 0, 0] = 130  # else the run asks whether 3 is as sure as they get
    found = made(tmp_path, low)
    assert (found.segments, found.background) == (0, 24**3)
    assert len(found.warnings) == 1
    assert "100% of the voxels have no label" in found.warnings[0]
    assert "report/overview.png" in found.warnings[0]


def test_a_mask_that_excludes_everything_is_named(tmp_path: Path) -> None:
    mask = write_volume(tmp_path / "mask.zarr", np.zeros((24, 24, 24), np.uint8))
    found = made(tmp_path, np.full((3, 24, 24, 24), 200, np.uint8), mask=mask)
    assert found.masked == 24**3
    assert "the mask excludes all" in found.warnings[0]


def test_one_segment_that_holds_nearly_everything_is_warned_of(tmp_path: Path) -> None:
    found = made(tmp_path, np.full((3, 24, 24, 24), 255, np.uint8))
    assert found.segments == 1
    assert "holds 100% of all labelled voxels" in found.warnings[0]
    assert "--preview 0.6,0.7,0.8`" in found.warnings[0]


def test_thousands_of_specks_are_warned_of(tmp_path: Path) -> None:
    """If most segments are specks, the remedy is a lower threshold or a smallest size; a thousand others are enough."""
    source = write_volume(tmp_path / "affinities.zarr", np.full((3, 24, 24, 24), 255, np.uint8))
    opened_run = Run.open(
        write_run(tmp_path, input={"affinities": source}, chunk_shape=[24] * 3, storage_chunk_shape=[24] * 3)
    )
    many, others = np.full(1000, SPECK - 1), np.full(1000, SPECK)
    ids = np.arange(1, 3000, dtype=np.uint64)
    found = summary_of(opened_run, Sizes.of(ids[:1999], np.concatenate([many, others[1:]])))
    assert found.specks == 1000
    assert "1,000 of 1,999 segments are specks of fewer than 64 voxels" in found.warnings[-1]
    assert "--min-size 500" in found.warnings[-1]
    assert not summary_of(opened_run, Sizes.of(ids[:2000], np.concatenate([many, others]))).warnings


def test_the_commands_print_and_store_the_summary(tmp_path: Path, source: dict[str, str]) -> None:
    """``run`` and ``relabel`` end with it, ``report/summary.json`` has it, and ``--preview`` prints its table."""
    file = write_run(tmp_path, input=source, **tables(CHUNKS[1]))
    first = petaseg("run", file)
    assert first.returncode == 0, first.stderr
    assert "threshold 0.5 (default)" in first.stdout
    assert "9,000 of them masked" in first.stdout
    table = petaseg("relabel", file, "--preview", "0.5,0.9")
    assert "none: as it is" in table.stdout
    assert f"apply one with: petaseg relabel {file} --threshold 0.9" in table.stdout
    second = petaseg("relabel", file, "--threshold", "0.9")
    assert "threshold 0.9 (petaseg relabel)" in second.stdout
    assert "um3 (label" in second.stdout
    stored = json.loads((tmp_path / "run" / "report" / "summary.json").read_text())
    assert stored["threshold"] == {"value": 0.9, "source": "petaseg relabel", "file": None}
    check_stored = summarise(Run.open(file)).to_dict()
    assert stored == json.loads(json.dumps(check_stored))
