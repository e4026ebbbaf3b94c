from typing import ClassVar

import pytest
import torch
from torch.nn import functional as F

from pipeline.errors import ModelError
from pipeline.models.facts import kmac_per_voxel
from pipeline.models.gamma_net_3d import SIZES, GammaNet3D
from pipeline.models.spec import build
from tests.contracts.model import ModelContract, images, seeded

MINI = {
    "widths": (4, 6),
    "horizontal": ((1, 3, 3), (3, 3, 3)),
    "pools": ((1, 2, 2),),
    "stride": (1, 1, 1),
    "steps": 3,
    "out_channels": 4,
}


class TestAnisotropic(ModelContract):
    architecture = "gamma_net_3d"
    arguments = MINI
    patches = ((3, 8, 12), (5, 6, 4))
    refused = ((3, 8, 11), (3, 7, 12))


class TestStridedWithoutNormOverSpace(ModelContract):
    architecture = "gamma_net_3d"
    arguments: ClassVar = {**MINI, "stride": (2, 2, 2), "pools": ((2, 1, 2),), "norm": "rms", "symmetry": "adjoint"}
    patches = ((8, 6, 12), (4, 10, 8))
    refused = ((6, 6, 12), (8, 5, 12), (8, 6, 10))


class TestThreeLevels(ModelContract):
    architecture = "gamma_net_3d"
    arguments: ClassVar = {
        "widths": (3, 4, 5),
        "horizontal": ((1, 5, 3), (3, 3, 3), (1, 1, 1)),
        "pools": ((1, 2, 2), (2, 2, 2)),
        "stem": (1, 3, 3),
        "down": ((1, 3, 3), (3, 3, 3)),
        "up": ((1, 3, 3), (1, 3, 3)),
        "local_gate": (1, 3, 3),
        "gate_bias": True,
        "readout": (1, 5, 5),
        "readout_sees_image": False,
        "steps": 2,
        "out_channels": 3,
        "symmetry": "none",
    }
    patches = ((4, 8, 12), (2, 12, 4))
    refused = ((3, 8, 12), (4, 10, 12))


@pytest.mark.parametrize("sees_image", [False, True])
def test_two_steps_are_what_the_file_says(sees_image):
    """Two steps on two levels equal the equations in the module's docstring, written out here with the cells alone."""
    torch.manual_seed(0)
    network = GammaNet3D(**{**MINI, "steps": 2, "readout_sees_image": sees_image}).double()
    image = torch.rand(1, 1, 3, 8, 12, dtype=torch.float64)
    x = network.stem(image)
    h0, h1, below, above = F.relu(x), None, None, None
    for _ in range(2):
        h0 = network.horizontal[0](x, h0)
        drive, below = network.down[0](F.max_pool3d(h0 + x, (1, 2, 2)), below)
        h1 = network.horizontal[1](drive, F.relu(drive) if h1 is None else h1)
        top, above = network.up[0](h1, above)
        h0 = network.top_down[0](h0, top) + h0
    seen = network.readout_norm(h0)
    expected = network.readout(torch.cat([seen, x], dim=1) if sees_image else seen)
    torch.testing.assert_close(network(image), expected)


def test_without_norms_over_space_far_voxels_change_nothing():
    """With 'rms' a changed section leaves far sections the same bit for bit; with 'instance' it changes them all."""
    changed = {}
    for norm in ("rms", "instance"):
        network = seeded("gamma_net_3d", {**MINI, "steps": 1, "norm": norm})
        image = images(1, (24, 8, 8))
        other = image.clone()
        other[:, :, -1] = 1 - other[:, :, -1]
        with torch.inference_mode():
            changed[norm] = (network(image) != network(other)).any((0, 1, 3, 4)).numpy()
    reach = 24 - int(changed["rms"].argmax())
    assert changed["rms"][-1]
    assert 3 < reach < 20
    assert changed["instance"].all()


@pytest.mark.parametrize("norm", ["rms", "channel"])
def test_blocks_agree_with_the_whole_beyond_the_receptive_field(norm):
    """With a norm over the channels of a voxel, a block with a halo gives what the whole volume gives there.

    With the instance norm, which sees the whole patch, it does not.
    """
    network = seeded("gamma_net_3d", {**MINI, "steps": 2, "norm": norm}).double()
    image, halo = images(1, (66, 8, 8)).double(), 26
    with torch.inference_mode():
        whole = network(image)
        for start in (0, 20, 40):
            low, high = max(start - halo, 0), min(start + 20 + halo, 66)
            block = network(image[:, :, low:high])[:, :, start - low : start - low + 20]
            torch.testing.assert_close(block, whole[:, :, start : start + 20], rtol=1e-10, atol=1e-12)
        instance = seeded("gamma_net_3d", {**MINI, "steps": 2}).double()
        assert not torch.allclose(instance(image[:, :, :46])[:, :, :20], instance(image)[:, :, :20])


