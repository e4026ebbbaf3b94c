import numpy as np
import pytest
import torch

from pipeline.errors import ModelError
from pipeline.models.cells.blocks import Norm, chronos, convolve, point_conv, same_conv
from tests.models.cells.units import ByHand, randomised, set_to, states


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize(
    ("kind", "axes", "epsilon"), [("instance", None, 1e-5), ("batch", 0, 1e-3), ("channel", 1, 1e-5)]
)
def test_each_norm_takes_mean_and_deviation_over_its_own_axes(kind, axes, epsilon, dimension):
    """Each norm takes mean and deviation over its own axes, and applies its gain, bias and epsilon."""
    voxels = tuple(range(2, 2 + dimension))
    axes = {None: voxels, 0: (0, *voxels), 1: (1,)}[axes]
    norm, (r,) = randomised(Norm(3, kind, gain=1.0)), states(dimension, count=1)
    root = torch.nn.ModuleDict({"it": norm})
    expected = ByHand(root).norm(r.numpy() * 30 + 7, "it", axes, epsilon)
    np.testing.assert_allclose(norm(r * 30 + 7).detach(), expected, rtol=1e-12)


def test_the_rms_norm_leaves_the_mean_of_a_voxel_alone():
    """The 'rms' norm divides by the root mean square over a voxel's channels and does not subtract their mean."""
    norm, (r,) = Norm(3, "rms", gain=2.0).double(), states(2, count=1)
    set_to(norm, bias=0.5)
    expected = 0.5 + 2 * r / (r.square().mean(1, keepdim=True) + 1e-3).sqrt()
    torch.testing.assert_close(norm(r), expected)


def test_the_group_norm_is_that_of_torch():
    """The 'group' norm is torch's GroupNorm with 32 groups, which the panoptic unit uses."""
    (r,) = states(2, channels=64, count=1)
    torch.testing.assert_close(Norm(64, "group", gain=1.0).double()(r), torch.nn.GroupNorm(32, 64).double()(r))
    assert torch.equal(Norm(3, "group", gain=1.0)(r[:, :3]), Norm(3, "channel", 1.0)(r[:, :3])) is False


def test_norms_compute_in_32_bits_or_more():
    """Norms compute in float32 when the input is bfloat16, and in float64 when it is float64."""
    norm, (r,) = Norm(3, "instance", gain=1.0), states(3, count=1)
    assert norm(r.bfloat16()).dtype == torch.float32
    assert norm.double()(r).dtype == torch.float64


@pytest.mark.parametrize("kernel", [(3, 5), (1, 3, 5)])
@pytest.mark.parametrize(("padding", "mode"), [("zeros", "constant"), ("reflect", "mirror")])
def test_convolutions_keep_the_shape_and_pad_as_told(kernel, padding, mode):
    """Convolutions keep the shape of their input, and pad it with zeros or by reflection as they are told."""
    (r,) = states(len(kernel), count=1)
    layer = torch.nn.ParameterDict({"w": torch.randn(2, 3, *kernel, dtype=torch.float64)})
    found = convolve(r, layer["w"], padding).detach()
    np.testing.assert_allclose(found, ByHand(layer).convolved(r.numpy(), "w", mode=mode), atol=1e-12)


def test_the_length_of_a_kernel_says_the_dimension():
    """A kernel with two sides makes a 2D convolution, and one with three sides a 3D convolution."""
    assert isinstance(same_conv(1, 1, [3, 3]), torch.nn.Conv2d)
    assert isinstance(same_conv(1, 1, [1, 3, 3]), torch.nn.Conv3d)
    assert point_conv(2, 3, 2).weight.shape == (3, 2, 1, 1)


@pytest.mark.parametrize(
    ("kernel", "message"), [((3,), "two or three"), ((3, 3, 3, 3), "two or three"), ((3, 2), "odd sides")]
)
def test_refuses_kernels_without_a_middle_or_a_dimension(kernel, message):
    """A kernel with an even side, or with other than two or three sides, is refused."""
    with pytest.raises(ModelError, match=message):
        same_conv(1, 1, kernel)


def test_chronos_is_the_logarithm_of_the_steps_that_gates_remember():
    """Chronos biases are log U(1, T - 1) for T steps, with the logarithm that a published code forgot."""
    torch.manual_seed(0)
    slow = chronos(1000, steps=8)
    assert slow.min() >= 0
    assert np.log(6.5) < slow.max() < np.log(7.01)
    assert chronos(10, steps=1).abs().max() < 2e-3


def test_partial_padding_counts_the_voxels_inside():
    """Partial padding weighs only the voxels inside, so a constant image gives the same result up to its border."""
    kernel = torch.rand(3, 2, 3, 5, generator=torch.Generator().manual_seed(0))
    ones = torch.ones(1, 2, 6, 7)
    found = convolve(ones, torch.ones_like(kernel), "partial")
    torch.testing.assert_close(found, torch.full((1, 3, 6, 7), 2.0 * 15))
    r = torch.rand(1, 2, 6, 7)
    middle = (slice(None), slice(None), slice(1, -1), slice(2, -2))
    torch.testing.assert_close(convolve(r, kernel, "partial")[middle], convolve(r, kernel)[middle])
    corner = convolve(r, kernel)[0, :, 0, 0] * 15 / (2 * 3)
    torch.testing.assert_close(convolve(r, kernel, "partial")[0, :, 0, 0], corner)
