from typing import ClassVar

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pipeline.errors import ModelError
from pipeline.models.rignet import Gate, RIGNet, depth, rignet
from pipeline.models.spec import build
from pipeline.models.staged import Stage
from tests.contracts.model import BatchNormContract, ModelContract, images, seeded

UNET = {"widths": (4, 5, 6), "embedding": (1, 3, 3)}
RESNET = {"embedding_size": 4, "widths": (4, 6, 8, 10), "depths": (1, 1, 2, 1), "block": "basic"}
HOSTS = {"residual_unet": (UNET, (3, 8, 12)), "resnet_fcn": (RESNET, (2, 40, 70))}
WAYS = [
    *(("sequential", "basic"), ("parallel", "basic"), ("parallel", "multi-range"), ("parallel", "network-wide")),
]


class TestUNetParallel(ModelContract):
    architecture = "rignet"
    arguments: ClassVar = {
        "host": "residual_unet",
        "host_arguments": {**UNET, "norm": "instance"},
        "gates": "multi-range",
        "iterations": 3,
        "out_channels": 3,
    }
    patches = ((3, 8, 12), (5, 4, 8))
    refused = ((3, 6, 8),)


class TestUNetInSectionsSequential(ModelContract):
    architecture = "rignet"
    arguments: ClassVar = {
        "host": "residual_unet",
        "host_arguments": {**UNET, "norm": "rms", "dimensions": 2},
        "unrolling": "sequential",
        "out_channels": 3,
    }
    patches = ((3, 8, 12), (5, 4, 8))


class TestUNetWithTheNetworkWideGate(ModelContract):
    architecture = "rignet"
    arguments: ClassVar = {
        "host": "residual_unet",
        "host_arguments": {**UNET, "norm": "rms"},
        "gates": "network-wide",
        "squash": "add",
        "pool": "none",
        "out_channels": 3,
    }
    patches = ((3, 8, 12), (5, 4, 8))


class TestResNet(BatchNormContract):
    architecture = "rignet"
    arguments: ClassVar = {"host": "resnet_fcn", "host_arguments": RESNET, "feedback": (2, 3, 4, 6), "out_channels": 3}
    patches = ((2, 40, 70), (1, 33, 64))


def wrapped(host, iterations, unrolling, gates, feedback=None):
    """The plain network and a RIGNet around the same weights, with gates that differ from voxel to voxel."""
    plain = seeded(host, {**HOSTS[host][0], "out_channels": 3})
    network = RIGNet(plain, iterations, unrolling, gates, feedback).eval()
    return plain, network, images(2, HOSTS[host][1])


@pytest.mark.parametrize(("unrolling", "gates"), WAYS)
@pytest.mark.parametrize("host", HOSTS)
def test_one_iteration_is_the_plain_network_bit_for_bit(host, unrolling, gates):
    """With one iteration a RIGNet is the plain network bit for bit; gates act from the second iteration on."""
    plain, network, image = wrapped(host, 1, unrolling, gates)
    _, twice, _ = wrapped(host, 2, unrolling, gates)
    with torch.inference_mode():
        assert torch.equal(network(image), plain(image))
        assert not torch.equal(twice(image), plain(image))


@pytest.mark.parametrize(("unrolling", "gates"), WAYS)
@pytest.mark.parametrize("host", HOSTS)
def test_open_gates_change_no_bit(host, unrolling, gates):
    """Gates that are fully open leave the output of the plain network unchanged, bit for bit.

    With a bias of infinity m is exactly 1, also after the interpolation. A block that runs again on the same input
    gives the same output, so only the gates can make iterations differ.
    """
    plain, network, image = wrapped(host, 3, unrolling, gates)
    for gate in network.gates.values():
        nn.init.constant_(gate.conv.bias, float("inf"))
    with torch.inference_mode():
        assert torch.equal(network(image), plain(image))


def test_a_gate_computes_equation_one():
    """A gate pools, convolves, applies the sigmoid and then interpolates, as in the paper's equation 1."""
    torch.manual_seed(0)
    gate = Gate(Stage(3, 5, 1), axes=2, kernel=3)
    f_out = torch.randn(2, 5, 8, 6)
    expected = torch.sigmoid(F.conv2d(F.avg_pool2d(f_out, 2), gate.conv.weight, gate.conv.bias, padding=1))
    m = gate(f_out, f_out, (16, 12))
    assert m.shape == (2, 3, 16, 12)
    torch.testing.assert_close(m, F.interpolate(expected, size=(16, 12), mode="bilinear", align_corners=False))
    nn.init.zeros_(gate.conv.weight)
    torch.testing.assert_close(gate(f_out, f_out, (4, 4)), torch.full((2, 3, 4, 4), 0.8808), atol=1e-4, rtol=0)


