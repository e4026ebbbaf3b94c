"""A folded network computes what the unfolded one does, and equal weights give equal bytes."""

import hashlib

import pytest
import torch
from torch import nn

from pipeline.models.folding import ConvNorm, ScaledConv, folded
from pipeline.models.identity import Identity
from tests.contracts.model import images
from tests.models.plain import CUBIC, THICK, trained


@pytest.mark.parametrize("architecture", ["plain_unet", "plain_gamma"])
@pytest.mark.parametrize("arguments", [THICK, CUBIC])
def test_a_folded_network_computes_the_same(architecture, arguments):
    """Folded and unfolded differ by rounding only, and the folded one has no norm left."""
    network, image = trained(architecture, arguments), images(2, (4, 8, 12))
    flat = folded(network)
    assert not any(isinstance(part, nn.BatchNorm3d | ScaledConv) for part in flat.modules())
    with torch.inference_mode():
        expected = network(image)
        torch.testing.assert_close(flat(image), expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())


def test_in_float64_folded_weights_are_exact():
    """A convolution with scaled weights and its folded form agree to the last digits of float64."""
    conv = ScaledConv(3, 4, (1, 3, 3)).double()
    nn.init.uniform_(conv.gain, 0.5, 2)
    image = torch.rand(2, 3, 4, 5, 6, dtype=torch.float64)
    with torch.inference_mode():
        torch.testing.assert_close(folded(conv)(image), conv(image), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "conv", [nn.Conv3d(3, 4, (1, 3, 3), bias=False), nn.ConvTranspose3d(3, 4, (1, 2, 2), stride=(1, 2, 2), bias=False)]
)
def test_in_float64_a_folded_pair_is_exact(conv):
    """A pair of float64 and its folded convolution agree to the last digits of float64, in both directions of scale."""
    pair = ConvNorm(conv).double().eval()
    for tensor, low in (
        (pair[1].weight, 0.5),
        (pair[1].bias, -1),
        (pair[1].running_mean, -1),
        (pair[1].running_var, 0.1),
    ):
        nn.init.uniform_(tensor, low, 2)
    image = torch.rand(2, 3, 4, 5, 6, dtype=torch.float64)
    with torch.inference_mode():
        torch.testing.assert_close(folded(pair)(image), pair(image), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "known"),
    [
        (lambda: ConvNorm(nn.Conv3d(5, 7, 3, bias=False)), "9400456222ac55a0"),
        (lambda: ScaledConv(5, 7, (3, 3, 3)), "ef2217c6dfe1c73d"),
    ],
)
def test_the_folded_bytes_are_those_of_the_weights_alone(make, known):
    """Folding the same weights twice gives the same bytes, and these bytes are known: no machine may make others."""
    part = make().eval()
    for number, tensor in enumerate(part.state_dict().values()):
        if tensor.is_floating_point():
            steps = torch.arange(tensor.numel()).view(tensor.shape) * (37 + number) % 101
            tensor.copy_((steps + 1) / 128)  # exact in float32
    first, second = (digest(folded(part)) for _ in range(2))
    assert first == second == known


def test_the_given_network_stays_as_it_is():
    """Folding copies a network with norms, and returns one without norms itself."""
    network = trained("plain_unet", THICK)
    before = digest(network)
    assert folded(network) is not network
    assert digest(network) == before
    plain = Identity(out_channels=3)
    assert folded(plain) is plain


def digest(network):
    found = hashlib.blake2b(digest_size=8)
    for tensor in network.state_dict().values():
        found.update(tensor.detach().contiguous().numpy().tobytes())
    return found.hexdigest()
