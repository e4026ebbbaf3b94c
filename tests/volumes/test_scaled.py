"""``#scale=`` says which value is 255: every type becomes uint8 by the same correctly rounded quotient."""

from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError, VolumeError
from pipeline.runs.run import Run
from pipeline.stages import opened
from pipeline.volumes import open_volume
from pipeline.volumes.ingest import ingest
from tests.runs import write_run, write_volume

SHAPE = (8, 10, 12)
TRUTH = np.random.default_rng(0).integers(0, 2, (3, *SHAPE))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["uint8", "uint16", "float32"]), st.integers(1, 255), st.integers(0, 2**32 - 1))
def test_every_value_is_rounded_to_the_nearest_step(dtype: str, scale: int, seed: int) -> None:
    """Exact fractions, ties to even."""
    values = np.random.default_rng(seed).integers(0, scale + 1, (2, 3, 4)).astype(dtype)
    with TemporaryDirectory() as folder:
        np.save(f"{folder}/a.npy", values)
        volume = open_volume(f"{folder}/a.npy#resolution=8,8,8&scale={scale}")
        expected = [round(Fraction(int(value) * 255, scale)) for value in values.ravel()]
        assert volume.dtype == np.uint8
        assert volume[...].ravel().tolist() == expected


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "", "a", "1_0", "1,1,1"])
def test_a_scale_that_is_no_number_above_0_is_refused(text: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(SHAPE, "u1"))
    with pytest.raises(ConfigError, match="it must be a number above 0"):
        open_volume(f"{tmp_path}/a.npy#resolution=8,8,8&scale={text}")


@pytest.mark.parametrize("value", [101.0, -1.0, np.nan])
def test_values_beyond_the_scale_are_refused(value: float, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.full(SHAPE, value, "f4"))
    with pytest.raises(VolumeError, match="100 is the largest: give the value that means 255"):
        _ = open_volume(f"{tmp_path}/a.npy#resolution=8,8,8&scale=100")[...]


def affinities(folder: Path, largest: int, dtype: str = "uint8") -> str:
    opened.forget()
    return write_volume(folder / f"affinities-{largest}-{dtype}.zarr", (TRUTH * largest).astype(dtype))


def inputs_of(folder: Path, url: str) -> Run:
    opened.forget()
    return Run.open(write_run(folder, input={"affinities": url}))


@pytest.mark.parametrize(("largest", "guess"), [(1, 1), (2, 100), (99, 100), (100, 100), (127, 127)])
def test_affinities_of_which_none_is_sure_ask_for_the_scale(largest: int, guess: int, tmp_path: Path) -> None:
    """The value, the rule and the remedy; the remedy opens them, as it does if they are meant as they are."""
    url = affinities(tmp_path, largest)
    with pytest.raises(
        VolumeError, match=rf"none is larger than {largest} .*255 is sure.*#scale={guess}, or #scale=255"
    ):
        inputs_of(tmp_path, url)
    first = inputs_of(tmp_path, f"{url}#scale={guess}").inputs
    meant = inputs_of(tmp_path, f"{url}#scale=255").inputs
    assert first.fingerprint != meant.fingerprint
    assert open_volume(f"{url}#scale=255")[...].max() == largest


@pytest.mark.parametrize("largest", [128, 200, 255])
def test_affinities_that_are_sure_somewhere_are_taken(largest: int, tmp_path: Path) -> None:
    assert inputs_of(tmp_path, affinities(tmp_path, largest)).inputs.roi.shape == SHAPE


def test_only_the_region_of_a_run_is_looked_at(tmp_path: Path) -> None:
    """What is sure elsewhere says nothing of the voxels that are read."""
    data = np.zeros((3, 100, 40, 40), np.uint8)
    data[:, :50], data[:, 50:] = 100, 255
    url = write_volume(tmp_path / "a.zarr", data)
    opened.forget()
    with pytest.raises(VolumeError, match="none is larger than 100"):
        Run.open(write_run(tmp_path, input={"affinities": url, "stop": [50, 40, 40]}))


@pytest.mark.parametrize(("dtype", "largest"), [("uint16", 65535), ("float32", 255)])
def test_the_remedy_for_other_types_works(dtype: str, largest: int, tmp_path: Path) -> None:
    url = affinities(tmp_path, largest, dtype)
    with pytest.raises(VolumeError, match=f"#scale={largest}"):
        inputs_of(tmp_path, url)
    assert inputs_of(tmp_path, f"{url}#scale={largest}").inputs.spec.dtype == np.uint8


def test_what_is_ingested_by_a_scale_is_uint8(tmp_path: Path) -> None:
    report = ingest(f"{affinities(tmp_path, 100)}#scale=100", f"{tmp_path}/out.zarr")
    np.testing.assert_array_equal(open_volume(report.url)[...], TRUTH * 255)
