"""Our U-Net computes that of Lee et al., which is written here by hand under the names of two published codes."""

import pytest
import torch
from torch.nn import functional as F

from pipeline.errors import ModelError
from pipeline.models.superhuman import unet_from_superhuman

WIDTHS = {"pni": (4, 5, 6, 7, 8), "rsunet": (4, 6, 8)}


class ByHand:
    """The published network by hand; its weights are drawn when first used. r is (b, c, z, y, x)."""

    def __init__(self, code, f=F.elu):
        self.pni, self.widths, self.f = code == "pni", WIDTHS[code], f
        self.w, self.generator = {}, torch.Generator().manual_seed(0)

    def drawn(self, name, *shape, low=-0.5):
        if name not in self.w:
            self.w[name] = torch.rand(shape, generator=self.generator, dtype=torch.float64) + low
        return self.w[name]

    def conv(self, r, name, out, kernel, bias=True):
        weight = self.drawn(f"{name}.weight", out, r.shape[1], *kernel)
        return F.conv3d(
            r, weight, self.drawn(f"{name}.bias", out) if bias else None, padding=tuple(k // 2 for k in kernel)
        )

    def norm(self, r, name):
        mean, gain, bias = (self.drawn(f"{name}.{kind}", r.shape[1]) for kind in ("running_mean", "weight", "bias"))
        return F.batch_norm(r, mean, self.drawn(f"{name}.running_var", r.shape[1], low=0.5), gain, bias, eps=1e-5)

    def module(self, r, name, out):
        pni = ("block1.0", "block1.1", "block2.0", "block2.1", "block2.3", "block3")
        names = pni if self.pni else ("conv1.conv", "bn1", "conv2.conv", "bn2", "conv3.conv", "bn3")
        c1, n1, c2, n2, c3, n3 = (f"{name}.{part}" for part in names)
        y = self.f(self.norm(self.conv(r, c1, out, (1, 3, 3) if self.pni else (3, 3, 3), bias=False), n1))
        r = self.conv(
            self.f(self.norm(self.conv(y, c2, out, (3, 3, 3), bias=False), n2)), c3, out, (3, 3, 3), bias=False
        )
        return self.f(self.norm(r + y, n3))

    def up(self, r, skip, k):
        if self.pni:
            weight, bias = (
                self.drawn(f"up{k}.0.weight", r.shape[1], 1, 1, 2, 2),
                self.drawn(f"up{k}.0.bias", r.shape[1]),
            )
            r = F.conv_transpose3d(r, weight, bias, (1, 2, 2), groups=r.shape[1])
            return self.f(self.norm(self.conv(r, f"up{k}.1", skip.shape[1], (1, 1, 1)) + skip, f"cat{k}.0"))
        name = f"upsample{len(self.widths) - 2 - k}"
        r = F.interpolate(r, scale_factor=(1.0, 2.0, 2.0), mode="trilinear", align_corners=False)
        return self.f(self.norm(self.conv(r, f"{name}.conv.conv", skip.shape[1], (1, 1, 1)) + skip, f"{name}.bn"))

    def __call__(self, r):
        first, gaps, skips = self.widths[0], len(self.widths) - 1, []
        ends = ("embed_in.0", "embed_out.0") if self.pni else ("embed_in.conv.conv", "embed_out.conv.conv")
        r = self.f(self.conv(r, ends[0], first, (1, 5, 5)))
        for i, width in enumerate(self.widths):
            name = (f"conv{i}" if i < gaps else "center") if self.pni else f"convmod{i}"
            r = self.module(r if i == 0 else F.max_pool3d(r, (1, 2, 2)), name, width)
            skips.append(r)
        for k in range(gaps):
            skip = skips[gaps - 1 - k]
            r = self.module(
                self.up(r, skip, k), f"conv{gaps + k}" if self.pni else f"dconvmod{gaps - 1 - k}", skip.shape[1]
            )
        r = self.f(self.conv(r, ends[1], first, (1, 5, 5)))
        names = ("out_put.0",) if self.pni else ("output.affinity.conv", "output.myelin.conv")
        return torch.cat([self.conv(r, name, 3, (1, 1, 1)) for name in names], dim=1)


@pytest.mark.parametrize("order", [list, sorted])
@pytest.mark.parametrize("code", ["pni", "rsunet"])
def test_the_network_is_the_published_one(code, order):
    """With the weights of either published code, in any order, our network gives the published output."""
    hand, size = ByHand(code), 2 ** len(WIDTHS[code])
    image = torch.rand(1, 1, 3, size, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = hand(image)
    network = unet_from_superhuman({name: hand.w[name] for name in order(hand.w)}, torch.float64)
    with torch.inference_mode():
        torch.testing.assert_close(network(image), expected, rtol=1e-10, atol=1e-10)


def test_another_activation_can_be_told():
    """The activation, which cannot be told from the weights, is an argument."""
    hand, image = ByHand("rsunet", F.relu), torch.rand(1, 1, 3, 8, 8, dtype=torch.float64)
    expected = hand(image)
    network = unet_from_superhuman(hand.w, torch.float64, activation="relu")
    with torch.inference_mode():
        torch.testing.assert_close(network(image), expected, rtol=1e-10, atol=1e-10)


def test_weights_of_something_else_are_refused():
    """Weights of another network are refused, and so are incomplete ones."""
    with pytest.raises(ModelError, match="neither UNet_PNI nor Superhuman's RSUNet"):
        unet_from_superhuman({"features.0.weight": torch.zeros(3)})
    with pytest.raises(ModelError, match="first module or output are missing"):
        unet_from_superhuman({"embed_in.0.weight": torch.zeros(4, 1, 1, 5, 5)})