@pytest.mark.parametrize(("steps", "radius"), [(1, 13), (2, 23)])
def test_the_base_size_sees_so_many_sections(steps, radius):
    """The base size sees 13 sections to each side after one step, and 23 after two."""
    network = seeded("gamma_net_3d", {**SIZES["base"], "widths": (6,) * 5, "steps": steps, "norm": "rms"}).double()
    image = images(1, (2 * radius + 9, 16, 16)).double().requires_grad_()
    middle = image.shape[2] // 2
    network(image)[0, :, middle].square().sum().backward()
    seen = image.grad.abs().amax((0, 1, 3, 4)).nonzero().flatten() - middle
    assert (seen.min(), seen.max()) == (-radius, radius)


def test_more_steps_are_another_computation_and_the_early_ones_the_same():
    """Step t of a longer run equals the end of a run of t steps, and each further step changes the logits."""
    network, image = seeded("gamma_net_3d", MINI), images(1, (3, 8, 12))
    with torch.inference_mode():
        every = network(image, every_step=True)
        assert len(every) == 3
        assert torch.equal(every[-1], network(image))
        short = seeded("gamma_net_3d", {**MINI, "steps": 1})
        short.load_state_dict(network.state_dict())
        assert torch.equal(every[0], short(image))
    assert not torch.allclose(every[0], every[1])
    assert not torch.allclose(every[1], every[2])


def test_constant_images_give_finite_answers_and_gradients():
    """Constant images give finite logits and gradients, although the deviation that norms divide by is zero there."""
    for norm in ("instance", "rms"):
        for value in (0.0, 1.0):
            network = seeded("gamma_net_3d", {**MINI, "norm": norm})
            logits = network(torch.full((1, 1, 3, 8, 12), value))
            logits.square().sum().backward()
            assert logits.isfinite().all()
            gradients = [parameter.grad for parameter in network.parameters()]
            assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize(
    ("size", "count", "multiple"), [("tiny", 832_216, (16, 16, 16)), ("base", 1_099_901, (1, 16, 16))]
)
def test_sizes_have_the_parameters_that_the_documentation_says(size, count, multiple):
    """Each named size has the parameter count and the patch multiple that the documentation gives."""
    with torch.device("meta"):
        network = GammaNet3D(**SIZES[size])
    assert sum(parameter.numel() for parameter in network.parameters()) == count
    assert network.multiple == multiple


@pytest.mark.parametrize(
    ("horizontal", "vertical", "count", "kmac"),
    [
        (((1, 9, 9), (1, 7, 7), (1, 5, 5), (1, 3, 3), (1, 1, 1)), (1, 3, 3), 501_117, 1110),
        (((1, 9, 9), (3, 7, 7), (3, 5, 5), (3, 3, 3), (1, 1, 1)), (1, 3, 3), 867_325, 1493),
    ],
)
def test_the_papers_kernels_give_the_papers_count_and_work(horizontal, vertical, count, kmac):
    """With the paper's kernels, the network has the paper's parameter count and multiply-adds for each voxel."""
    paper = {**SIZES["base"], "horizontal": horizontal, "down": (vertical,) * 4, "up": (vertical,) * 4}
    with torch.device("meta"):
        network = GammaNet3D(**paper)
    assert sum(parameter.numel() for parameter in network.parameters()) == count
    assert kmac_per_voxel("gamma_net_3d", paper, (18, 160, 160)) == pytest.approx(kmac, abs=0.5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"down": ()}, "0 kernels down"),
        ({"up": ((1, 3, 3),) * 3}, "3 up"),
        ({"pools": ()}, "2 widths, 2 horizontal kernels, 0 pools"),
        ({"horizontal": ((1, 3, 3),)}, "each level needs a horizontal kernel"),
        ({"steps": 0}, "at least one step"),
        ({"norm": "batch"}, "'instance' or 'rms'"),
        ({"symmetry": "full"}, "'channel', 'adjoint' or 'none'"),
        ({"horizontal": ((1, 3, 3), (2, 3, 3))}, "odd sides"),
        ({"stride": (2, 2)}, "need three: z, y, x"),
        ({"stride": 2}, "refuses its arguments"),
        ({"widths": (4, -6)}, "refuses its arguments"),
        ({"depth": 3}, "depth"),
    ],
)
def test_refuses_arguments_that_make_no_network(wrong, message):
    """Arguments that make no network are refused when it is built, and the message says what is wrong."""
    with pytest.raises(ModelError, match=message):
        build("gamma_net_3d", {**MINI, **wrong})
