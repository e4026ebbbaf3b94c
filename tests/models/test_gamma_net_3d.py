from typing import ClassVar

import numpy as np
import pytest
import torch
from scipy import ndimage

from pipeline.errors import ModelError
from pipeline.models.cells.blocks import Norm
from pipeline.models.cells.fgru import FGRU
from pipeline.models.cells.mgu import MGU
from pipeline.models.cells.symmetry import SymmetricConv
from pipeline.models.gamma_net_3d import SIZES, GammaNet3D, channels_to_space, space_to_channels
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


def cell(kernel=(1, 3, 3), norm="instance", symmetry="channel", steps=4, channels=3, seed=0):
    """A cell whose vectors are random too, so that no term of the equation is hidden behind a zero."""
    torch.manual_seed(seed)
    unit = FGRU(channels, kernel, norm, symmetry, steps)
    with torch.no_grad():
        for name, parameter in unit.named_parameters():
            if parameter.ndim == 1:
                parameter.copy_(torch.randn(channels) if "norms" in name else torch.rand(channels) * 2 - 0.5)
    return unit


def states(channels=3, shape=(3, 5, 6), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 1, channels, *shape, generator=generator).unbind()


def convolved(r, kernel):
    """Zero-padded cross-correlation by scipy: (i, z, y, x) with (o, i, kz, ky, kx) -> (o, z, y, x)."""
    return np.stack(
        [sum(ndimage.correlate(a, k, mode="constant") for a, k in zip(r, row, strict=True)) for row in kernel]
    )


def fgru_by_the_paper(unit, x, h):
    """SI equation 3 in numpy, float64; x, h: (c, z, y, x)."""
    p = {name: value.detach().double().numpy() for name, value in unit.named_parameters()}

    def vector(name):
        return p[name][:, None, None, None]

    def norm(r, k):
        mean, variance = r.mean((1, 2, 3), keepdims=True), r.var((1, 2, 3), keepdims=True)
        return vector(f"norms.{k}.bias") + vector(f"norms.{k}.gain") * (r - mean) / np.sqrt(variance + 1e-5)

    def symmetric(name):
        return (p[name] + p[name].transpose(1, 0, 2, 3, 4)) / 2

    def sigmoid(r):
        return 1 / (1 + np.exp(-r))

    def relu(r):
        return np.maximum(r, 0)

    gate = convolved(h, p["global_gate.weight"]) * convolved(h, p["local_gate.weight"])
    g_i = sigmoid(norm(gate, 0) + vector("bias_inhibition"))
    c_i = norm(convolved(h * g_i, symmetric("inhibition.free")), 1)
    z = relu(relu(x) - relu((vector("alpha") * h + vector("mu")) * c_i))
    g_e = sigmoid(norm(convolved(z, p["excitation_gate.weight"]), 2) + vector("bias_excitation"))
    c_e = norm(convolved(z, symmetric("excitation.free")), 3)
    candidate = relu(vector("kappa") * (c_e + z) + vector("omega") * c_e * z)
    return (1 - g_e) * h + g_e * candidate


def test_a_cell_computes_the_equation_of_the_paper():
    """Would break the claim that this is the fGRU: each term is computed again with scipy, from the paper."""
    unit, (x, h) = cell(kernel=(3, 3, 5)), states()
    found = unit(x, h)[0].detach().numpy()
    assert found == pytest.approx(fgru_by_the_paper(unit, x[0].double().numpy(), h[0].double().numpy()), abs=2e-5)


def test_a_unit_between_levels_computes_the_equation_of_the_paper():
    """Would break the memory between levels: SI equation 2, with the norm on what goes on alone."""
    torch.manual_seed(0)
    unit = MGU(torch.nn.Conv3d(2, 3, 1), 3, "instance").double()
    x, b = torch.randn(1, 2, 2, 3, 4).double(), torch.randn(1, 3, 2, 3, 4).double()

    def dense(layer, r):
        return torch.einsum("oi,bizyx->bozyx", layer.weight[:, :, 0, 0, 0], r) + layer.bias.view(1, -1, 1, 1, 1)

    a = dense(unit.convolution, x)
    f = 1 / (1 + torch.exp(-(a + dense(unit.forget, b))))
    inner = a + dense(unit.candidate, f * b)
    expected = f * b + (1 - f) * torch.where(inner > 0, inner, torch.exp(inner) - 1)
    sent, memory = unit(x, b)
    torch.testing.assert_close(memory, expected)
    torch.testing.assert_close(sent.float(), unit.norm(expected).float())
    torch.testing.assert_close(unit(x, None)[1], unit(x, torch.zeros_like(b))[1])


