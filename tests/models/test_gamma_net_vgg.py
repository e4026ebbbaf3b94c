from typing import ClassVar

import pytest
import torch
from torch.nn import functional as F

from pipeline.errors import ModelError
from pipeline.models import reference
from pipeline.models.cells.symmetry import free_parameters
from pipeline.models.gamma_net_vgg import READINGS, GammaNetVGG
from pipeline.models.spec import build
from tests.contracts.model import ModelContract, images, seeded

MINI = {
    "layers": ("conv1_2", "conv2_2", "conv3_3"),
    "horizontal": (3, 3, 1),
    "narrow": (4, 4),
    "width": 0.1,
    "steps": 2,
    "out_channels": 3,
}


class TestMini(ModelContract):
    architecture = "gamma_net_vgg"
    arguments = MINI
    patches = ((2, 13, 18), (3, 12, 9))


class TestLikeThePort(ModelContract):
    architecture = "gamma_net_vgg"
    arguments: ClassVar = {**MINI, "variant": "tensorflow", "gate_bias": True, "narrow": None, "norm": "channel"}
    patches = ((2, 13, 18), (1, 12, 9))


@pytest.mark.parametrize(
    ("reading", "free", "stored"),
    [
        ("20M", 20_429_465, 24_122_777),
        ("table", 22_530_713, 28_317_081),
        ("torch_port", 24_850_888, 24_850_888),
    ],
)
def test_each_reading_of_the_paper_has_its_count(reading, free, stored):
    """The reading '20M' has the paper's count of parameters, and 'torch_port' that of the authors' port."""
    with torch.device("meta"):
        network = GammaNetVGG(**READINGS[reading])
    assert free_parameters(network) == free
    assert sum(parameter.numel() for parameter in network.parameters()) == stored
    assert sum(parameter.numel() for parameter in network.vgg.parameters()) == 14_714_688


def norm(r, w, name):
    return F.instance_norm(r, weight=w[f"{name}.weight"], bias=w[f"{name}.bias"])


def port_unit(w, name, x, h, top_down):
    """Compute a unit of the torch port from weights under the port's names."""
    w = {key.removeprefix(f"{name}."): tensor for key, tensor in w.items() if key.startswith(f"{name}.")}

    def attention(kind, padding):
        return F.relu(F.conv2d(h, w[f"{kind}.weight"], w[f"{kind}.bias"], padding=padding))

    def reflected(r, kernel):
        side = kernel.shape[-1] // 2
        return F.conv2d(F.pad(r, [side] * 4, mode="reflect"), kernel)

    gate = attention("attention.se.attention.0", 0) * attention("attention.sa.attention.0", 1)
    g1 = norm(gate + w["conv_g1_b"], w, "bn_g1").sigmoid()
    c1 = norm(reflected(h * g1, w["conv_c1_w"]), w, "bn_c1")
    z = F.relu(x - F.relu((w["alpha"] * h + w["mu"]) * c1))
    g2 = norm(F.conv2d(z, w["conv_g2_w"]) + w["conv_g2_b"], w, "bn_g2").sigmoid()
    c2 = norm(reflected(z, w["conv_c2_w"]), w, "bn_c2")
    candidate = F.relu(w["kappa"] * (z + c2) + w["omega"] * (z * c2))
    return (1 - g2) * (x if top_down else h) + g2 * candidate


def port_network(w, image, steps):
    """Compute the torch port with the layers of ``MINI`` from weights under the port's names."""

    def vgg(r, *layers):
        for layer in layers:
            r = F.max_pool2d(r, 2) if layer == "pool" else F.relu(
                F.conv2d(r, w[f"base_ff.{layer}.weight"], w[f"base_ff.{layer}.bias"], padding=1)
            )  # fmt: skip
        return r

    def up(r, block, like):
        r = norm(F.interpolate(r, like.shape[2:], mode="bilinear", align_corners=True), w, f"{block}.0")
        for layer in (1, 3):
            r = F.relu(F.conv2d(r, w[f"{block}.{layer}.weight"], w[f"{block}.{layer}.bias"]))
        return r

    blocks = [("pool", "conv2_1", "conv2_2"), ("pool", "conv3_1", "conv3_2", "conv3_3")]
    drive, h = vgg(image, "conv1_1", "conv1_2"), [None] * 3
    for _ in range(steps):
        x = drive
        for level in range(3):
            h[level] = port_unit(w, f"h_units.{level}", x, x if h[level] is None else h[level], top_down=False)
            x = vgg(h[level], *blocks[level]) if level < 2 else h[level]
        for number, level in enumerate((1, 0)):
            top = up(x, f"us_blocks.{number}", h[level])
            x = h[level] = port_unit(w, f"td_units.{number}", h[level], top, top_down=True) + h[level]
    seen = norm(h[0], w, "readout_norm")
    seen = F.interpolate(seen, image.shape[2:], mode="bilinear", align_corners=True)
    return F.conv2d(seen, w["readout_conv.weight"], w["readout_conv.bias"])


