"""Pathfinder images have separate smooth curves, one of which is marked and is the segmentation target."""

import numpy as np
import pytest
from scipy import ndimage

from pipeline.config.reading import parse_config
from pipeline.errors import ConfigError
from pipeline.synthetic.pathfinder import PathfinderConfig, _Field, make_pathfinder
from pipeline.synthetic.sample import sample_rng

PIXELS = {14: (0.92, 0.17), 20: (1.2, 0.25), 25: (1.3, 0.30)}
"""Percent of pixels on any curve, and on the target curve, measured on the published generator."""


@pytest.mark.parametrize("paddles", PIXELS)
def test_curves_cover_the_published_share_of_pixels(paddles):
    """Curves cover the share of pixels that the published generator gives them, measured without the disc."""
    config = PathfinderConfig(paddles=paddles, size=300, antialias=4, marker_radius=0.01)
    samples = [make_pathfinder(i, config=config) for i in range(16)]
    foreground = 100 * np.mean([(sample.image >= 0.5).mean() for sample in samples])
    target = 100 * np.mean([sample.target.mean() for sample in samples])
    assert (foreground, target) == (
        pytest.approx(PIXELS[paddles][0], rel=0.12),
        pytest.approx(PIXELS[paddles][1], rel=0.06),
    )


@pytest.fixture(scope="module")
def field():
    made = _Field(PathfinderConfig(paddles=14, attempts=5), sample_rng(1, 0))
    made.curves = [*made.two_targets(), *filter(None, (made.add_distractor() for _ in range(15)))]
    return made


def test_curves_have_their_lengths(field):
    assert [len(curve) for curve in field.curves[:2]] == [14, 14]
    assert {len(curve) for curve in field.curves[2:]} == {5}
    assert len(field.curves) > 10
    assert sorted(number for curve in field.curves for number in curve) == list(range(len(field.starts)))


def test_paddles_never_touch_each_other(field):
    """Any two paddles are further apart than their thickness and one margin."""
    along = np.linspace(0, 5, 11)[:, None]
    points = field.starts + along * field.directions  # (11, paddles)
    for number in range(len(field.starts)):
        others = np.delete(points, number, axis=1)
        gap = np.abs(points[:, number, None, None] - others).min()
        assert gap > 2 + 3, "thickness and at least one margin"


def test_curves_are_smooth_and_evenly_spaced(field):
    """Paddles of a curve turn by less than 50 degrees and are evenly spaced, so that they continue each other well."""
    for curve in field.curves:
        starts, directions = field.starts[curve], field.directions[curve]
        turns = np.abs(np.angle(directions[1:] / directions[:-1]))
        assert turns.max() < np.pi / 2 / 1.8
        gaps = np.abs(starts[1:] - (starts + 5 * directions)[:-1])
        assert gaps.max() == pytest.approx(6, abs=1e-6) or gaps.max() < 6
        assert gaps.min() > 4


def test_targets_start_beside_each_other_and_away_from_the_border(field):
    first, second = (field.starts[curve[0]] for curve in field.curves[:2])
    assert abs(first - second) == pytest.approx(27)
    assert min(first.real, first.imag) >= 54
    ends = np.stack([field.starts, field.starts + 5 * field.directions])
    assert min(ends.real.min(), ends.imag.min()) >= 22
    assert max(ends.real.max(), ends.imag.max()) <= 299 - 22


def test_the_target_is_the_marked_curve_with_its_disc():
    for index in range(4):
        sample = make_pathfinder(index, seed=2)
        y, x = (round(v / 2) for v in sample.more["disc"])
        assert sample.image[y, x] == 1
        assert sample.target[y, x] == 1
        assert set(np.unique(sample.target)) == {0, 1}
        assert (sample.image[sample.target > 0] > 0.3).all()
        disc = ndimage.binary_opening(sample.target, np.ones((3, 3)))
        assert ndimage.label(disc)[1] == 1
        assert 15 < disc.sum() < 26
        lit = ndimage.binary_dilation(sample.target, iterations=2)
        assert (sample.image[~lit] > 0.5).sum() > sample.target.sum(), "the other curves are not in the target"


def test_types_and_sizes_are_as_promised():
    sample = make_pathfinder(0, config=PathfinderConfig(contrast=0.5))
    assert sample.image.dtype == np.float32
    assert sample.target.dtype == np.uint8
    assert sample.image.shape == sample.target.shape == (150, 150)
    assert sample.image.max() == 1
    assert np.sort(np.unique(sample.image))[-2] > 0.5, "fringes of the disc"
    paddles = sample.image[ndimage.binary_dilation(sample.target == 0, iterations=0) & (sample.target == 0)]
    assert paddles.max() <= 0.5 + 0.5 / 2


def test_sample_number_i_is_the_same_whatever_was_made_before():
    first = make_pathfinder(7, seed=1)
    make_pathfinder(6, seed=1)
    again = make_pathfinder(7, seed=1)
    assert again.more == first.more
    assert np.array_equal(again.image, first.image)
    assert np.array_equal(again.target, first.target)
    assert not np.array_equal(make_pathfinder(8, seed=1).image, first.image)
    assert not np.array_equal(make_pathfinder(7, seed=2).image, first.image)


def test_both_targets_are_marked_equally_often():
    """The curve that is drawn first and the one that is drawn second are marked about equally often."""
    easy, marked = PathfinderConfig(paddles=4, distractors=0), []
    for index in range(60):
        y, x = make_pathfinder(index, config=easy).more["disc"]
        field = _Field(easy, sample_rng(0, index))
        starts = [field.starts[curve[0]] for curve in field.two_targets()]
        marked.append(starts.index(complex(x, y)))
    assert 20 < sum(marked) < 40


@pytest.mark.parametrize(
    ("setting", "message"),
    [({"size": 140}, "must divide the window"), ({"window": 100, "size": 50}, "fill it"), ({"paddles": 0}, "greater")],
)
def test_settings_that_make_no_sense_are_refused(setting, message):
    with pytest.raises(ConfigError, match=message):
        parse_config(setting, PathfinderConfig)


def test_curves_that_cannot_fit_are_refused_and_not_sought_for_ever():
    with pytest.raises(ConfigError, match="found no way"):
        make_pathfinder(0, config=PathfinderConfig(paddles=60, window=150, size=150, seed_padding=30))