def test_channel_symmetry_survives_any_optimiser():
    """Would break the paper's constraint: the published port loses it at the first Adam step."""
    for optimiser in (torch.optim.AdamW, torch.optim.SGD):
        unit, (x, h) = cell(), states()
        update = optimiser(unit.parameters(), lr=0.1, weight_decay=0.1)
        before = unit.inhibition.kernel().clone()
        for _ in range(4):
            update.zero_grad()
            unit(x, h).square().sum().backward()
            update.step()
        for layer in (unit.inhibition, unit.excitation):
            assert torch.equal(layer.kernel(), layer.kernel().transpose(0, 1))
        assert not torch.equal(unit.inhibition.kernel(), before)


def dense_operator(layer, channels, shape):
    """The matrix of a convolution: column k is what it makes of the k-th unit vector."""
    units = torch.eye(channels * int(np.prod(shape))).reshape(-1, channels, *shape)
    with torch.no_grad():
        return layer(units).reshape(len(units), -1).numpy()


def test_adjoint_symmetry_makes_a_symmetric_operator():
    """Would break the real spectrum that 'adjoint' promises; same-offset symmetry does not have it."""
    found = {}
    for symmetry in ("adjoint", "channel"):
        torch.manual_seed(0)
        found[symmetry] = dense_operator(SymmetricConv(2, (3, 1, 3), symmetry), 2, (3, 2, 4))
    assert found["adjoint"] == pytest.approx(found["adjoint"].T, abs=1e-6)
    assert np.abs(found["channel"] - found["channel"].T).max() > 0.1


def set_to(unit, **values):
    with torch.no_grad():
        for name, value in values.items():
            getattr(unit, name).fill_(value)
    return unit


def test_gates_stay_between_zero_and_one():
    """Would break the mixing of old and new. Without a candidate (kappa = omega = 0), H' / H is 1 - G_E."""
    unit, (x, h) = set_to(cell(), kappa=0.0, omega=0.0), states()
    kept = (unit(x, h) / h).detach()
    assert 0 < kept.min() < kept.max() < 1


def test_an_open_gate_without_candidate_empties_the_state():
    """Would break the limit kappa = omega = 0, G_E -> 1: H' = 0."""
    x, h = states()
    assert not set_to(cell(), kappa=0.0, omega=0.0, bias_excitation=1e4)(x, h).any()


def test_a_closed_gate_keeps_the_state_bit_for_bit():
    """Would break the limit G_E -> 0: H' = H."""
    x, h = states()
    assert torch.equal(set_to(cell(), bias_excitation=-1e4)(x, h), h)


def test_without_alpha_and_mu_nothing_is_inhibited():
    """Would break the limit alpha = mu = 0, Z = ReLU(X): then the inhibitory kernel does not matter."""
    x, h = states()
    unit = set_to(cell(), alpha=0.0, mu=0.0)
    before = unit(x, h)
    set_to(unit.inhibition, free=7.0)
    assert torch.equal(unit(x, h), before)
    set_to(unit, mu=1.0)
    assert not torch.equal(unit(x, h), before)


def test_the_biases_of_gates_have_an_effect():
    """Would break Chronos: before an instance norm, as in the published port, a bias does nothing at all."""
    x, h = states()
    before = cell()(x, h)
    assert not torch.allclose(set_to(cell(), bias_excitation=1.0)(x, h), before)
    assert not torch.allclose(set_to(cell(), bias_inhibition=9.0)(x, h), before)


def test_gates_begin_slow():
    """Would break Chronos the other way round: the excitatory bias is -log U(1, T - 1), so states begin by staying."""
    torch.manual_seed(0)
    unit = FGRU(200, (1, 1, 1), "instance", "channel", steps=8)
    assert torch.equal(unit.bias_excitation, -unit.bias_inhibition)
    assert unit.bias_excitation.max() <= 0
    assert -np.log(7.01) < unit.bias_excitation.min() < -np.log(5)


