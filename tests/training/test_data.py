import numpy as np
import pytest

from pipeline.geometry import BoundingBox
from pipeline.training.data import VALIDATION_PATCHES, validation_boxes
from pipeline.training.sources import open_source
from pipeline.training.trainer import train
from tests.training.trainings import settings
from tests.training.volumes import store


@pytest.mark.parametrize("loaders", [1, 2])
def test_loaders_change_nothing(tmp_path, loaders):
    """The number of loader processes does not change a byte of the trained weights."""
    train(settings(tmp_path / "none", pictures=False))
    train(settings(tmp_path / "some", pictures=False, loaders=loaders))
    assert (tmp_path / "none" / "weights.safetensors").read_bytes() == (
        tmp_path / "some" / "weights.safetensors"
    ).read_bytes()


@pytest.mark.parametrize(
    ("start", "stop", "patch", "shape", "count"),
    [
        ((0, 0, 0), (24, 32, 32), (8, 16, 16), (8, 16, 16), 12),
        ((0, 0, 0), (80, 96, 96), (8, 16, 16), (8, 16, 16), VALIDATION_PATCHES),
        ((-9, 5, 7), (7, 80, 100), (64, 64, 64), (16, 64, 64), 1),
        ((0, 0, 0), (5, 40, 64), (8, 64, 64), (5, 32, 64), 1),
    ],
)
def test_validation_patches_lie_inside_and_do_not_overlap(tmp_path, start, stop, patch, shape, count):
    """Validation patches lie inside the validation part, do not overlap, and are limited in number."""
    box = BoundingBox(start, stop)
    config = settings(tmp_path, patch_shape=patch)
    image = np.zeros(box.shape, np.uint8)
    boxes = validation_boxes(open_source(store("lattice", image, image, offset=start)), config)
    assert [b.shape for b in boxes] == [shape] * count
    assert all(box.contains(b) for b in boxes)
    assert all(a.intersect(b).empty for i, a in enumerate(boxes) for b in boxes[:i])
