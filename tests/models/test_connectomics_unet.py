from typing import ClassVar

import pytest
import torch
from torch.nn import functional as F

from pipeline.errors import ModelError
from pipeline.models.connectomics_unet import SIZES, ConnectomicsUNet, NonLocal, SqueezeExcitation
from pipeline.models.facts import parameters
from tests.contracts.model import BatchNormContract, ModelContract, images, seeded

MINI = {"widths": (4, 5, 8), "isotropy": (False, False, True), "out_channels": 3}


class TestMixed(BatchNormContract):
    architecture = "connectomics_unet"
    arguments = MINI
    patches = ((4, 8, 12), (2, 4, 8))
    refused = ((3, 6, 8), (4, 8, 7))


class TestIsotropicWithSqueezeAndPools(ModelContract):
    architecture = "connectomics_unet"
    arguments: ClassVar = {
        **MINI,
        "isotropy": (True, True, True),
        "block": "residual_se",
        "norm": "instance",
        "pooling": True,
        "padding": "zeros",
        "io_kernel": (3, 3, 3),
        "stride": (1, 2, 2),
    }
    patches = ((4, 8, 16), (8, 16, 8))
    refused = ((5, 8, 16),)


class TestInSections(BatchNormContract):
    architecture = "connectomics_unet"
    arguments: ClassVar = {**MINI, "isotropy": (False,) * 3, "dimensions": 2}
    patches = ((3, 8, 12), (5, 4, 8))
    refused = ((3, 6, 8),)


WIDE = {"widths": (32, 64, 96, 128, 160), "out_channels": 1}


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        ({"out_channels": 3}, 924_603),
        ({"out_channels": 3, "block": "residual_se"}, 936_283),
        (WIDE, 3_499_329),
        ({**WIDE, "block": "residual_se"}, 3_542_849),
        ({**WIDE, "block": "residual_se", "plus": True}, 3_646_609),
    ],
)
def test_parameters_are_those_of_the_published_networks(arguments, count):
    """With ``published`` the parameter count is that of the published code, whose quirks are kept.

    Without it, blocks follow their level and the key has no bias, which changes the count by a known number.
    """
    with torch.device("meta"):
        assert parameters(ConnectomicsUNet(**arguments, published=True)) == count
        ours = parameters(ConnectomicsUNet(**arguments))
    widths, levels = arguments.get("widths", (28, 36, 48, 64, 80)), (3, 4)
    more = sum(2 * 18 * widths[level] ** 2 for level in levels) + 2 * 18 * widths[3] ** 2  # and the block on the way up
    key = widths[-1] // 2 if arguments.get("plus") else 0
    assert ours == count + more - key


def kernels(network):
    return [block.conv1[0].kernel_size for block in (layer[1] for layer in network.down)]


def test_blocks_follow_the_isotropy_of_their_level():
    """Blocks of isotropic levels look along z; with ``published`` (quirk 1) no block does."""
    thin, cubic = (1, 3, 3), (3, 3, 3)
    assert kernels(ConnectomicsUNet(**MINI)) == [thin, thin, cubic]
    assert kernels(ConnectomicsUNet(**MINI, published=True)) == [thin] * 3
    assert kernels(ConnectomicsUNet(**{**MINI, "isotropy": (True,) * 3})) == [cubic] * 3


def test_sides_of_two_n_plus_one_go_through_unpadded():
    """Patches with sides of 2 n + 1, such as the published 17 x 257 x 257, run without padding.

    Even sides are padded by repeating the last voxel.
    """
    network = seeded("connectomics_unet", MINI)
    image = images(1, (5, 9, 13))
    assert network.prepare(image).shape == (1, 1, 5, 9, 13)
    assert network.prepare(images(1, (4, 8, 13))).shape == (1, 1, 5, 9, 13)
    with torch.inference_mode():
        repeated = F.pad(image[:, :, :-1, :-1, :-1], [0, 1, 0, 1, 0, 1], mode="replicate")
        torch.testing.assert_close(network(image[:, :, :-1, :-1, :-1]), network(repeated)[:, :, :-1, :-1, :-1])
        assert network(image).shape == (1, 3, 5, 9, 13)


