"""``petaseg export --to parquet``: tables that pyarrow reads, equal to what plain loops find in the volumes."""

from __future__ import annotations

import json
from math import ceil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.errors import ConfigError
from pipeline.handover import HANDOVERS, hand_over, parquet, sorting
from pipeline.runs.report import read_merge_tree
from pipeline.runs.run import Run
from tests.handover.handed import RESOLUTION, START, handed_run, plain_contacts, voxels
from tests.object_runs import SEEDS
from tests.object_runs import write as object_run
from tests.runs import petaseg, run
from workflows.commands.export import KINDS

NAMES = ("supervoxels", "contacts", "merges", "neurons")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(handed_run(tmp_path_factory.mktemp("run")))


@pytest.fixture(scope="module")
def tables(finished: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("out") / "tables"
    hand_over(finished, str(place), "parquet")
    assert {path.name for path in place.parent.iterdir()} == {"tables"}
    assert {path.name for path in place.iterdir()} == {"run.json", *(f"{name}.parquet" for name in NAMES)}
    return place


def columns(place: Path, name: str) -> dict[str, np.ndarray]:
    table = pq.read_table(place / f"{name}.parquet")
    return {column: table[column].to_numpy() for column in table.column_names}


def test_supervoxels_are_those_of_the_volume(finished: Run, tables: Path) -> None:
    """Ids, sizes, boxes, centres and segments are those of the voxels, and the first voxel is in the supervoxel."""
    ids, labels = voxels(finished, "supervoxels"), voxels(finished, "labels")
    found, start = columns(tables, "supervoxels"), np.array(finished.layout.roi.start)
    names, counts = np.unique(ids[ids > 0], return_counts=True)
    assert np.array_equal(found["id"], names)
    assert np.array_equal(found["voxels"], counts)
    assert len(names) > 300
    for row, name in enumerate(names):
        places = np.argwhere(ids == name)
        assert found["segment"][row] == labels[tuple(places[0])]
        for axis, letter in enumerate("zyx"):
            along = places[:, axis] + start[axis]
            assert found[f"first_{letter}"][row] == along[0]
            assert (found[f"start_{letter}"][row], found[f"stop_{letter}"][row]) == (along.min(), along.max() + 1)
            assert found[f"centre_{letter}"][row] == pytest.approx(along.mean())


def test_contacts_are_those_of_the_voxels(finished: Run, tables: Path) -> None:
    """Pairs, faces, areas, and the mean of the affinities between them."""
    expected = plain_contacts(finished, voxels(finished, "supervoxels"))
    found = columns(tables, "contacts")
    assert list(zip(found["a"].tolist(), found["b"].tolist(), strict=True)) == sorted(expected)
    z, y, x = RESOLUTION
    area = (y * x, z * x, z * y)
    for row, pair in enumerate(sorted(expected)):
        faces = expected[pair]
        assert found["faces"][row] == found["affinities"][row] == len(faces)
        assert found["area_nm2"][row] == sum(area[axis] for axis, _ in faces)
        assert found["score"][row] == sum(value for _, value in faces) / (255 * len(faces))


def test_the_score_of_a_quantile_is_that_of_the_linkage(tmp_path: Path) -> None:
    """With quantile linkage a contact's score is the smallest affinity that enough of them do not exceed."""
    finished = run(handed_run(tmp_path, agglomeration={"linkage": "quantile", "quantile": 0.75}))
    hand_over(finished, str(tmp_path / "tables"), "parquet")
    expected = plain_contacts(finished, voxels(finished, "supervoxels"))
    found = columns(tmp_path / "tables", "contacts")
    for row, pair in enumerate(sorted(expected)):
        values = sorted(value for _, value in expected[pair])
        assert found["score"][row] == values[max(1, ceil(3 * len(values) / 4)) - 1] / 255


def test_merges_are_the_merge_tree(finished: Run, tables: Path) -> None:
    found, tree = columns(tables, "merges"), read_merge_tree(finished)
    assert len(tree) > 100
    for name in ("a", "b", "score"):
        assert np.array_equal(found[name], tree[name])
    assert np.array_equal(found["order"], np.arange(len(tree)))


def test_neurons_are_those_of_the_result(finished: Run, tables: Path) -> None:
    labels, found = voxels(finished, "labels"), columns(tables, "neurons")
    names, counts = np.unique(labels[labels > 0], return_counts=True)
    assert np.array_equal(found["id"], names)
    assert np.array_equal(found["voxels"], counts)
    assert found["supervoxels"].sum() == len(columns(tables, "supervoxels")["id"])
    assert found["volume_nm3"].tolist() == (counts * 960.0).tolist()
    assert max(found["supervoxels"]) > 1


@pytest.mark.parametrize("chunk", [(20, 24, 28), (7, 24, 9)])
def test_the_files_do_not_depend_on_chunks_or_buckets(
    tables: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: tuple[int, int, int]
) -> None:
    """Another chunk shape, and rows that are sorted in many small buckets, give the same bytes."""
    monkeypatch.setattr(sorting, "LEAST_WIDTH", 700)
    monkeypatch.setattr(sorting, "WAITING", 50)
    hand_over(run(handed_run(tmp_path, chunk)), str(tmp_path / "tables"), "parquet")
    for path in tables.iterdir():
        assert (tmp_path / "tables" / path.name).read_bytes() == path.read_bytes(), path.name


def test_each_file_says_what_its_columns_mean(tables: Path, finished: Run) -> None:
    for name in NAMES:
        schema = pq.read_schema(tables / f"{name}.parquet")
        assert list(json.loads(schema.metadata[b"petaseg_columns"])) == schema.names
    facts = json.loads((tables / "run.json").read_text())
    assert (facts["bounds"][0], facts["threshold"]) == (list(START), 0.6)
    assert facts["resolution_nm"] == list(RESOLUTION)


def test_columns_are_documented_one_by_one() -> None:
    page = (Path(__file__).parents[2] / "docs" / "handing-on.md").read_text()
    for meanings in (parquet.SUPERVOXELS, parquet.CONTACTS, parquet.MERGES, parquet.NEURONS):
        for column in meanings:
            assert f"`{column}`" in page, column


@pytest.mark.parametrize("to", HANDOVERS)
def test_what_cannot_be_handed_on_is_refused(finished: Run, tmp_path: Path, to: str) -> None:
    """An unfinished cut, a run of objects and a target that exists are refused, and nothing is left."""
    other = Run.open(finished.source, ["segmentation.threshold=0.77"])
    with pytest.raises(ConfigError, match="has not finished assign_segments under this configuration, and only fin"):
        hand_over(other, str(tmp_path / "out"), to)
    with pytest.raises(ConfigError, match="is not on this machine; export to a path"):
        hand_over(finished, "s3://bucket/out", to)
    objects = Run.open(object_run(tmp_path / "objects", "objects", **SEEDS))
    with pytest.raises(ConfigError, match=r"makes objects, and --to \w+ hands on supervoxels and their merge tree"):
        hand_over(objects, str(tmp_path / "out"), to)
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ConfigError, match="exists already, and nothing is replaced"):
        hand_over(finished, str(tmp_path / "out"), to)
    assert (tmp_path / "out").read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"out", "objects"}


