"""The synthetic connectomics challenge has closed cells, organelles within them, and the numbers of its paper."""

import numpy as np
import pytest
from scipy import ndimage, special

from pipeline.config.reading import parse_config
from pipeline.errors import ConfigError
from pipeline.synthetic.challenge_settings import ChallengeConfig
from pipeline.synthetic.connectomics_challenge import make_challenge, make_geometry
from pipeline.synthetic.sample import sample_rng
from pipeline.synthetic.snakes import Circles, Normal, Walk

EVERYWHERE = np.ones((3, 3), bool)
"""Neighbours of a pixel, diagonal ones included."""


@pytest.fixture(scope="module", params=range(4))
def geometry(request):
    return make_geometry(sample_rng(11, request.param), ChallengeConfig())[0]


def flood(barrier):
    """Return what a flood from the border reaches without crossing the barrier; it flows diagonally as well."""
    return ndimage.binary_propagation(_frame(barrier.shape), EVERYWHERE, mask=~barrier)


def _frame(shape):
    frame = np.ones(shape, bool)
    frame[1:-1, 1:-1] = False
    return frame


def test_lines_of_different_cells_never_touch(geometry):
    """Membranes of different cells never touch, not even diagonally."""
    lines = geometry.membrane
    highest = ndimage.maximum_filter(lines, 3)
    lowest = ndimage.minimum_filter(np.where(lines == 0, lines.max() + 1, lines), 3)
    assert not ((lines > 0) & (lowest < highest)).any()
    assert len(np.unique(lines)) > 60


def test_every_cell_is_enclosed_by_its_line(geometry):
    """Every cell is enclosed by its membrane, which has no gap."""
    inside = (geometry.cells > 0) & (geometry.membrane == 0)
    assert not (flood(geometry.membrane > 0) & inside).any()


def test_every_organelle_lies_within_a_closed_label_curve(geometry):
    """Every organelle lies within a closed membrane, since nothing but enclosure tells it from a membrane."""
    assert (geometry.organelle > 0).any()
    assert not (flood(geometry.membrane > 0) & (geometry.organelle > 0)).any()
    assert not ((geometry.organelle > 0) & (geometry.membrane > 0)).any()


def test_an_organelle_keeps_away_from_the_membrane(geometry):
    """An organelle never touches a membrane, not even diagonally."""
    membrane = ndimage.binary_dilation(geometry.membrane > 0, EVERYWHERE)
    assert not (membrane & (geometry.organelle > 0)).any()


def test_without_membranes_no_closed_curve_is_left_in_the_label():
    with_, without = (make_challenge(2, config=ChallengeConfig(membranes=m, noise=0)) for m in (True, False))
    assert not flood(with_.target > 0).all()
    assert flood(without.target > 0).all()
    assert not without.target.any()
    assert without.image.any()
    assert (without.image <= with_.image).all()


def test_without_membranes_and_organelles_nothing_is_left():
    made = make_challenge(0, config=ChallengeConfig(membranes=False, organelle_share=0, noise=0))
    assert not made.image.any()


def test_all_lines_have_one_thickness_and_brightness():
    """Membranes and organelles have one thickness and one brightness, so neither gives a membrane away."""
    geometry, _ = make_geometry(sample_rng(0, 1), ChallengeConfig(thickness=3))
    for lines in (geometry.membrane, geometry.organelle):
        depth = ndimage.distance_transform_edt(ndimage.binary_fill_holes(lines > 0))
        assert depth[lines > 0].max() <= 3
    flat = ChallengeConfig(noise=0, blur=0, least_contrast=1)
    image = make_challenge(0, config=flat).image
    assert np.unique(image) == pytest.approx([0, 1])


def test_half_of_the_cells_hold_organelles_that_fill_a_third():
    found = [make_geometry(sample_rng(3, i), ChallengeConfig(thickness=1, warp=0))[0] for i in range(4)]
    with_room = []
    for geometry in found:
        sizes = np.bincount(geometry.cells.ravel())
        inside = np.bincount(geometry.cells[geometry.organelle > 0], minlength=len(sizes))
        with_room += (inside[1:] > 0)[sizes[1:] > 1500].tolist()
    assert 0.35 < np.mean(with_room) < 0.65


