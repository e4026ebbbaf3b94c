import pytest
import torch

from pipeline.errors import ModelError
from pipeline.models.axes import as_dimension, as_vec, channels_to_space, space_to_channels, total_stride


def test_space_goes_into_channels_and_back():
    """Folding space into channels makes each block of voxels the channels of one voxel, and unfolding undoes it."""
    r = torch.arange(2 * 3 * 4 * 6 * 10).reshape(2, 3, 4, 6, 10)
    folded = space_to_channels(r, (2, 3, 5))
    assert folded.shape == (2, 3 * 30, 2, 2, 2)
    assert set(folded[0, :30, 1, 0, 1].tolist()) == set(r[0, 0, 2:4, 0:3, 5:10].flatten().tolist())
    assert torch.equal(channels_to_space(folded, (2, 3, 5)), r)


def test_sections_become_images_of_a_batch_and_come_back():
    """The sections of a volume become the images of a batch, and each result returns to its own section and patch."""
    volume = torch.arange(2 * 3 * 4 * 5 * 6).reshape(2, 3, 4, 5, 6)
    images, restored = as_dimension(volume, 2)
    assert images.shape == (8, 3, 5, 6)
    assert torch.equal(images[5], volume[1, :, 1])
    assert torch.equal(restored(images), volume)
    image, same = as_dimension(volume[:, :, 0], 2)
    assert torch.equal(same(image), volume[:, :, 0])


def test_an_image_of_another_dimension_is_refused():
    """An image with four axes is refused by a network in 3D."""
    with pytest.raises(ModelError, match="a network in 3D takes 5 axes"):
        as_dimension(torch.zeros(1, 1, 4, 4), 3)


def test_strides_multiply_axis_by_axis():
    """The total stride is the product of all strides for each axis; a vector without three numbers is refused."""
    assert total_stride([(1, 2, 2), (2, 2, 3)], (1, 1, 2)) == (2, 4, 12)
    assert as_vec([1, 2, 3]) == (1, 2, 3)
    with pytest.raises(ModelError, match="need three: z, y, x"):
        as_vec([2, 2])