def test_a_multi_range_gate_sees_the_last_block_beside_its_own():
    """A multi-range gate convolves the output of its own block together with that of the last block."""
    torch.manual_seed(0)
    gate = Gate(Stage(3, 4, 1), axes=3, kernel=3, far_channels=7)
    f_out, last = torch.randn(1, 4, 3, 8, 6), torch.randn(1, 7, 3, 2, 2)
    sent = F.interpolate(
        F.conv3d(last, gate.far.weight, gate.far.bias), size=(3, 8, 6), mode="trilinear", align_corners=False
    )
    seen = F.avg_pool3d(torch.cat([f_out, sent], 1), 2, ceil_mode=True)
    expected = torch.sigmoid(F.conv3d(seen, gate.conv.weight, gate.conv.bias, padding=1))
    m = gate(f_out, last, (6, 8, 6))
    torch.testing.assert_close(m, F.interpolate(expected, size=(6, 8, 6), mode="trilinear", align_corners=False))


@pytest.mark.parametrize("pool", ["average", "maximum", "none"])
@pytest.mark.parametrize("squash", ["sigmoid", "tanh", "add"])
def test_the_other_gates_pool_squash_and_multiply_or_add(squash, pool):
    """A gate multiplies the input by a sigmoid or a tanh, or adds a ReLU to it, after the pool that it names."""
    torch.manual_seed(0)
    gate = Gate(Stage(3, 5, 1), axes=2, kernel=3, squash=squash, pool=pool)
    f_in, f_out = torch.randn(2, 3, 16, 12), torch.randn(2, 5, 8, 6)
    pools = {"average": lambda r: F.avg_pool2d(r, 2), "maximum": lambda r: F.max_pool2d(r, 2), "none": lambda r: r}
    squashes = {"sigmoid": torch.sigmoid, "tanh": torch.tanh, "add": torch.relu}
    pre = F.conv2d(pools[pool](f_out), gate.conv.weight, gate.conv.bias, padding=1)
    m = F.interpolate(squashes[squash](pre), size=(16, 12), mode="bilinear", align_corners=False)
    expected = f_in + m if squash == "add" else m * f_in
    torch.testing.assert_close(gate.applied(f_in, f_out, f_out), expected)
    assert gate.conv.bias.unique().item() == (0 if squash == "add" else 2)


def test_the_network_wide_gate_is_one_and_sees_the_last_block():
    """A network-wide RIGNet has one gate, at its first gated block, and only the last block's output moves it."""
    plain, network, _ = wrapped("residual_unet", 2, "parallel", "network-wide", (2, 4))
    assert list(network.gates) == ["1"]
    before = plain.stages[0].out_channels
    assert network.gates["1"].conv.weight.shape[:2] == (plain.stages[1].in_channels, plain.stages[-1].out_channels)
    f_in, f_out = torch.rand(1, before, 3, 4, 4), torch.rand(1, plain.stages[1].out_channels, 3, 4, 4)
    last = torch.rand(1, plain.stages[-1].out_channels, 3, 4, 4)
    assert torch.equal(network._gated(1, f_in, f_out, last), network._gated(1, f_in, 2 * f_out, last))
    assert not torch.equal(network._gated(1, f_in, f_out, last), network._gated(1, f_in, f_out, 2 * last))


class Row(nn.Module):
    """A staged network whose layers are cosines, so that the autograd graph shows how deep it is."""

    out_channels, axes = 1, 2

    def __init__(self, layers):
        super().__init__()
        self.stages = tuple(Stage(1, 1, n) for n in layers)
        self.calls = []

    def prepare(self, image):
        return image

    def run_stage(self, index, x, outputs):
        assert len(outputs) == index
        self.calls.append(index + 1)
        for _ in range(self.stages[index].layers):
            x = torch.cos(x)
        return x

    def finish(self, x, image):
        return x


def longest_way(tensor):
    """Return the largest number of cosines on any path through the graph back to the image."""
    deepest, order, seen = {}, [(tensor.grad_fn, False)], set()
    while order:
        node, done = order.pop()
        if done:
            below = [deepest[parent] for parent, _ in node.next_functions if parent is not None]
            deepest[node] = max(below, default=0) + (type(node).__name__ == "CosBackward0")
        elif node not in seen:
            seen.add(node)
            order.append((node, True))
            order += [(parent, False) for parent, _ in node.next_functions if parent is not None]
    return deepest[tensor.grad_fn]