def test_sample_number_i_is_the_same_whatever_was_made_before():
    small = ChallengeConfig(size=160)
    first = make_challenge(5, seed=3, config=small)
    for index in range(3):
        make_challenge(index, seed=3, config=small)
    again = make_challenge(5, seed=3, config=small)
    assert again.more == first.more
    assert np.array_equal(again.image, first.image)
    assert np.array_equal(again.target, first.target)
    assert not np.array_equal(make_challenge(5, seed=4, config=small).target, first.target)
    assert not np.array_equal(make_challenge(6, seed=3, config=small).target, first.target)


def test_the_crop_is_the_middle():
    whole, part = (make_challenge(1, config=ChallengeConfig(crop=crop)) for crop in (None, 320))
    assert part.image.shape == part.target.shape == (320, 320)
    assert np.array_equal(part.target, whole.target[90:410, 90:410])


def test_noise_and_types_are_as_promised():
    clean, noisy = (make_challenge(0, config=ChallengeConfig(noise=n)) for n in (0, 0.5))
    assert clean.image.dtype == np.float32
    assert clean.target.dtype == np.uint8
    assert (noisy.image - clean.image).std() == pytest.approx(0.5, rel=0.01)
    assert clean.image[clean.target > 0].mean() > 0.5


def test_printed_radii_would_overfill_the_picture():
    """With the printed radii, moderate and long snakes are expected to cover 266,600 of 250,000 pixels.

    This is why there is a size_scale.
    """
    long, moderate, _ = ChallengeConfig().snakes
    area = sum(k.number * k.circles.mean * np.pi * (k.radius.mean**2 + k.radius.sd**2) for k in (long, moderate))
    assert area == pytest.approx(266_600, rel=1e-3)
    assert area * ChallengeConfig().size_scale ** 2 == pytest.approx(66_700, rel=1e-3)


def test_the_default_numbers_are_those_of_the_paper():
    """The default snakes, radii, grid and organelles have the paper's numbers: 18 snakes of three kinds."""
    config = ChallengeConfig()
    long, moderate, short = config.snakes
    assert [kind.number for kind in config.snakes] == [6, 6, 6]
    assert [(kind.circles.mean, kind.circles.sd) for kind in (short, moderate, long)] == [(3, 2), (4, 2), (8, 2)]
    assert [(kind.radius.mean, kind.radius.sd) for kind in (short, moderate, long)] == [(10, 15), (40, 8), (30, 6)]
    assert (short.circles.low, short.circles.high) == (1, 7)
    assert (long.circles.low, long.circles.high) == (8 - 2 * 2, 8 + 2 * 2), "two standard deviations"
    assert (config.size, config.nodes, config.jitter, config.walk.overlap) == (500, 15, 50, 2)
    assert (config.organelle_share, config.organelle_area, config.noise) == (0.5, 0.3, 0.5)
    assert (config.bumps, config.bump_width) == (20, 20)
    accepted = special.ndtr((40 - 10) / 15) - special.ndtr((2 - 10) / 15)
    assert accepted == pytest.approx(0.680, abs=5e-4), "of the single circles' radii, before they are cut"


def test_radii_and_turns_follow_their_distributions():
    """Radii follow N(10, 15) between 2 and 40, whose mean is 16.4, and turns have a cosine density."""
    rng = np.random.default_rng(0)
    radii = [Normal(mean=10, sd=15, low=2, high=40).draw(rng) for _ in range(20_000)]
    assert min(radii) >= 2
    assert max(radii) <= 40
    assert np.mean(radii) == pytest.approx(16.4, abs=0.15)
    turns = np.array([Walk().turn(rng) for _ in range(20_000)])
    assert np.abs(turns).max() <= np.deg2rad(75)
    assert np.mean(np.sin(1.2 * turns) < 0.5) == pytest.approx(0.75, abs=0.01)


def test_circles_of_different_snakes_keep_their_distance():
    circles = Circles()
    circles.add(np.array([50.0, 50.0]), 10.0, 0)
    assert circles.clear_of(np.array([50.0, 75.0]), 11.0, 4)
    assert not circles.clear_of(np.array([50.0, 75.0]), 12.0, 4)
    assert circles.clear_of(np.array([50.0, 55.0]), 12.0, 4, but=0)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"crop": 600}, "must fit"),
        ({"organelle_share": 2}, "less than or equal to 1"),
        ({"cell_radius": {"mean": 1, "sd": 1, "low": 3, "high": 2}}, "smaller number first"),
        ({"nois": 1}, "did you mean 'noise'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(setting, message):
    with pytest.raises(ConfigError, match=message):
        parse_config(setting, ChallengeConfig)