def port_weights(widths):
    """Draw random weights under the port's names, which hold the convolutions of VGG16 twice."""
    shapes = {"readout_conv.weight": (3, widths[0], 1, 1), "readout_conv.bias": (3,)}
    norms = [("readout_norm", widths[0])]
    layers = {
        "conv1_1": (3, widths[0]),
        "conv1_2": (widths[0],) * 2,
        "conv2_1": widths[:2],
        "conv2_2": (widths[1],) * 2,
    }
    layers |= {"conv3_1": widths[1:], "conv3_2": (widths[2],) * 2, "conv3_3": (widths[2],) * 2}
    for layer, (inside, outside) in layers.items():
        shapes |= {f"base_ff.{layer}.weight": (outside, inside, 3, 3), f"base_ff.{layer}.bias": (outside,)}
    for name, c, k in (("h_units.0", widths[0], 3), ("h_units.1", widths[1], 3), ("h_units.2", widths[2], 1),
                       ("td_units.0", widths[1], 1), ("td_units.1", widths[0], 1)):  # fmt: skip
        shapes |= {f"{name}.{kernel}": (c, c, k, k) for kernel in ("conv_c1_w", "conv_c2_w")}
        shapes |= {f"{name}.conv_g2_w": (c, c, 1, 1), f"{name}.attention.se.attention.0.weight": (c, c, 1, 1)}
        shapes |= {
            f"{name}.attention.sa.attention.0.weight": (1, c, 3, 3),
            f"{name}.attention.sa.attention.0.bias": (1,),
        }
        shapes |= {f"{name}.attention.se.attention.0.bias": (c,)}
        shapes |= {f"{name}.{v}": (c, 1, 1) for v in ("conv_g1_b", "conv_g2_b", "alpha", "mu", "omega", "kappa")}
        norms += [(f"{name}.bn_{which}", c) for which in ("g1", "c1", "g2", "c2")]
    for name, inside, outside in (("us_blocks.0", widths[2], widths[1]), ("us_blocks.1", widths[1], widths[0])):
        shapes |= {f"{name}.1.weight": (outside, inside, 1, 1), f"{name}.3.weight": (outside, outside, 1, 1)}
        shapes |= {f"{name}.{k}.bias": (outside,) for k in (1, 3)}
        norms.append((f"{name}.0", inside))
    shapes |= {f"{name}.{kind}": (c,) for name, c in norms for kind in ("weight", "bias")}
    generator = torch.Generator().manual_seed(0)
    w = {name: 0.5 * torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}
    return w | {"input_block.0.weight": w["base_ff.conv1_1.weight"], "ds_blocks.0.1.bias": w["base_ff.conv2_1.bias"]}


def test_the_authors_port_gives_the_same_under_its_own_names():
    """With the weights of the authors' port under their own names, our network gives the port's output."""
    network = GammaNetVGG(**{**MINI, **READINGS["torch_port"], "horizontal": (3, 3, 1)}).double()
    widths = [cell.alpha.numel() for cell in network.horizontal]
    w = port_weights(widths)
    network.load_state_dict(reference.gamma_net_vgg(w, gaps=2))
    image = torch.rand(1, 3, 20, 26, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(network(image), port_network(w, image, steps=2), rtol=1e-10, atol=1e-10)


def test_one_channel_is_shown_to_all_three():
    """A grey image gives what three channels equal to it give."""
    network, image = seeded("gamma_net_vgg", MINI), images(1, (2, 13, 18))
    assert torch.equal(network(image), network(image.expand(-1, 3, -1, -1, -1)))


def test_the_convolutions_of_vgg16_are_part_of_the_recurrence():
    """The convolutions of VGG16 run again in each step, so the highest level's state changes from step to step."""
    network = seeded("gamma_net_vgg", {**MINI, "steps": 3})
    x = network.drive(images(1, (1, 16, 16))[:, :, 0])
    first = network.step(x, ())
    second = network.step(x, first)
    assert len(first) == 3
    assert not torch.allclose(first[2], second[2])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"narrow": (4,)}, "each gap between them a narrow width"),
        ({"horizontal": (3, 3)}, "2 horizontal kernels"),
        ({"layers": ("conv2_2", "conv1_2", "conv3_3")}, "in the order in which VGG16 has them"),
        ({"layers": ("conv2_2", "conv3_3", "conv9_1")}, "VGG16 has"),
        ({"steps": 0}, "at least one step"),
        ({"norm": "batch"}, "'channel', 'instance' or 'rms'"),
    ],
)
def test_refuses_arguments_that_make_no_network(wrong, message):
    """Arguments that make no network are refused when it is built, and the message says what is wrong."""
    with pytest.raises(ModelError, match=message):
        build("gamma_net_vgg", {**MINI, **wrong})
