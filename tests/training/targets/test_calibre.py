"""Weights by calibre: thin parts of objects weigh more, by an exact rule on the labels around a voxel."""

import numpy as np
import pytest

from pipeline.training.targets import calibre_weights

SETTINGS = {"full_nm": 64, "halvings": 3, "in_plane": True}


def bars(*widths, length=60):
    """Bars of these widths along x, apart by two voxels of background: (y, x), and the rows of each."""
    rows, image = [], []
    for number, width in enumerate(widths, start=1):
        image += [np.zeros((2, length), int), np.full((width, length), number)]
        rows.append(slice(sum(len(part) for part in image) - width, sum(len(part) for part in image)))
    return np.concatenate([*image, np.zeros((2, length), int)]), rows


def test_each_halving_of_the_calibre_doubles_the_weight():
    """Bars of 9, 8, 5, 4, 3, 2 and 1 voxels of 8 nm weigh 1, 2, 2, 4, 4, 8, 8 in their whole width; 64 nm are full."""
    labels, rows = bars(9, 8, 5, 4, 3, 2, 1)
    found = calibre_weights(labels, (8, 8), **SETTINGS)[0]
    assert [np.unique(found[row, 20:-20]).tolist() for row in rows] == [[w] for w in (1, 2, 2, 4, 4, 8, 8)]
    assert (found[labels == 0] == 1).all()


def test_a_thin_neck_between_thick_parts_weighs_more():
    """Of a dumbbell the neck weighs more than the two ends, though all is one object."""
    labels = np.zeros((40, 60), int)
    labels[5:35, 5:25] = labels[5:35, 35:55] = 1
    labels[18:21, 25:35] = 1
    found = calibre_weights(labels, (8, 8), **SETTINGS)[0]
    assert (found[10:30, 10:20] == 1).all()
    assert (found[18:21, 28:32] == 4).all()


def cells(seed=0):
    """Noise that is cut into touching cells of all sizes, with gaps: (6, 40, 44)."""
    rng = np.random.default_rng(seed)
    seeds = rng.random((6, 40, 44))
    labels = np.kron(rng.integers(0, 6, (3, 10, 11)), np.ones((2, 4, 4), int))
    return np.where(seeds < 0.02, 7, labels)


def by_definition(labels, full, halvings):
    """A voxel is in a part of t nm if a disc that stays in its object holds it, voxels of 1 nm; slow."""
    places = np.argwhere(np.ones(labels.shape, bool))
    found = np.ones(labels.shape)
    padded = np.pad(labels, 1, mode="edge")
    neighbours = [padded[1:-1, :-2], padded[1:-1, 2:], padded[:-2, 1:-1], padded[2:, 1:-1]]
    border = np.any([n != labels for n in neighbours], axis=0) | (labels == 0)
    squares = ((places[:, None] - places[None]) ** 2).sum(-1)
    room = np.sqrt(np.where(border.ravel()[None], squares, np.inf).min(1))
    same = labels.ravel()[:, None] == labels.ravel()[None]
    for halving in range(halvings):
        radius = np.ceil(full / 2 ** (halving + 1) - 0.5)
        holds = (room >= radius)[:, None] & (squares <= radius**2) & same
        thick = holds.any(0) if radius > 0 else np.ones(len(places), bool)
        found[(labels > 0) & ~thick.reshape(labels.shape)] *= 2
    return found


@pytest.mark.parametrize("seed", range(4))
def test_the_weights_are_those_of_the_definition(seed):
    """Weights equal an opening of each object by discs that stay inside of it, computed pair by pair."""
    section = cells(seed)[0, :24, :28]
    found = calibre_weights(section, (1, 1), full_nm=9, halvings=3, in_plane=True)[0]
    assert np.array_equal(found, by_definition(section, 9, 3))
    assert len(np.unique(found)) > 2


def test_ids_do_not_matter_nor_what_other_sections_hold():
    """Other ids give the same weights; in the plane, a section has the weights that it has by itself."""
    labels = cells()
    found = calibre_weights(labels, (30, 8, 8), **SETTINGS)
    renamed = np.array([0, 900, 5, 3, 77, 1, 2, 12])[labels]
    assert np.array_equal(calibre_weights(renamed, (30, 8, 8), **SETTINGS), found)
    alone = [calibre_weights(section, (8, 8), **SETTINGS) for section in labels]
    assert np.array_equal(np.stack(alone, 1), found)


def test_a_neighbour_weighs_like_background():
    """The weights of an object do not depend on whether a neighbour or background lies beside it."""
    labels = cells(1)
    found = calibre_weights(labels, (8, 8, 8), full_nm=64, halvings=3, in_plane=False)[0]
    for number in range(1, 8):
        alone = calibre_weights(np.where(labels == number, 1, 0), (8, 8, 8), full_nm=64, halvings=3, in_plane=False)[0]
        assert np.array_equal(alone[labels == number], found[labels == number])


def test_weights_are_local():
    """Labels farther away than ``full_nm`` change no weight."""
    labels, other = cells(), cells(5)
    other[:, :, :24] = labels[:, :, :24]
    kept = slice(0, 24 - 8)
    found = [calibre_weights(each, (8, 8, 8), **SETTINGS)[..., kept] for each in (labels, other)]
    assert np.array_equal(*found)


def test_a_section_without_borders_is_thick():
    """Where nothing but one object is seen, its weight is 1."""
    assert (calibre_weights(np.ones((2, 9, 9), int), (8, 8, 8), **SETTINGS) == 1).all()
