"""The patches of a run lie on one lattice over the whole dataset."""

from pipeline.geometry import BoundingBox
from pipeline.inference.options import PredictOptions
from pipeline.stages.layout import Layout
from pipeline.stages.predict_heads import PredictHeads

BOUNDS = BoundingBox((5, -3, 0), (45, 37, 50))


def stage(roi):
    layout = Layout("unused", BOUNDS, roi, (16, 16, 16), (16, 16, 16), (8.0, 8.0, 8.0))
    return PredictHeads(layout, "image", "", "card", "", (12, 12, 12), (4, 4, 4), PredictOptions(), "cpu", ())


def test_patches_lie_alike_in_every_region_of_interest():
    """A voxel is predicted from the same patches, whatever part of the dataset a run segments."""
    whole, part = stage(BOUNDS).lattice(), stage(BoundingBox((10, 0, 3), (33, 30, 41))).lattice()
    core = BoundingBox((12, 4, 7), (28, 20, 23))
    assert [whole.box(i) for i in whole.touching(core)] == [part.box(i) for i in part.touching(core)]
