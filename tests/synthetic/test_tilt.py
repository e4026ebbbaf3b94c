"""Tilt gratings have the orientation, size and wavelength that their sample states."""

import numpy as np
import pytest

from pipeline.config.reading import parse_config
from pipeline.errors import ConfigError
from pipeline.synthetic.tilt import TiltConfig, make_tilt, orientation_target

TEST = TiltConfig(part="test")


def from_middle():
    """Distance of every pixel to the middle."""
    steps = np.arange(500) - 249.5
    return np.hypot(steps[:, None], steps)


def orientation(image, radii):
    """Degrees of the lines in a ring, from the structure tensor of the gradient."""
    dy, dx = np.gradient(image.astype(float))
    distance = from_middle()
    ring = (distance > radii[0]) & (distance < radii[1])
    across = 0.5 * np.arctan2(2 * (dx * dy)[ring].sum(), (dx**2 - dy**2)[ring].sum())
    return np.rad2deg(np.pi / 2 - across) % 180


def apart(a, b):
    """Degrees between two orientations."""
    return abs((a - b + 90) % 180 - 90)


@pytest.mark.parametrize("index", range(12))
def test_the_gradient_tells_the_orientation(index):
    """The orientation and the target of a sample are those that the image's gradient shows."""
    sample = make_tilt(index, seed=4)
    found = orientation(sample.image, (0, sample.more["radius"] - 2))
    assert apart(found, sample.more["theta"]) < 3
    assert sample.target == pytest.approx(orientation_target(sample.more["theta"]))


@pytest.mark.parametrize("index", range(12))
def test_centre_and_surround_have_their_own_orientations(index):
    sample = make_tilt(index, config=TEST)
    radius = sample.more["radius"]
    assert sample.more["theta"] == 45
    assert -90 <= sample.more["dtheta"] <= 90
    assert apart(orientation(sample.image, (0, radius / 2 - 2)), 45) < 8
    assert apart(orientation(sample.image, (radius / 2 + 2, radius - 2)), 45 + sample.more["dtheta"]) < 5
    assert sample.target == pytest.approx([1, 0], abs=1e-6)


def test_a_line_that_rises_to_the_right_has_45_degrees():
    sample = make_tilt(0, config=TiltConfig(part="test", tilt_degrees=(0.0, 0.0), share_phase=True))
    middle = sample.image[200:300, 200:300]
    assert middle[:-10, 10:] == pytest.approx(middle[10:, :-10], abs=1e-5)


def test_centre_and_surround_at_the_same_angle_and_phase_are_one_grating():
    alone = make_tilt(3, config=TiltConfig(part="test", tilt_degrees=(0.0, 0.0), share_phase=True))
    radius = alone.more["radius"]
    steps = np.abs(np.diff(alone.image, axis=0))[(from_middle() < radius - 2)[1:]]
    assert steps.max() < np.pi / alone.more["wavelength"]


def test_radius_wavelength_and_grey_are_as_promised():
    for index in range(8):
        sample = make_tilt(index)
        assert (sample.image[from_middle() > sample.more["radius"]] == 0.5).all()
        assert 80 <= sample.more["radius"] <= 240
        assert 30 <= sample.more["wavelength"] <= 90
        assert 0 <= sample.more["theta"] < 180
        assert sample.image.min() >= 0
        assert sample.image.max() <= 1
        across = np.abs(np.fft.fft2(sample.image - sample.image.mean(), (2048, 2048)))
        peak = np.unravel_index(across.argmax(), across.shape)
        frequency = np.hypot(*(min(p, 2048 - p) / 2048 for p in peak))
        assert 1 / frequency == pytest.approx(sample.more["wavelength"], rel=0.1)


def test_the_doubled_angle_is_one_value_for_one_orientation():
    assert orientation_target(10) == pytest.approx(orientation_target(190))
    assert orientation_target(10, doubled=False) == pytest.approx(-orientation_target(190, doubled=False))
    single = make_tilt(0, config=TiltConfig(doubled_angle=False))
    assert single.target == pytest.approx(orientation_target(single.more["theta"], doubled=False))


def test_sample_number_i_is_the_same_whatever_was_made_before():
    first = make_tilt(9, seed=5)
    make_tilt(8, seed=5)
    again = make_tilt(9, seed=5)
    assert again.more == first.more
    assert np.array_equal(again.image, first.image)
    assert not np.array_equal(make_tilt(9, seed=6).image, first.image)


@pytest.mark.parametrize(
    ("setting", "message"), [({"radius": [90, 80]}, "smaller number first"), ({"part": "tests"}, "train")]
)
def test_settings_that_make_no_sense_are_refused(setting, message):
    with pytest.raises(ConfigError, match=message):
        parse_config(setting, TiltConfig)
