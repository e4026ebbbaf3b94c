"""Edits out of tables and saved viewer states are those that the command line names."""

from __future__ import annotations

import json
from pathlib import Path

import neuroglancer
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import ConfigError, VolumeError
from pipeline.geometry import Vec
from pipeline.runs.edit_log import read_log
from pipeline.runs.edit_states import edits_of_state
from pipeline.runs.edit_tables import read_edits
from pipeline.runs.run import Run
from pipeline.storage import ObjectStore
from pipeline.viewing.state import stored_state
from pipeline.volumes import open_volume
from tests.runs import petaseg, run, write_run, write_volume

ROWS = [
    {"edit": "merge", "segment": "", "from": "12", "to": "4,5,6"},
    {"edit": "split", "segment": "40", "from": "1,2,3;7", "to": "3,2,1"},
    {"edit": "split", "segment": None, "from": "8", "to": "9"},
]
PLACES = [
    ("merge", None, (12,), ((4, 5, 6),)),
    ("split", 40, ((1, 2, 3), 7), ((3, 2, 1),)),
    ("split", None, (8,), (9,)),
]
CSV = 'edit,segment,from,to\nmerge,,12,"4,5,6"\nsplit,40,"1,2,3;7","3,2,1"\nsplit,,8,9\n'


def write(folder: Path, kind: str) -> Path:
    """The rows as a table of a kind."""
    file = folder / f"edits.{kind.split()[0]}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), file)
    elif kind == "json with lists":
        lists = [
            {"edit": "merge", "from": 12, "to": [[4, 5, 6]]},
            {"edit": "split", "segment": [40], "from": [[1, 2, 3], 7], "to": "3,2,1"},
            {"edit": "split", "from": [8], "to": 9},
        ]
        file.write_text(json.dumps(lists))
    else:
        file.write_text(json.dumps(ROWS) if kind == "json" else CSV, encoding="utf-8-sig" if kind == "csv" else None)
    return file


@pytest.mark.parametrize("kind", ["csv", "json", "json with lists", "parquet"])
def test_a_table_says_what_the_command_line_says(tmp_path: Path, kind: str) -> None:
    """All kinds of tables give the same edits, in their order; a mark at the beginning of a text is no obstacle."""
    found = read_edits(str(write(tmp_path, kind)))
    assert [(each.kind, each.segment, each.first, each.second) for each in found] == PLACES
    assert found[1].source == f"{tmp_path}/edits.{kind.split()[0]}, row 2"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("edits.txt", "", r"edits.txt must be a table of edits that ends in \.csv, \.json, \.parquet"),
        ("edits.csv", "edit,from,to\n", "edits.csv has no edits; it needs one row for each"),
        ("edits.csv", "edit,from,too\nmerge,1,2\n", "row 1 has too; an edit has edit, segment, from, to"),
        ("edits.csv", "edit,from,to\nmerge,1,2,3,4\n", "row 1 has more; an edit has"),
        ("edits.csv", "edit,from,to\nmerge,1,2\nmerges,1,2\n", "row 2: edit is 'merges'; it must be merge or split"),
        ("edits.csv", "edit,from,to\nmerge,1;2,3\n", "row 1: a merge has one place in from and one in to.*2 places"),
        ("edits.csv", "edit,from,to\nsplit,,3\n", "row 1, from is ''; it must name an id, or a point z,y,x"),
        ("edits.csv", 'edit,from,to\nsplit,"1,2",3\n', "row 1, from: '1,2' is neither an id nor a point"),
        ("edits.csv", 'edit,segment,from,to\nsplit,5;6,"1",3\n', "row 1: segment is '5;6'; it must be one id"),
        ("edits.json", "[1]", "edits.json must be a list of edits, each an object with"),
        ("edits.json", "{", "edits.json cannot be read as json"),
        ("edits.json", '[{"edit": "merge", "from": true, "to": 1}]', "row 1, from is True; it must name an id"),
        ("edits.json", '[{"edit": "merge", "from": [1.5], "to": 1}]', "row 1, from: '1.5' is neither an id nor"),
        ("edits.parquet", "PAR", "edits.parquet cannot be read as parquet"),
    ],
)
def test_what_is_no_table_of_edits_is_refused_with_its_row(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_edits(str(tmp_path / name))


def test_a_table_or_state_that_there_is_not_is_refused(tmp_path: Path) -> None:
    for read in (read_edits, lambda path: edits_of_state(path, (8, 8, 8))):
        with pytest.raises(ConfigError, match=r"none.json does not exist"):
            read(f"{tmp_path}/none.json")


def drawn(
    merges: list[neuroglancer.LineAnnotation],
    splits: list[neuroglancer.LineAnnotation],
    scales: tuple[float, ...] = (8, 8, 40),
) -> dict:
    """A state as Neuroglancer writes it, of voxels x, y, z of these nanometres."""
    dimensions = neuroglancer.CoordinateSpace(names=["x", "y", "z"], units="nm", scales=scales)
    state = neuroglancer.ViewerState(dimensions=dimensions)
    for name, lines in (("merge", merges), ("split", splits)):
        if lines:
            state.layers[name] = neuroglancer.LocalAnnotationLayer(dimensions=dimensions, annotations=lines)
    return state.to_json()


def line(a: tuple[float, ...], b: tuple[float, ...], said: str | None = None) -> neuroglancer.LineAnnotation:
    return neuroglancer.LineAnnotation(id=f"{a}{b}", point_a=a, point_b=b, description=said)


@pytest.mark.parametrize("kept", ["by petaseg", "by Neuroglancer"])
def test_lines_of_a_saved_state_are_edits(tmp_path: Path, kept: str) -> None:
    """A merge for each line of ``merge``; lines of ``split`` with one description are one split. Points are x, y, z."""
    state = drawn(
        [line((6.5, 5.5, 4.5), (9.99, 8, 7.01))],
        [line((1, 2, 3), (4, 5, 6), "soma"), line((3, 3, 3), (5, 5, 5)), line((1, 1, 1), (7, 7, 7), " soma")],
    )
    file = tmp_path / "view.json"
    file.write_text(json.dumps({"version": 1, "state": state} if kept == "by petaseg" else state))
    found = edits_of_state(str(file), (40, 8, 8))
    assert [(each.kind, each.segment, each.first, each.second) for each in found] == [
        ("merge", None, ((4, 5, 6),), ((7, 8, 9),)),
        ("split", None, ((3, 2, 1), (1, 1, 1)), ((6, 5, 4), (7, 7, 7))),
        ("split", None, ((3, 3, 3),), ((5, 5, 5),)),
    ]
    assert found[0].source == f"{file}, layer merge, annotation 1"


def test_points_are_counted_in_voxels_of_the_run(tmp_path: Path) -> None:
    """A state whose axes have another scale names the same places in space, also at the edge of a voxel."""
    (tmp_path / "state.json").write_text(json.dumps(drawn([line((12, 20, 40), (13, 21, 41))], [], (4, 4, 4))))
    (found,) = edits_of_state(str(tmp_path / "state.json"), (8, 8, 8))
    assert (*found.first, *found.second) == (Vec(20, 10, 6), Vec(20, 10, 6))


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"layers": []}, "has no lines in annotation layers called merge and split; draw some in `petaseg view`"),
        ([], "is no saved state of Neuroglancer, since it has no layers"),
        (
            {"layers": [{"type": "annotation", "name": "merge", "annotations": [{"type": "line", "pointA": [1, 2]}]}]},
            r"has annotations that Neuroglancer does not write \(IndexError",
        ),
        (
            {"layers": [{"type": "annotation", "name": "merge", "annotations": [{"type": "point"}]}]},
            "layer merge, annotation 1 is a point; an edit is a line",
        ),
        (
            {"layers": [{"type": "annotation", "name": "split", "annotations": []}], "dimensions": {"t": [1, "s"]}},
            "layer split has the axes .*; edits need x, y and z in metres",
        ),
    ],
)
def test_a_state_without_edits_is_refused(tmp_path: Path, state: object, said: str) -> None:
    if isinstance(state, dict):
        state.setdefault("dimensions", {axis: [8e-9, "m"] for axis in "xyz"})
    (tmp_path / "state.json").write_text(json.dumps(state))
    with pytest.raises(ConfigError, match=said):
        edits_of_state(str(tmp_path / "state.json"), (8, 8, 8))


