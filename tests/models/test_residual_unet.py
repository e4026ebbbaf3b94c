from typing import ClassVar

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pipeline.errors import ModelError
from pipeline.models.facts import parameters
from pipeline.models.residual_unet import SIZES, Parts, PostModule, ResidualUNet, linear_kernel
from pipeline.models.staged import run_stages
from tests.contracts.model import BatchNormContract, ModelContract, images, seeded

MINI = {"widths": (4, 5, 6), "embedding": (1, 3, 3), "out_channels": 3}


class TestAsPublished(BatchNormContract):
    architecture = "residual_unet"
    arguments = MINI
    patches = ((3, 8, 12), (5, 4, 8))
    refused = ((3, 6, 8), (3, 8, 7))


class TestWithoutBatchStatistics(ModelContract):
    architecture = "residual_unet"
    arguments: ClassVar = {
        **MINI,
        "norm": "instance",
        "pools": ((2, 2, 2), (1, 2, 2)),
        "first_kernel": (3, 3, 3),
        "stride": (1, 2, 2),
        "upsample": "linear",
    }
    patches = ((4, 8, 16), (2, 16, 8))
    refused = ((3, 8, 16), (4, 12, 16))


class TestPreActivation(ModelContract):
    architecture = "residual_unet"
    arguments: ClassVar = {**MINI, "norm": "rms", "order": "pre", "upsample": "fixed"}
    patches = ((3, 8, 12), (5, 4, 8))
    refused = ((3, 6, 8),)


class TestInSections(BatchNormContract):
    architecture = "residual_unet"
    arguments: ClassVar = {**MINI, "dimensions": 2}
    patches = ((3, 8, 12), (5, 4, 8))
    refused = ((3, 6, 8),)


def rsunet(widths, outputs):
    return ResidualUNet(**{**SIZES["rsunet"], "widths": widths}, out_channels=outputs)


PUBLISHED = (16, 32, 64, 128, 256, 512)


@pytest.mark.parametrize(
    ("make", "count"),
    [
        (lambda: ResidualUNet(out_channels=3), 1_478_799),
        (lambda: ResidualUNet(out_channels=12), 1_479_060),
        (lambda: ResidualUNet(**SIZES["superhuman"], out_channels=12), 2_216_052),
        (lambda: rsunet(PUBLISHED[:4], 3), 2_655_363),
        (lambda: rsunet(PUBLISHED[:4], 12), 2_658_972),
        (lambda: rsunet(PUBLISHED[:5], 3), 10_653_571),
        (lambda: rsunet(PUBLISHED, 3), 42_640_771),
    ],
)
def test_parameters_are_those_of_the_published_networks(make, count):
    """Parameter counts are those of the readings of Lee et al. and of DeepEM's RSUNet."""
    with torch.device("meta"):
        assert parameters(make()) == count


@pytest.mark.parametrize(("widths", "count"), [(PUBLISHED[:4], 2_653_760), ((28, 36, 48, 64, 80), 2_451_680)])
def test_parameters_of_the_core_alone(widths, count):
    """The RSUNet's core alone has the right parameter count, so no error in it hides behind one in entry or exit."""
    with torch.device("meta"):
        network = rsunet(widths, 3)
    assert parameters(network) - parameters(network.entry) - parameters(network.exit[2]) == count


def test_a_module_computes_the_equation():
    """A module computes M = f(N3 (C3 f(N2 C2 y) + y)) with y = f(N1 C1 x)."""
    torch.manual_seed(0)
    module = PostModule(2, 3, (1, 3, 3), Parts(3, "batch", 0.1)).eval()
    for layer in (module.norm1, module.norm2, module.norm3):
        for value in (layer.weight.data, layer.bias.data, layer.running_mean, layer.running_var):
            value.uniform_(0.5, 2)

    def normed(r, layer):
        def along(p):
            return p.view(1, -1, 1, 1, 1)

        scaled = (r - along(layer.running_mean)) / (along(layer.running_var) + layer.eps).sqrt()
        return along(layer.weight) * scaled + along(layer.bias)

    x = torch.randn(1, 2, 3, 5, 4)
    y = F.elu(normed(F.conv3d(x, module.conv1.weight, padding=(0, 1, 1)), module.norm1))
    residual = F.conv3d(
        F.elu(normed(F.conv3d(y, module.conv2.weight, padding=1), module.norm2)), module.conv3.weight, padding=1
    )
    torch.testing.assert_close(module(x), F.elu(normed(residual + y, module.norm3)))