def test_initial_values_are_those_of_the_paper():
    """Would break comparisons: alpha = omega = 0.1, mu = kappa = 0, gains of norms 0.1 and biases 0."""
    unit = FGRU(3, (1, 3, 3), "instance", "channel", steps=8)
    values = {"alpha": 0.1, "omega": 0.1, "mu": 0.0, "kappa": 0.0}
    values |= {f"norms.{k}.gain": 0.1 for k in range(4)} | {f"norms.{k}.bias": 0.0 for k in range(4)}
    found = dict(unit.named_parameters())
    for name, value in values.items():
        assert torch.equal(found[name], torch.full((3,), value)), name


def test_instance_norm_has_mean_zero_and_deviation_one_over_voxels():
    """Would break the paper's norm, and its gain and bias."""
    norm = Norm(2, "instance", gain=2.0)
    set_to(norm, bias=0.5)
    r = norm(images(2, (4, 5, 6)).repeat(1, 2, 1, 1, 1) * 30 + 7)
    torch.testing.assert_close(r.mean((2, 3, 4)), torch.full((2, 2), 0.5))
    torch.testing.assert_close(r.std((2, 3, 4), correction=0), torch.full((2, 2), 2.0))


def test_without_norms_over_space_far_voxels_change_nothing():
    """Would break block-wise inference with 'rms': beyond the receptive field, blocks agree bit for bit."""
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


def test_more_steps_are_another_computation_and_the_early_ones_the_same():
    """Would break recurrence: step t of a longer run is the end of a shorter one, and steps change the answer."""
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
    """Would break empty parts of volumes: the deviation that a norm divides by is zero there."""
    for norm in ("instance", "rms"):
        for value in (0.0, 1.0):
            network = seeded("gamma_net_3d", {**MINI, "norm": norm})
            logits = network(torch.full((1, 1, 3, 8, 12), value))
            logits.square().sum().backward()
            assert logits.isfinite().all()
            gradients = [parameter.grad for parameter in network.parameters()]
            assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


def test_space_goes_into_channels_and_back():
    """Would break the strided stem: no voxel may be lost, and each block of voxels becomes one voxel's channels."""
    r = torch.arange(2 * 3 * 4 * 6 * 10).reshape(2, 3, 4, 6, 10)
    folded = space_to_channels(r, (2, 3, 5))
    assert folded.shape == (2, 3 * 30, 2, 2, 2)
    assert set(folded[0, :30, 1, 0, 1].tolist()) == set(r[0, 0, 2:4, 0:3, 5:10].flatten().tolist())
    assert torch.equal(channels_to_space(folded, (2, 3, 5)), r)


@pytest.mark.parametrize(
    ("size", "count", "multiple"), [("tiny", 832_216, (16, 16, 16)), ("base", 1_099_901, (1, 16, 16))]
)
def test_sizes_have_the_parameters_that_the_documentation_says(size, count, multiple):
    """Would make checkpoints of a named size unusable: they no longer fit."""
    with torch.device("meta"):
        network = GammaNet3D(**SIZES[size])
    assert sum(parameter.numel() for parameter in network.parameters()) == count
    assert network.multiple == multiple


@pytest.mark.parametrize(
    ("horizontal", "vertical", "count"),
    [
        (((1, 9, 9), (1, 7, 7), (1, 5, 5), (1, 3, 3), (1, 1, 1)), (1, 3, 3), 501_117),
        (((1, 9, 9), (3, 7, 7), (3, 5, 5), (3, 3, 3), (1, 1, 1)), (1, 3, 3), 867_325),
    ],
)
def test_the_papers_kernels_give_the_papers_count(horizontal, vertical, count):
    """Would break where a part of the published network is missing, or has a kernel or a bias of its own."""
    paper = {**SIZES["base"], "horizontal": horizontal, "down": (vertical,) * 4, "up": (vertical,) * 4}
    with torch.device("meta"):
        network = GammaNet3D(**paper)
    assert sum(parameter.numel() for parameter in network.parameters()) == count


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
    """Would break a card only when its network is run, with an error of the library underneath."""
    with pytest.raises(ModelError, match=message):
        build("gamma_net_3d", {**MINI, **wrong})