def test_a_state_of_a_newer_petaseg_is_refused(tmp_path: Path) -> None:
    (tmp_path / "view.json").write_text(json.dumps({"version": 2, "state": {}}))
    with pytest.raises(VolumeError, match="was written by a newer petaseg"):
        edits_of_state(str(tmp_path / "view.json"), (8, 8, 8))


def test_edits_that_were_drawn_in_the_viewer_and_kept_with_the_run_are_applied(tmp_path: Path) -> None:
    """``petaseg edit RUN --state RUN/view.json`` merges what a line joins; a table then splits it again."""
    affinities = np.full((3, 4, 8, 16), 255, np.uint8)
    affinities[2, :, :, 8] = 20
    given = {"affinities": write_volume(tmp_path / "affinities.zarr", affinities)}
    file = write_run(tmp_path, input=given, supervoxels={"filter_width": 1}, segmentation={"threshold": 0.5})
    finished = run(file)
    place = ObjectStore(finished.home)
    before = open_volume(finished.result_url)[...]
    state = drawn([line((2.5, 4.5, 2.5), (13.5, 4.5, 2.5))], [], (8, 8, 8))
    place.put("view.json", json.dumps({"version": 1, "state": state}).encode())
    done = petaseg("edit", file, "--state", tmp_path / "run" / "view.json", "--quiet")
    assert done.returncode == 0, done.stderr
    assert np.unique(open_volume(finished.result_url)[...]).size == np.unique(before).size - 1
    assert stored_state(place, "") == state, "what was drawn stays in the state"
    again = petaseg("edit", file, "--state", tmp_path / "run" / "view.json")
    assert "is about one segment" in again.stderr
    (tmp_path / "edits.csv").write_text('edit,from,to\nsplit,"2,4,2","2,4,13"\n')
    done = petaseg("edit", file, "--table", tmp_path / "edits.csv", "--quiet")
    assert done.returncode == 0, done.stderr
    assert (open_volume(Run.open(file).result_url)[...] == before).all()
    assert len(read_log(place).entries) == 2
