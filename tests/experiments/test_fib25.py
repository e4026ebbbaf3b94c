"""Experiments on the real volume train on other parts of it than they report on."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.experiments import fib25
from pipeline.experiments.equal_time import seconds_per_update
from pipeline.experiments.fib25 import Network, Training
from pipeline.experiments.label_efficiency import BOXES, PERCENTS, part
from pipeline.volumes import open_volume

TINY = Network("U-Net", "residual_unet", {"widths": [4, 6], "pools": [[2, 2, 2]], "stride": [2, 2, 2]})


@pytest.fixture(autouse=True)
def real_data(shared_data, monkeypatch):
    monkeypatch.setenv("PETASEG_DATA", str(shared_data))


def config(boxes, **changes):
    return fib25.train_config(Path("nowhere"), TINY, Training(**changes), boxes, steps=100, seed=0)


def test_planes_of_validation_and_test_are_never_trained_on():
    """Training on planes of validation or test is refused, and the parts of the volume do not overlap."""
    for part_of_it in (fib25.WATCH, fib25.TEST, (160, 170)):
        with pytest.raises(ConfigError, match="only planes below 169"):
            config([fib25.planes(part_of_it)])
    given = config([fib25.planes(fib25.TRAIN)])
    assert given.volumes[0].stop == (169, 250, 250)
    assert given.validation.start == (169, 0, 0)
    assert fib25.TRAIN[1] <= fib25.WATCH[0] < fib25.WATCH[1] <= fib25.TEST[0]


@pytest.mark.parametrize("percent", PERCENTS)
def test_a_share_of_the_labels_is_a_box_of_so_many_voxels(percent):
    whole = np.prod(BOXES[100])
    for seed in range(5):
        start, stop = part(percent, seed)
        assert np.prod(np.subtract(stop, start)) == pytest.approx(whole * percent / 100, rel=0.01)
        assert min(start) >= 0
        assert (np.array(stop) <= BOXES[100]).all()
    if percent < 100:
        assert part(percent, 0) != part(percent, 1)


def test_without_the_volume_it_says_what_is_missing(monkeypatch, tmp_path):
    monkeypatch.setenv("PETASEG_DATA", str(tmp_path))
    with pytest.raises(ConfigError, match="set PETASEG_DATA"):
        fib25.data_file()


def test_a_cut_out_holds_the_voxels_of_the_volume(tmp_path):
    """A cut-out holds the voxels that the volume has at the same place."""
    urls = fib25.cut_out(tmp_path, (186, 190), side=16)
    whole = open_volume(f"{fib25.data_file()}:labels")
    cut = open_volume(urls["labels"])
    assert cut.spec.bounds.start == (186, 0, 0)
    assert np.array_equal(cut.read(cut.spec.bounds), whole.read(cut.spec.bounds))


def test_the_time_of_an_update_is_measured_in_turns():
    """The time of an update is measured for each of several networks, which take turns on the machine."""
    configs = [config([fib25.planes(fib25.TRAIN)], patch=(16, 16, 16))] * 2
    found = seconds_per_update([fib25.Pace(each) for each in configs], rounds=2, updates=2)
    assert len(found) == 2
    assert all(0 < seconds < 60 for seconds in found)
