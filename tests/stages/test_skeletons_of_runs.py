"""Skeletons of a run appear when all are complete, and are the same bytes after a kill and with other chunks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.runs.run import Run
from pipeline.runs.swc import export_swc
from pipeline.runs.verify import verify_run
from pipeline.shapes.measure_tables import read_table
from pipeline.shapes.shards import bytes_of
from pipeline.stages.extract_skeletons import ExtractSkeletons
from pipeline.stages.write_skeletons import TABLE
from tests.runs import petaseg, run, write_run, write_volume
from tests.stages.test_downsample import Died, everything, image_run

TABLES = {"downsample": None, "skeletons": {"smallest_voxels": 20, "const_nm": 20.0}}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(image_run(tmp_path_factory.mktemp("run"), **TABLES))


def skeletons(each: Run) -> dict[str, bytes]:
    folder = Path(each.layout.run_url)
    return everything(folder / "skeletons") | {"table": (folder / TABLE).read_bytes()}


def test_other_chunks_give_the_same_skeletons(finished: Run, tmp_path: Path) -> None:
    """The files of a run with other chunks are the same, to the byte, and verify finds nothing."""
    other = run(image_run(tmp_path, [12, 16, 8], **TABLES))
    assert skeletons(other) == skeletons(finished)
    assert set(skeletons(finished)) == {"info", "0.shard", "table"}
    assert all(proof.proven for proof in verify_run(other, None, seed=0))


def test_a_killed_run_has_no_info_and_ends_in_the_same_bytes(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readers find no skeletons until all shards are written; the next driver ends with those of a whole run."""
    file = image_run(tmp_path, **TABLES)
    with monkeypatch.context() as patched:

        def die(self: ExtractSkeletons, chunk: Any, products: Any) -> None:
            raise Died

        patched.setattr(ExtractSkeletons, "write", die)
        with pytest.raises(Died):
            run(file)
    assert not (tmp_path / "run" / "skeletons" / "info").exists()
    assert skeletons(run(file)) == skeletons(finished)
    run(image_run(tmp_path, **{**TABLES, "skeletons": None}))
    assert not (tmp_path / "run" / "skeletons" / "info").exists()
    assert not (tmp_path / "run" / TABLE).exists()


def test_swc_of_a_run_is_its_skeletons(finished: Run, tmp_path: Path) -> None:
    """Each skeleton is a file with as many lines as it has vertices; some alone where they are named."""
    table = read_table((Path(finished.url) / TABLE).read_bytes())
    assert petaseg("export", finished.url, tmp_path / "all", "--to", "swc").returncode == 0
    lines = {path.stem: path.read_text().splitlines() for path in (tmp_path / "all").iterdir()}
    vertices = dict(zip(map(str, table["id"].tolist()), table["vertices"].tolist(), strict=True))
    assert {name: sum(not line.startswith("#") for line in found) for name, found in lines.items()} == vertices
    first = int(table["id"][0])
    assert export_swc(finished, str(tmp_path / "one"), [first]) == 1
    assert (tmp_path / "one" / f"{first}.swc").read_text() == (tmp_path / "all" / f"{first}.swc").read_text()


def test_what_has_no_skeleton_is_refused(finished: Run, tmp_path: Path) -> None:
    """A run without skeletons, and a segment without one, are refused with the remedy."""
    with pytest.raises(ConfigError, match=r"--segment is 123456789, which has no skeleton: .*smallest_voxels"):
        export_swc(finished, str(tmp_path / "out"), [123456789])
    bare = Run.open(image_run(tmp_path, downsample=None))
    with pytest.raises(ConfigError, match=r"has no skeletons: first `petaseg add .* skeletons`"):
        export_swc(bare, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_pieces_far_apart_count_together(tmp_path: Path) -> None:
    """Of given labels, a segment whose pieces are small in each chunk has a skeleton if all of it is large enough."""
    labels = np.zeros((16, 16, 48), np.uint32)
    labels[4:8, 4:8, 3:8] = labels[4:8, 4:8, 40:45] = 7
    labels[10:14, 4:8, 3:8] = 9
    tables = {"skeletons": {"smallest_voxels": 100}, "meshes": {"smallest_voxels": 100}}
    shapes = {"chunk_shape": [16, 16, 16], "storage_chunk_shape": [16, 16, 16]}
    given = {"labels": write_volume(tmp_path / "labels.zarr", labels)}
    made = run(write_run(tmp_path, input=given, segmentation={"kind": "labels"}, **tables, **shapes))
    assert read_table((Path(made.url) / TABLE).read_bytes())["id"].tolist() == [7]
    meshes = (Path(made.url) / "meshes" / "0.shard").read_bytes()
    assert (bytes_of(meshes, 7) is not None, bytes_of(meshes, 9)) == (True, None)
