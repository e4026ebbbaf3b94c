import numpy as np
import pytest

from pipeline.synthetic.borders import borders


@pytest.mark.parametrize("shape", [(7, 6), (4, 5, 6)])
def test_both_sides_of_a_face_are_border_and_corners_are_not(shape):
    """Voxels on both sides of a face between two labels are border; voxels that meet only at a corner are not."""
    labels = np.random.default_rng(0).integers(0, 3, shape).astype(np.uint32)
    expected = np.zeros(shape, bool)
    for place in np.ndindex(*shape):
        for axis in range(len(shape)):
            for step in (-1, 1):
                beside = [p + step * (a == axis) for a, p in enumerate(place)]
                if 0 <= beside[axis] < shape[axis]:
                    expected[place] |= labels[place] != labels[tuple(beside)]
    assert np.array_equal(borders(labels), expected)
    assert not borders(np.ones(shape)).any()