def test_strided_levels_lie_on_every_second_voxel():
    """Voxels of a strided level lie on every second finer voxel, so a ramp halved and enlarged stays the same."""
    network = ConnectomicsUNet(**MINI)
    ramp = torch.arange(9.0).view(1, 1, 1, 1, 9)
    torch.testing.assert_close(network.up[0]._enlarged(ramp[..., ::2], ramp), ramp)


def test_squeeze_and_excitation_is_one_factor_a_channel():
    """Squeeze-and-excitation multiplies all voxels of a channel by one factor, which the channels' means decide."""
    torch.manual_seed(0)
    layer, x = SqueezeExcitation(8, 4), torch.randn(2, 8, 2, 3, 4)
    factor = layer(x) / x
    torch.testing.assert_close(factor, factor[:, :, :1, :1, :1].expand_as(factor))
    hidden = F.elu(x.mean((2, 3, 4)) @ layer.squeeze.weight.T)
    torch.testing.assert_close(factor[:, :, 0, 0, 0], torch.sigmoid(hidden @ layer.excite.weight.T))


def test_the_non_local_block_begins_as_the_identity_and_has_no_useless_bias():
    """The non-local block begins as the identity, and has no bias of the key, which changes nothing (quirk 5)."""
    torch.manual_seed(0)
    block, x = NonLocal(4, "batch", key_bias=True).eval(), torch.randn(1, 4, 2, 3, 3)
    assert torch.equal(block(x), x)
    torch.nn.init.ones_(block.norm.weight)
    before = block(x)
    assert not torch.allclose(before, x)
    torch.nn.init.constant_(block.phi.bias, 3.0)
    torch.testing.assert_close(block(x), before)
    assert NonLocal(4, "batch", key_bias=False).phi.bias is None


def test_plus_sees_the_whole_patch_once_it_is_trained():
    """With ``plus`` and a non-local block that is not the identity, a change at one x changes logits at every x."""
    network, image = seeded("connectomics_unet", {**MINI, "plus": True}), images(1, (4, 8, 48))
    torch.nn.init.ones_(network.down[-1][2].norm.weight)
    other = image.clone()
    other[..., -1] += 1
    with torch.inference_mode():
        assert (network(image) != network(other)).any((0, 1, 2, 3)).all()
        other = network.up[-1].plus
        assert other is not None
    plain = seeded("connectomics_unet", MINI)
    assert all(up.plus is None for up in plain.up)


@pytest.mark.parametrize(
    ("heads", "names"),
    [("B", {"foreground"}), ("BC", {"foreground", "contour"}), ("BCD", {"foreground", "contour", "distance"})],
)
def test_heads_have_their_activation(heads, names):
    """Heads give their outputs by name: the foreground passes a sigmoid, and the signed distance tanh."""
    network = ConnectomicsUNet(widths=(4, 5), isotropy=(False, True), heads=heads).eval()
    assert network.out_channels == len(names)
    with torch.inference_mode():
        logits = 5 * network(images(1, (4, 8, 8)))
        found = network.activate(logits)
    assert set(found) == names
    assert all(value.shape == (1, 4, 8, 8) for value in found.values())
    torch.testing.assert_close(found["foreground"], torch.sigmoid(logits[:, 0]))
    if "distance" in names:
        torch.testing.assert_close(found["distance"], torch.tanh(logits[:, 2]))
        assert found["distance"].min() < 0


def test_affinities_have_no_heads():
    """A network without heads refuses to activate them, since its outputs are affinities."""
    with pytest.raises(ModelError, match="its outputs are affinities"):
        ConnectomicsUNet(**MINI).activate(torch.zeros(1, 3, 1, 1, 1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"isotropy": (True,)}, "1 entries of isotropy"),
        ({"block": "dense"}, "block must be one of"),
        ({"padding": "mirror"}, "padding one of"),
        ({"dimensions": 2}, "all levels must be anisotropic"),
        ({"heads": "BD"}, "it must be one of B, BC, BCD"),
    ],
)
def test_impossible_arguments_are_refused(change, message):
    """Arguments that no U-Net can be built from are refused, and the message says what is allowed."""
    with pytest.raises(ModelError, match=message):
        ConnectomicsUNet(**{**MINI, **change})


def test_every_named_size_can_be_built():
    """Every named size can be built, and has 12 output channels."""
    with torch.device("meta"):
        assert all(ConnectomicsUNet(**arguments).out_channels == 12 for arguments in SIZES.values())