def test_the_plain_network_is_its_stages_in_a_row():
    """The network equals its stages run in a row, and they declare their channels and convolutions correctly."""
    network, image = seeded("residual_unet", MINI), images(1, (3, 8, 12))
    with torch.inference_mode():
        assert torch.equal(network(image), run_stages(network, image))
        x, outputs = network.prepare(image), []
        for index, stage in enumerate(network.stages):
            assert x.shape[1] == stage.in_channels
            x = network.run_stage(index, x, outputs)
            assert x.shape[1] == stage.out_channels
            outputs.append(x)
    convolutions = sum(isinstance(layer, nn.Conv3d | nn.ConvTranspose3d) for layer in network.modules())
    assert sum(stage.layers for stage in network.stages) == convolutions, "each lies on the way, none beside it"


def test_sections_apart_know_nothing_of_each_other():
    """In a two-dimensional network, a change in one section changes no logit of another section."""
    network, image = seeded("residual_unet", {**MINI, "dimensions": 2}), images(1, (3, 8, 12))
    other = image.clone()
    other[:, :, 0] = 1 - other[:, :, 0]
    with torch.inference_mode():
        logits = network(image)
        assert torch.equal(network(other)[:, :, 1:], logits[:, :, 1:])
        assert not torch.equal(network(other)[:, :, 0], logits[:, :, 0])
        torch.testing.assert_close(network(image[:, :, 1]), logits[:, :, 1])


def test_voxels_beyond_the_receptive_field_change_nothing():
    """With learned batch statistics, a changed section changes no logit more than 10 sections away."""
    network, image = seeded("residual_unet", MINI), images(1, (60, 4, 4))
    other = image.clone()
    other[:, :, -1] += 1
    with torch.inference_mode():
        changed = (network(image) != network(other)).any((0, 1, 3, 4))
    reach = 60 - int(changed.int().argmax())
    assert 1 < reach <= 11, "five modules with two kernels of three"


def test_the_fixed_kernel_interpolates_linearly():
    """The fixed kernel of DeepEM's upsampling interpolates linearly, also along a pooled z.

    The published weights are twice too large along a pooled z; ours are not.
    """
    kernel = linear_kernel(1, (2, 2, 1))
    assert kernel.shape == (1, 1, 4, 4, 1)
    line = torch.tensor([0.25, 0.75, 0.75, 0.25])
    torch.testing.assert_close(kernel[0, 0, :, :, 0], line[:, None] * line)
    ramp = torch.arange(5.0).view(1, 1, 1, 5, 1)
    grown = F.conv_transpose3d(ramp, linear_kernel(1, (1, 2, 1)), stride=(1, 2, 1), padding=(0, 1, 0))[0, 0, 0, :, 0]
    torch.testing.assert_close(grown[1:-1], torch.arange(0.25, 4, 0.5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"order": "middle"}, "it must be 'post'"),
        ({"upsample": "nearest"}, "it must be one of transposed"),
        ({"norm": "group"}, "it must be 'batch'"),
        ({"pools": ((1, 2, 2),) * 3}, "3 widths and 3 pools"),
        ({"dimensions": 4}, "it must be 2"),
        ({"dimensions": 2, "stride": (2, 2, 2)}, "first number must be 1"),
    ],
)
def test_impossible_arguments_are_refused(change, message):
    """Arguments that no residual U-Net can be built from are refused, and the message says what is allowed."""
    with pytest.raises(ModelError, match=message):
        ResidualUNet(**{**MINI, **change})
