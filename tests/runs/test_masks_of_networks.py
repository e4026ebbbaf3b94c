"""A mask or objects from a network that predicts affinities too: neither a neuron nor a model's threshold is needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import VolumeError
from pipeline.runs.run import Run
from pipeline.volumes import open_volume
from tests.heads import heads_run, write_model
from tests.runs import run, write_run, write_volume

FOREGROUND = [{"what": "foreground", "channels": 1}]


@pytest.mark.parametrize("kind", ["mask", "objects"])
def test_a_network_of_affinities_and_foreground_makes_a_mask(tmp_path: Path, kind: str) -> None:
    """Only the head that the result is made of is stored, and nothing is asked for of which neurons are made."""
    file = heads_run(tmp_path, None, segmentation={"kind": kind})
    write_model(tmp_path / "model", FOREGROUND)
    finished = run(file)
    assert finished.inputs.heads == ("foreground",)
    assert (tmp_path / "run" / f"{kind}.zarr").is_dir()


def test_the_threshold_of_a_card_is_for_neurons_alone(tmp_path: Path) -> None:
    """A mask is cut at 0.5, and status says so, whatever threshold of affinities the card names."""
    file = heads_run(tmp_path, ["affinities", "foreground"], segmentation={"kind": "mask"})
    write_model(tmp_path / "model", FOREGROUND, threshold=0.8)
    assert str(Run.open(str(file)).chosen) == "0.5 (default)"


def signed(folder: Path, scale: float) -> Path:
    """A run file for a mask of a signed distance of another program, from -scale to scale."""
    values = np.linspace(-scale, scale, 6 * 7 * 8, dtype=np.float32).reshape(6, 7, 8)
    folder.mkdir(exist_ok=True)
    heads = {"signed_distance": write_volume(folder / "signed.zarr", values)}
    return write_run(folder, input={"heads": heads}, segmentation={"kind": "mask", "threshold": 0.2})


def test_a_signed_distance_of_another_program_is_read_from_minus_1_to_1(tmp_path: Path) -> None:
    """Its values mean the same as those of a network's head, so the mask is where they are above the threshold."""
    finished = run(signed(tmp_path, 1))
    mask = open_volume(finished.result_url).read(finished.layout.roi)
    expected = np.rint(127.5 * (np.linspace(-1, 1, 6 * 7 * 8) + 1)) > 127.5 * 1.2
    np.testing.assert_array_equal(mask.ravel(), expected)


def test_a_signed_distance_in_voxels_is_refused_with_what_mends_it(tmp_path: Path) -> None:
    with pytest.raises(VolumeError, match=r"must lie in -1\.\.1: divide them by the largest distance"):
        Run.open(str(signed(tmp_path, 30)))
