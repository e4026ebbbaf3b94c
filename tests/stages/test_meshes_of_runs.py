"""Meshes of a run appear when all are complete, and are the same bytes after a kill and with other chunks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.runs.run import Run
from pipeline.runs.verify import verify_run
from pipeline.stages.extract_meshes import ExtractMeshes
from tests.runs import run
from tests.stages.test_downsample import Died, everything, image_run

TABLE = {"meshes": {"smallest_voxels": 20}}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(image_run(tmp_path_factory.mktemp("run"), **TABLE))


def meshes(each: Run) -> dict[str, bytes]:
    return everything(Path(each.layout.run_url) / "meshes")


def test_other_chunks_give_the_same_meshes(finished: Run, tmp_path: Path) -> None:
    """The files of a run with other chunks are the same, to the byte, and verify finds nothing."""
    other = run(image_run(tmp_path, [12, 16, 8], **TABLE))
    assert meshes(other) == meshes(finished)
    assert set(meshes(finished)) == {"info", "0.shard"}
    assert all(proof.proven for proof in verify_run(other, None, seed=0))


def test_a_killed_run_has_no_info_and_ends_in_the_same_bytes(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readers find no meshes until all shards are written; the next driver ends with those of a whole run."""
    file = image_run(tmp_path, **TABLE)
    with monkeypatch.context() as patched:

        def die(self: ExtractMeshes, chunk: Any, products: Any) -> None:
            raise Died

        patched.setattr(ExtractMeshes, "write", die)
        with pytest.raises(Died):
            run(file)
    assert not (tmp_path / "run" / "meshes" / "info").exists()
    assert meshes(run(file)) == meshes(finished)
    run(image_run(tmp_path, meshes=None))
    assert not (tmp_path / "run" / "meshes" / "info").exists()
