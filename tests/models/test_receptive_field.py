import torch
from torch import nn
from torch.nn import functional as F

from pipeline.models.receptive_field import Passing, receptive_field


class Stack(nn.Module):
    """A stack of convolutions with rectifiers between them and a max pool, whose receptive field is known."""

    def __init__(self, *kernels, whole=False):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Conv3d(1, 1, kernel, padding=tuple(k // 2 for k in kernel)) for kernel in kernels
        )
        self.whole = whole
        nn.init.zeros_(self.layers[0].weight)

    def forward(self, x):
        for layer in self.layers:
            x = torch.relu(layer(x) - 5)
        if self.whole:
            x = x + x.mean((2, 3, 4), keepdim=True)
        small = F.max_pool3d(x, (1, 2, 4))
        return torch.sigmoid(50 * F.interpolate(small, size=x.shape[2:]))


def test_a_field_is_measured_although_nothing_would_get_through():
    """The whole field is measured, although dead rectifiers, a max pool, full gates and zero weights hide it.

    The measurement changes no weight, and a network that sees the whole patch has no finite field.
    """
    kernels = ((3, 1, 5), (1, 3, 1))
    expected = tuple(
        sum(k - 1 for k in sides) + pool for sides, pool in zip(zip(*kernels, strict=True), (1, 2, 4), strict=True)
    )
    network = Stack(*kernels)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert receptive_field(network, (1, 2, 4)) == expected
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert receptive_field(Stack(*kernels, whole=True), (1, 2, 4)) == (None, None, None)


def test_only_within_the_measurement_everything_passes():
    """A rectifier lets negative values pass inside ``Passing`` and is an ordinary rectifier again afterwards."""
    x = torch.tensor([-1.0, 2.0])
    with Passing(0):
        assert torch.equal(torch.relu(x), x)
    assert torch.equal(torch.relu(x), torch.tensor([0.0, 2.0]))
