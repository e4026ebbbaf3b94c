"""Synthetic tissue has exact ground truth and depends on nothing but its arguments."""

import numpy as np
import pytest
from skimage import measure

from pipeline.errors import ConfigError
from pipeline.synthetic.neurites import connected_objects
from pipeline.synthetic.noise import smooth_noise
from pipeline.synthetic.tissue import Tissue, make_tissue


@pytest.fixture(scope="module")
def tissue() -> Tissue:
    return make_tissue((40, 96, 96), seed=5)


def components(labels: np.ndarray) -> int:
    return int(measure.label(labels, connectivity=1, background=-1).max())


def border(labels: np.ndarray) -> np.ndarray:
    found = np.zeros(labels.shape, bool)
    found[1:] |= labels[1:] != labels[:-1]
    found[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    found[:, :, 1:] |= labels[:, :, 1:] != labels[:, :, :-1]
    return found


def test_types_and_shapes_are_as_promised(tissue: Tissue) -> None:
    assert tissue.image.dtype == np.uint8
    assert tissue.labels.dtype == np.uint32
    assert tissue.image.shape == tissue.labels.shape == (40, 96, 96)
    assert tissue.resolution_nm == (8, 8, 8)


def test_the_same_arguments_give_the_same_bytes(tissue: Tissue) -> None:
    again = make_tissue((40, 96, 96), seed=5)
    assert np.array_equal(again.image, tissue.image)
    assert np.array_equal(again.labels, tissue.labels)


def test_another_seed_gives_other_tissue(tissue: Tissue) -> None:
    other = make_tissue((40, 96, 96), seed=6)
    assert (other.labels != tissue.labels).mean() > 0.5
    assert (other.image != tissue.image).mean() > 0.5


@pytest.mark.parametrize(
    ("shape", "resolution_nm"), [((40, 96, 96), (8, 8, 8)), ((12, 80, 96), (40, 8, 8)), ((16, 60, 60), (30, 6, 6))]
)
def test_every_voxel_belongs_to_an_object_of_one_component(shape, resolution_nm) -> None:
    labels = make_tissue(shape, seed=1, resolution_nm=resolution_nm).labels
    ids = np.unique(labels)
    assert np.array_equal(ids, np.arange(1, len(ids) + 1))
    assert components(labels) == len(ids)
    assert len(ids) >= 5


def test_no_object_is_a_speck(tissue: Tissue) -> None:
    assert np.bincount(tissue.labels.ravel())[1:].min() >= 0.7 * 60**3 / 8**3


def test_membranes_are_darker_than_cytoplasm(tissue: Tissue) -> None:
    """Membranes are darker than cytoplasm by more than 25 grey values, so the task can be learned from the image."""
    edge = border(tissue.labels)
    assert tissue.image[edge].mean() < tissue.image[~edge].mean() - 25


def test_darkness_alone_does_not_solve_the_task(tissue: Tissue) -> None:
    """Bright voxels form over three times as many components as there are cells, due to organelles and noise."""
    bright = measure.label(tissue.image > 110, connectivity=1)
    assert bright.max() > 3 * tissue.labels.max()


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 30, 1), (1, 64, 64)])
def test_degenerate_shapes_work(shape: tuple[int, int, int]) -> None:
    made = make_tissue(shape, seed=0)
    assert made.image.shape == shape
    assert made.labels.min() == 1


@pytest.mark.parametrize(
    ("shape", "resolution_nm"), [((0, 4, 4), (8, 8, 8)), ((4, 4, 4), (8, 0, 8)), ((4, 4), (8, 8, 8))]
)
def test_impossible_requests_are_refused(shape, resolution_nm) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        make_tissue(shape, seed=0, resolution_nm=resolution_nm)


def test_noise_has_the_promised_mean_and_spread() -> None:
    field = smooth_noise((60, 60, 60), (10, 10, 10), 30.0, np.random.default_rng(0))
    assert abs(field.mean()) < 0.05
    assert abs(field.std() - 1) < 0.05


def test_specks_go_to_their_neighbours_and_parts_become_objects() -> None:
    cells = np.ones((1, 5, 9), np.int32)
    cells[:, :, 4] = 2
    cells[0, 2, 7] = 3
    found = connected_objects(cells, smallest=3)
    assert found.max() == 3
    assert found[0, 2, 7] == found[0, 0, 8] != found[0, 0, 0]