def row(layers, iterations, unrolling, feedback, gates="basic"):
    network = RIGNet(Row(layers), iterations, unrolling, gates, feedback)
    return network, longest_way(network(torch.rand(1, 1, 4, 4, requires_grad=True)))


@pytest.mark.parametrize("iterations", [1, 2, 4])
@pytest.mark.parametrize(
    ("layers", "feedback"),
    [((1, 2, 3, 4), None), ((3, 2, 2, 5), (2, 4)), ((2, 3, 1), (2,)), ((1, 1, 2, 3, 1), (1, 3, 4))],
)
def test_depths_are_those_of_the_paper(layers, feedback, iterations):
    """The reported depth is the paper's, l_f + l_r u or l_f + l_rj + l_rk u, and the longest path of the graph."""
    gated = feedback or range(1, len(layers) + 1)
    l_r = sum(layers[block - 1] for block in gated)
    l_f, l_rk = sum(layers) - l_r, layers[max(gated) - 1]
    sequential, way = row(layers, iterations, "sequential", feedback)
    assert sequential.depth == way == l_f + l_r * iterations
    parallel, way = row(layers, iterations, "parallel", feedback)
    assert parallel.depth == way == l_f + (l_r - l_rk) + l_rk * iterations
    if iterations == 1:
        assert parallel.depth == sequential.depth == sum(layers)


def test_the_paper_counts_the_last_gated_block_also_where_an_earlier_one_is_deeper():
    """Where an earlier block is deeper than the last gated one, the reported depth is still the paper's.

    The longest path of the graph is then longer, since it goes u times through the deepest block.
    """
    network, way = row((1, 9, 2), 3, "parallel", None)
    assert network.depth == depth(network.network.stages, [0, 1, 2], 3, "parallel") == 1 + 9 + 2 * 3
    assert way == 1 + 9 * 3 + 2


def test_blocks_run_in_the_order_of_their_unrolling():
    """Sequential unrolling repeats each gated block in its place.

    Parallel unrolling repeats the whole row of blocks from the first gated one on.
    """
    sequential, _ = row((1, 1, 1), 3, "sequential", (1, 3))
    assert sequential.network.calls == [1, 1, 1, 2, 3, 3, 3]
    parallel, _ = row((1, 1, 1, 1), 3, "parallel", (2, 3))
    assert parallel.network.calls == [1, 2, 3, 4, 2, 3, 4, 2, 3, 4]


def test_only_the_named_blocks_have_gates():
    """Only the blocks that ``feedback`` names have gates, and the last block's gate has no far input."""
    _, network, _ = wrapped("residual_unet", 2, "parallel", "multi-range", (1, 6))
    assert set(network.gates) == {"0", "5"}
    assert network.gates["0"].far is not None
    assert network.gates["5"].far is None, "the last block is its own last block"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iterations": 0}, "at least 1"),
        ({"unrolling": "both"}, "'sequential' or 'parallel'"),
        ({"gates": "wide"}, "'basic' or 'multi-range'"),
        ({"gates": "multi-range", "unrolling": "sequential"}, "use unrolling 'parallel'"),
        ({"gates": "network-wide", "unrolling": "sequential"}, "use unrolling 'parallel'"),
        ({"squash": "relu"}, "'sigmoid', 'tanh' or 'add'"),
        ({"pool": "mean"}, "'average', 'maximum' or 'none'"),
        ({"feedback": (1, 7)}, "numbered 1 to 6"),
        ({"host": "identity", "host_arguments": {}}, "is no staged network"),
        ({"host_arguments": "huge"}, "one of tiny, lee"),
    ],
)
def test_impossible_arguments_are_refused(options, message):
    """Arguments that no RIGNet can be built from are refused, and the message says what is allowed."""
    with pytest.raises(ModelError, match=message):
        rignet(**{"host_arguments": UNET, **options})


def test_a_wrapped_network_says_what_patches_fit():
    """A RIGNet has the ``multiple`` of its host, so that patch shapes can be checked before training begins."""
    assert build("rignet", {"host_arguments": UNET}).multiple == (1, 4, 4)
    assert build("rignet", {"host": "resnet_fcn", "host_arguments": RESNET}).multiple == (1, 1, 1)
