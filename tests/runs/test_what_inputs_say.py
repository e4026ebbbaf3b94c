"""The inputs of a run fit each other, or are refused before anything is computed."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ConfigError, PetasegError, VolumeError
from pipeline.geometry import BoundingBox
from pipeline.runs.run import Run
from pipeline.stages import opened
from pipeline.stages.affinities import to_uint8
from tests.runs import write_run, write_volume

SHAPE = (8, 10, 12)


def opened_run(folder: Path, affinities: np.ndarray, **tables: object) -> Run:
    opened.forget()
    url = write_volume(folder / "affinities.zarr", affinities)
    return Run.open(write_run(folder, input={"affinities": url}, **tables))


def affinities(dtype: str = "uint8", largest: float = 255) -> np.ndarray:
    inside = np.random.default_rng(0).integers(0, 2, (3, *SHAPE))
    return (inside * largest).astype(dtype)


def test_affinities_of_0_and_1_in_uint8_are_refused(tmp_path: Path) -> None:
    """1 of 255 is no affinity; the message names a command that stretches them."""
    with pytest.raises(VolumeError, match="--to uint8 --percentiles 0,100"):
        opened_run(tmp_path, affinities(largest=1))


@pytest.mark.parametrize("largest", [255.0, 1.01, np.nan, -0.1])
def test_floating_point_affinities_of_another_range_are_refused_at_once(largest: float, tmp_path: Path) -> None:
    with pytest.raises(VolumeError, match=r"must lie in 0\.\.1"):
        opened_run(tmp_path, affinities("float32", largest))


def test_sums_of_floats_that_are_off_by_rounding_are_taken(tmp_path: Path) -> None:
    values = np.array([1 + 1e-7, -1e-7, 1.0019], np.float32)
    assert list(to_uint8(values, "here")) == [255, 0, 255]
    assert opened_run(tmp_path, affinities("float32", 1 + 1e-7)).inputs.roi.shape == SHAPE


def truth_of(folder: Path, box: BoundingBox, size: int = 8, **evaluation: object) -> Run:
    folder.mkdir(exist_ok=True)
    labels = write_volume(folder / "truth.zarr", np.ones(box.shape, np.uint64), (size, size, size), box.start)
    return opened_run(folder, affinities(), evaluation={"labels": labels, **evaluation})


def test_truth_of_a_part_scores_that_part(tmp_path: Path) -> None:
    part = BoundingBox((2, 0, 3), (6, 10, 20))
    truth = truth_of(tmp_path, part).inputs.truth
    assert truth
    assert truth.box == BoundingBox((2, 0, 3), (6, 10, 12))


@pytest.mark.parametrize(
    ("box", "size", "evaluation", "message"),
    [
        (BoundingBox((0, 0, 0), SHAPE), 16, {}, r"16\.0\] nm.*they must be equal"),
        (BoundingBox((20, 0, 0), (28, 10, 12)), 8, {}, "#offset=z,y,x"),
        (BoundingBox((2, 0, 0), (6, 10, 12)), 8, {"start": [0, 0, 0]}, "narrow evaluation.start"),
    ],
)
def test_truth_that_does_not_fit_is_refused(
    box: BoundingBox, size: int, evaluation: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(PetasegError, match=message):
        truth_of(tmp_path, box, size, **evaluation)


@pytest.mark.parametrize("prefix", ["zarr://", "", "file"])
def test_a_path_with_a_format_in_front_counts_from_the_run_file(
    prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is the same wherever the command is given."""
    write_volume(tmp_path / "my data #2.zarr", affinities())
    url = f"file://{tmp_path}/my%20data%20%232.zarr" if prefix == "file" else f"{prefix}my data #2.zarr"
    file = write_run(tmp_path, input={"affinities": url})
    monkeypatch.chdir("/")
    opened.forget()
    assert Run.open(file).inputs.spec.bounds.shape == SHAPE


def test_a_16_bit_image_names_the_command_that_converts_it(tmp_path: Path) -> None:
    opened.forget()
    image = write_volume(tmp_path / "image.zarr", np.zeros(SHAPE, np.uint16))
    with pytest.raises((VolumeError, ConfigError), match=r"petaseg ingest .*image\.zarr image\.zarr --to uint8"):
        Run.open(write_run(tmp_path, input={"image": image}))
