"""Our U-Net computes that of PyTorch Connectomics, which is written here by hand from its names and equations."""

import pytest
import torch
from torch.nn import functional as F

from pipeline.errors import ModelError
from pipeline.models.pytc import unet_from_connectomics

WIDTHS, ISOTROPY = (4, 8, 8), (False, False, True)
FUNCTIONS = {"elu": F.elu, "relu": F.relu, "leaky_relu_0.2": lambda r: F.leaky_relu(r, 0.2), "swish": F.silu}


class ByHand:
    """The published network by hand; its weights, under published names, are drawn when first used.

    r is (b, c, z, y, x), or (b, c, y, x) in two dimensions.
    """

    def __init__(self, activation="elu", pooling=False, padding="replicate", squeeze=False, pre=False, plus=False):
        self.f, self.pooling, self.padding = FUNCTIONS[activation], pooling, padding
        self.squeeze, self.pre, self.plus = squeeze, pre, plus
        self.w, self.generator = {}, torch.Generator().manual_seed(0)

    def drawn(self, name, *shape, low=-0.5):
        if name not in self.w:
            self.w[name] = torch.rand(shape, generator=self.generator, dtype=torch.float64) + low
        return self.w[name]

    def conv(self, r, name, out, kernel, stride=1, wide=0, bias=False):
        weight = self.drawn(f"{name}.weight", out, r.shape[1], *kernel)
        sides = [k // 2 + wide for k in reversed(kernel) for _ in range(2)]
        r = F.pad(r, sides, mode="constant" if self.padding == "zeros" else self.padding)
        b = self.drawn(f"{name}.bias", out) if bias else None
        return (F.conv2d if len(kernel) == 2 else F.conv3d)(r, weight, b, stride)

    def norm(self, r, name):
        mean, gain, bias = (self.drawn(f"{name}.{kind}", r.shape[1]) for kind in ("running_mean", "weight", "bias"))
        return F.batch_norm(r, mean, self.drawn(f"{name}.running_var", r.shape[1], low=0.5), gain, bias, eps=1e-5)

    def unit(self, r, name, out, kernel, **options):
        return self.f(self.norm(self.conv(r, f"{name}.0", out, kernel, **options), f"{name}.1"))

    def block(self, r, name):
        kernel, inner = ((1, 3, 3) if r.ndim == 5 else (3, 3)), f"{name}.conv" + (".0" if self.squeeze else "")
        c, y = r.shape[1], r
        for k in range(2):
            if self.pre:
                y = self.conv(self.f(self.norm(y, f"{inner}.{k}.0")), f"{inner}.{k}.2", c, kernel)
            else:
                y = self.norm(self.conv(y, f"{inner}.{k}.0", c, kernel), f"{inner}.{k}.1")
                y = y if k else self.f(y)
        if self.squeeze:
            few = c // (4 if r.ndim == 5 else 16)
            mean = y.mean(tuple(range(2, y.ndim)))
            s = self.f(mean @ self.drawn(f"{name}.conv.1.fc.0.weight", few, c).T)
            s = torch.sigmoid(s @ self.drawn(f"{name}.conv.1.fc.2.weight", c, few).T)
            y = y * s.reshape(*s.shape, *[1] * (y.ndim - 2))
        return y + r if self.pre else self.f(y + r)

    def non_local(self, r):
        inner = r.shape[1] // 2
        theta, phi, g = (
            self.conv(r, f"non_local.{n}", inner, (1, 1, 1), bias=True).flatten(2) for n in ("theta", "phi", "g")
        )
        y = (torch.softmax(theta.mT @ phi, -1) @ g.mT).mT.reshape(len(r), inner, *r.shape[2:])
        return self.norm(self.conv(y, "non_local.W.0", r.shape[1], (1, 1, 1), bias=True), "non_local.W.1") + r

    def up(self, r, like):
        mode = "trilinear" if r.ndim == 5 else "bilinear"
        return F.interpolate(r, like.shape[2:], mode=mode, align_corners=not self.pooling)

    def __call__(self, r):
        flat = r.ndim == 4
        sides = [(3, 3) if flat else (3, 3, 3) if cubic else (1, 3, 3) for cubic in ISOTROPY]
        halves = [2 if flat or cubic else (1, 2, 2) for cubic in ISOTROPY]
        ends, skips = (5, 5) if flat else (1, 5, 5), []
        r = self.unit(r, "conv_in", WIDTHS[0], ends)
        for i, width in enumerate(WIDTHS):
            if i and self.pooling:
                r = (F.max_pool2d if flat else F.max_pool3d)(r, halves[i])
            stride = halves[i] if i and not self.pooling else 1
            r = self.block(self.unit(r, f"down_layers.{i}.1", width, sides[i], stride=stride), f"down_layers.{i}.2")
            skips.append(r)
        lowest = r = self.non_local(r) if self.plus else r
        for i in reversed(range(len(WIDTHS) - 1)):
            r = self.up(self.unit(r, f"up_layers.{i}.0", WIDTHS[i], sides[i + 1]), skips[i]) + skips[i]
            if self.plus:  # the published code pads, though the kernel is 1
                r = self.up(self.unit(lowest, f"feat_layers.{i}", WIDTHS[i], (1, 1, 1), wide=1), r) + r
            r = self.block(r, f"up_layers.{i}.1")
        return self.conv(r, "conv_out.0", 2, ends, bias=True)


@pytest.mark.parametrize("shape", [(5, 17, 13), (4, 16, 12)], ids=["2 n + 1", "2 n"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"activation": "relu", "padding": "zeros"},
        {"pooling": True, "activation": "leaky_relu_0.2", "padding": "reflect"},
        {"squeeze": True, "activation": "swish", "padding": "circular"},
        {"pre": True},
        {"pre": True, "squeeze": True},
        {"plus": True, "squeeze": True},
        {"plus": True, "pooling": True},
    ],
)
def test_the_network_is_the_published_one_whatever_its_options(options, shape):
    """With the published weights, our network gives the output of the published one for any of its options."""
    hand = ByHand(**options)
    image = torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = hand(image)
    told = {name: options[name] for name in ("activation", "pooling", "padding") if name in options}
    arrays = {f"w__{name.replace('.', '__')}": value.numpy() for name, value in hand.w.items()} | {"x": image.numpy()}
    network = unet_from_connectomics(arrays, torch.float64, **told)
    with torch.inference_mode():
        torch.testing.assert_close(network(image), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("pooling", [False, True])
def test_the_network_in_two_dimensions_is_the_published_one(pooling):
    """Published weights with kernels of two axes make a two-dimensional network with the published output."""
    hand = ByHand(pooling=pooling)
    image = torch.rand(2, 1, 17, 13, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = hand(image)
    network = unet_from_connectomics(hand.w, torch.float64, pooling=pooling)
    assert network.dimensions == 2
    with torch.inference_mode():
        torch.testing.assert_close(network(image), expected, rtol=1e-10, atol=1e-10)


def test_weights_of_something_else_are_refused():
    """Weights of another network are refused, and a missing tensor is named."""
    with pytest.raises(ModelError, match="not the weights of a U-Net of PyTorch Connectomics"):
        unet_from_connectomics({"features.0.weight": torch.zeros(3)})
    hand = ByHand()
    hand(torch.rand(1, 1, 4, 16, 12, dtype=torch.float64))
    del hand.w["up_layers.0.0.0.weight"]
    with pytest.raises(ModelError, match=r"up.1.narrow.0.weight is missing"):
        unet_from_connectomics(hand.w)
