from typing import ClassVar

import pytest
import torch
from torch import nn

from pipeline.errors import ModelError
from pipeline.inference.options import PredictOptions
from pipeline.inference.runtime import forward_state
from pipeline.models.facts import parameters
from pipeline.models.folding import folded
from pipeline.models.plain_unet import SIZES, PlainUNet
from pipeline.models.rignet import rignet
from tests.contracts.model import BatchNormContract, images, seeded
from tests.models.plain import CUBIC, THICK, trained


class TestThickSections(BatchNormContract):
    architecture = "plain_unet"
    arguments: ClassVar = THICK
    patches = ((3, 8, 12), (5, 4, 8))
    refused = ((3, 6, 8), (3, 8, 7))


class TestCubicVoxels(BatchNormContract):
    architecture = "plain_unet"
    arguments: ClassVar = CUBIC
    patches = ((4, 8, 12), (8, 4, 8))
    refused = ((3, 8, 8), (4, 6, 8))


def test_the_tiny_size_has_these_parameters():
    """The parameters of ``tiny`` with nine outputs are those of the widths 32, 64, 128, 128."""
    with torch.device("meta"):
        assert parameters(PlainUNet(**SIZES["tiny"], out_channels=9)) == 4_760_520


@pytest.mark.parametrize("size", ["tiny", "tiny_thick"])
def test_channels_stay_last_from_the_first_convolution_to_the_last(size):
    """As inference runs it, every convolution gets its input with the channels last in memory."""
    network, seen = PlainUNet(**SIZES[size]).eval(), []
    for layer in network.modules():
        if isinstance(layer, nn.Conv3d | nn.ConvTranspose3d):
            layer.register_forward_pre_hook(
                lambda _, given: seen.append(given[0].is_contiguous(memory_format=torch.channels_last_3d))
            )
    with forward_state(PredictOptions(device="cpu")):
        network(images(1, tuple(2 * side for side in network.multiple)))
    assert len(seen) == 26
    assert all(seen)


@pytest.mark.parametrize("arguments", [THICK, CUBIC])
def test_a_narrowed_network_computes_the_first_channels(arguments):
    """A narrowed network computes the first channels of the whole one, which stays as it is."""
    network, image = seeded("plain_unet", arguments), images(1, (4, 8, 12))
    narrow = network.narrowed(2)
    with torch.inference_mode():
        assert narrow(image).shape[1] == narrow.out_channels == 2
        torch.testing.assert_close(narrow(image), network(image)[:, :2])
        assert network(image).shape[1] == network.out_channels == arguments["out_channels"]


def test_weights_of_bfloat16_take_an_image_of_float32():
    """A network whose weights are bfloat16 computes nearly the same from the same image."""
    network, image = trained("plain_unet", CUBIC), images(1, (4, 8, 12))
    with torch.inference_mode():
        exact, short = network(image), folded(network).to(torch.bfloat16)(image)
    assert short.dtype == torch.bfloat16
    torch.testing.assert_close(short.float(), exact, rtol=0.05, atol=0.05 * exact.abs().max().item())


def test_it_can_be_gated():
    """The network lends its stages to RIGNet, whose first iteration is the plain network."""
    host = {"host": "plain_unet", "host_arguments": CUBIC, "iterations": 1}
    gated = rignet(**host).eval()
    with torch.inference_mode():
        image = images(1, (4, 8, 12))
        assert torch.equal(gated(image), gated.network(image))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"widths": (24, 64)}, r"widths are \[24, 64\]; 24 is no multiple of 32"),
        ({"kernels": ((3, 3, 3),)}, "2 widths, 1 kernels and 1 pools"),
        ({"pools": ()}, "2 widths, 2 kernels and 0 pools"),
        ({"widths": (32,), "kernels": ((3, 3, 3),), "pools": ()}, "at least two levels"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(wrong, message):
    """Widths that are no multiples of 32, and lists of unequal lengths, are refused with the rule."""
    with pytest.raises(ModelError, match=message):
        PlainUNet(**{**CUBIC, **wrong})