@pytest.mark.parametrize("to", HANDOVERS)
def test_what_dies_leaves_nothing(finished: Run, tmp_path: Path, to: str) -> None:
    class Died(BaseException):
        pass

    def die(done: int, total: int) -> None:
        if done:
            raise Died

    with pytest.raises(Died):
        hand_over(finished, str(tmp_path / "out"), to, die)
    assert not list(tmp_path.iterdir())


def test_the_command_hands_on_a_run(finished: Run, tables: Path, tmp_path: Path) -> None:
    """The command writes the same tables, names every format, and refuses what chooses voxels."""
    assert all(kind in KINDS for kind in HANDOVERS)
    done = petaseg("export", finished.url, tmp_path / "out", "--to", "parquet")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "merges.parquet").read_bytes() == (tables / "merges.parquet").read_bytes()
    refused = petaseg("export", finished.url, tmp_path / "no", "--to", "parquet", "--box", "0:9,0:8,10:20")
    assert refused.returncode != 0
    assert "--box is about voxels, and --to parquet writes none of a single volume" in " ".join(refused.stderr.split())
    refused = petaseg("export", finished.url, tmp_path / "no", "--to", "png")
    assert "hdf5, tiff, parquet, " in " ".join(refused.stderr.split())


def test_a_segmentation_beside_the_first_is_handed_on(tmp_path: Path) -> None:
    """Another threshold's volume beside the run has neurons of its own, and the same supervoxels."""
    file = handed_run(tmp_path)
    run(file)
    said = petaseg("relabel", file, "--threshold", "0.8", "--output", "strict.zarr")
    assert said.returncode == 0, said.stderr
    hand_over(Run.open(str(tmp_path / "run")), str(tmp_path / "first"), "parquet")
    beside = Run.open(str(tmp_path / "run" / "beside" / "strict"))
    hand_over(beside, str(tmp_path / "strict"), "parquet")
    found = columns(tmp_path / "strict", "neurons")
    assert np.array_equal(found["id"], np.unique(voxels(beside, "labels")[voxels(beside, "labels") > 0]))
    assert len(found["id"]) > len(columns(tmp_path / "first", "neurons")["id"])
    assert (tmp_path / "strict" / "merges.parquet").read_bytes() == (tmp_path / "first" / "merges.parquet").read_bytes()
