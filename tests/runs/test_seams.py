"""The seam report: quiet on a run as it is, loud where one chunk was tampered with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.ndimage import uniform_filter

from pipeline.evaluation.seams import NUMBERS, agreement, jump, seam_test, sharpness
from pipeline.geometry import BoundingBox, Vec
from pipeline.grid import ChunkGrid
from pipeline.runs.run import Run
from pipeline.runs.seams import faces_of, seam_report
from pipeline.stages import opened
from pipeline.volumes import open_volume
from tests.runs import run, write_run, write_volume

CHUNK = BoundingBox(Vec(0, 48, 48), Vec(48, 96, 96))


@pytest.fixture(scope="module")
def finished(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Real tissue, 48 x 144 x 144 voxels in nine chunks, from the image to neurons."""
    folder = tmp_path_factory.mktemp("seams")
    with h5py.File(shared_data / "fib25_train2.h5") as file:
        raw = file["raw"][190:238, 60:204, 60:204]
    image = write_volume(folder / "image.zarr", raw)
    shapes = {"chunk_shape": [48, 48, 48], "storage_chunk_shape": [48, 48, 48]}
    inference = {"model": "fib25-tiny", "patch_shape": [32, 64, 64], "overlap": [16, 16, 16]}
    return run(write_run(folder, input={"image": image}, inference=inference, **shapes))


def test_a_clean_run_has_no_seams(finished: Run) -> None:
    """Nine chunks of real tissue have twelve faces, and none of them shows, in labels or affinities."""
    tests = seam_report(finished)
    assert {(test.volume, test.number) for test in tests} == {
        ("labels", "agreement"),
        ("affinities", "jump"),
        ("affinities", "sharpness"),
    }
    assert all(test.passed and test.faces == 12 for test in tests), tests


def test_a_chunk_with_other_labels_is_a_seam(finished: Run) -> None:
    """One chunk whose labels were changed is found by its faces, and by labels alone."""
    with tampered(finished.layout.volume_url("labels"), lambda labels: np.where(labels > 0, labels + 10**6, 0)):
        loud = [test for test in seam_report(finished) if not test.passed]
    assert [test.number for test in loud] == ["agreement"]
    assert len(loud[0].seams) == 4


def test_a_chunk_with_blurred_affinities_is_a_seam(finished: Run) -> None:
    """One chunk whose affinities were blurred is found by the change within planes."""
    with tampered(finished.layout.volume_url("affinities"), lambda head: uniform_filter(head, (1, 5, 5, 5))):
        loud = {test.number for test in seam_report(finished) if not test.passed}
    assert "sharpness" in loud
    assert "agreement" not in loud


@contextmanager
def tampered(url: str, change: Callable[[np.ndarray], np.ndarray]) -> Iterator[None]:
    """Another content of one chunk while the block runs."""
    volume = open_volume(url, mode="r+")
    before = volume.read(CHUNK)
    volume.write(CHUNK, change(before).astype(before.dtype))
    opened.forget()
    yield
    volume.write(CHUNK, before)
    opened.forget()


def test_faces_are_sampled_evenly() -> None:
    """Of a large grid at most so many faces of each axis are looked at, spread over it; a thin chunk has none."""
    box = BoundingBox(Vec(3, 3, 3), Vec(43, 1003, 1003))
    faces = faces_of(ChunkGrid(box, box, Vec(10, 10, 10)), most=50)
    assert len(faces) == 150
    assert len({face.name for face in faces}) == 150
    assert {face.planes.shape for face in faces} == {(4, 10, 10), (10, 4, 10), (10, 10, 4)}
    assert max(face.planes.start[2] for face in faces) > 900
    thin = BoundingBox(Vec(0, 0, 0), Vec(4, 4, 4))
    assert faces_of(ChunkGrid(thin, thin, Vec(4, 4, 2))) == []


def test_numbers_of_planes() -> None:
    """The three numbers of four planes that are known by hand."""
    same = np.broadcast_to(np.array([[1, 1], [2, 2]], np.uint64), (4, 2, 2))
    assert agreement(same) == 0
    assert agreement(np.concatenate([same[:2], same[:2] + 5])) == -1
    assert np.isnan(agreement(np.zeros((4, 2, 2), np.uint64)))
    steps = np.array([0, 0, 30, 30], np.uint8)[:, None, None] * np.ones((1, 2, 2), np.uint8)
    assert jump(steps) == 30
    checks = np.array([[0, 20], [20, 0]], np.uint8)
    assert sharpness(np.stack([checks, checks, checks // 2, checks])) == pytest.approx(np.log(10.1 / 20.1))


@pytest.mark.parametrize("number", NUMBERS)
def test_small_differences_are_no_seams_however_sure(number: str) -> None:
    """A number that is off by less than an effect that matters passes, also if the numbers inside are all the same."""
    assert seam_test(number, "v", {"a": 0.01, "b": -0.01}, [0.0] * 100).passed
    assert seam_test(number, "v", {"a": float("nan")}, []).passed
