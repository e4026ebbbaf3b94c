from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pipeline.errors import ModelError
from pipeline.models import reference
from pipeline.models.cells.fgru import FGRU, PAPER, TENSORFLOW, TORCH_PORT, TopDownFGRU, Variant, variant_of
from tests.models.cells.units import ByHand, randomised, relu, set_to, sigmoid, states

KERNELS = [(3, 5), (3, 1, 5)]


def by_the_paper(unit, x, h):
    """Compute SI equation 3 with scipy; x, h: (b, c, n)."""
    p = ByHand(unit)
    gate = p.convolved(h, "global_gate.weight") * p.convolved(h, "local_gate.weight")
    g_i = sigmoid(p.instance(gate, "norms.0") + p.vector("bias_inhibition", h))
    c_i = p.instance(p.convolved(h * g_i, "inhibition.free", symmetric=True), "norms.1")
    z = relu(relu(x) - relu((p.vector("alpha", h) * h + p.vector("mu", h)) * c_i))
    g_e = sigmoid(p.instance(p.convolved(z, "excitation_gate.weight"), "norms.2") + p.vector("bias_excitation", h))
    c_e = p.instance(p.convolved(z, "excitation.free", symmetric=True), "norms.3")
    candidate = relu(p.vector("kappa", z) * (c_e + z) + p.vector("omega", z) * c_e * z)
    return (1 - g_e) * h + g_e * candidate


def by_the_port(unit, x, h, top_down):
    """Compute the torch port's cell: biases before norms, rectified gates, reflecting borders, full kernels."""
    p = ByHand(unit)
    gate = relu(p.convolved(h, "global_gate.weight")) * relu(p.convolved(h, "local_gate.weight"))
    g_i = sigmoid(p.instance(gate + p.vector("bias_inhibition", h), "norms.0"))
    c_i = p.instance(p.convolved(h * g_i, "inhibition.free", mode="mirror"), "norms.1")
    z = relu(x - relu((p.vector("alpha", h) * h + p.vector("mu", h)) * c_i))
    g_e = sigmoid(p.instance(p.convolved(z, "excitation_gate.weight") + p.vector("bias_excitation", h), "norms.2"))
    c_e = p.instance(p.convolved(z, "excitation.free", mode="mirror"), "norms.3")
    candidate = relu(p.vector("kappa", z) * (c_e + z) + p.vector("omega", z) * c_e * z)
    return (1 - g_e) * (x if top_down else h) + g_e * candidate


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("gate_bias", [False, True])
def test_a_cell_computes_the_equation_of_the_paper(kernel, gate_bias):
    """An fGRU computes the paper's equation, each term of which is computed here again with scipy."""
    unit, (x, h) = randomised(FGRU(3, kernel, gate_bias=gate_bias)), states(len(kernel))
    np.testing.assert_allclose(unit(x, h).detach(), by_the_paper(unit, x.numpy(), h.numpy()), atol=1e-12)


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_port_to_torch_is_a_variant(kernel):
    """TORCH_PORT computes the cells of the torch port; between levels the port keeps X, and the paper H."""
    for cell in (FGRU, TopDownFGRU):
        unit = randomised(cell(3, kernel, symmetry="none", gate_bias=True, variant=TORCH_PORT))
        x, h = states(len(kernel))
        expected = by_the_port(unit, x.numpy(), h.numpy(), cell is TopDownFGRU)
        np.testing.assert_allclose(unit(x, h).detach(), expected, atol=1e-12)


def test_the_published_cell_gives_the_same_states(shared_fixtures):
    """With the port's weights, our cell gives the port's states after each step, and its Z in between."""
    arrays = np.load(shared_fixtures / "gnpt_fgru_h_cell_f64.npz")
    unit = FGRU(8, (5, 5), symmetry="none", gate_bias=True, variant=TORCH_PORT).double()
    unit.load_state_dict(reference.fgru(reference.tensors_of(arrays)))
    x, h = torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["h0"])
    with torch.no_grad():
        for z, expected in zip(arrays["h1"], arrays["h2"], strict=True):
            np.testing.assert_allclose(unit.inhibit(x, h), z, atol=1e-10)
            h = unit.step(x, h)
            np.testing.assert_allclose(h, expected, atol=1e-10)


def test_in_the_port_the_biases_of_gates_do_nothing():
    """In the port an instance norm removes the gates' biases; in ours they follow the norm and have an effect."""
    x, h = states(2)
    change = {}
    for variant in (TORCH_PORT, PAPER):
        unit = randomised(FGRU(3, (3, 3), variant=variant))
        before = unit(x, h)
        after = set_to(unit, bias_inhibition=3.0, bias_excitation=-3.0)(x, h)
        change[variant] = (after - before).abs().max()
    assert change[TORCH_PORT] < 1e-12
    assert change[PAPER] > 1e-3


def test_a_constant_before_a_gates_norm_changes_nothing():
    """A constant that is added before a gate's norm changes nothing, because the instance norm removes it."""
    x, h = states(3)
    unit = randomised(FGRU(3, (1, 3, 3)))
    before = unit(x, h)
    bias = torch.nn.Parameter(torch.tensor([5.0, -2.0, 1.0], dtype=torch.float64))
    unit.excitation_gate.bias = bias
    torch.testing.assert_close(unit(x, h), before)


def test_biases_of_gates_have_an_effect_in_ours():
    """In our cell, a change of either gate's bias changes the state."""
    x, h = states(3)
    for name in ("bias_excitation", "bias_inhibition"):
        unit = randomised(FGRU(3, (1, 3, 3)))
        before = unit(x, h)
        assert not torch.allclose(set_to(unit, **{name: 9.0})(x, h), before)


def test_gates_begin_slow():
    """The excitatory bias begins at -log U(1, T - 1), the negative of the inhibitory one, so states begin slow."""
    torch.manual_seed(0)
    unit = FGRU(200, (1, 1, 1), steps=8)
    assert torch.equal(unit.bias_excitation, -unit.bias_inhibition)
    assert unit.bias_excitation.max() <= 0
    assert -np.log(7.01) < unit.bias_excitation.min() < -np.log(5)


@pytest.mark.parametrize(
    ("variant", "values"),
    [
        (PAPER, {"alpha": 0.1, "omega": 0.1, "mu": 0.0, "kappa": 0.0}),
        (TENSORFLOW, {"alpha": 0.1, "omega": 0.1, "mu": 0.0, "kappa": 0.1}),
        (TORCH_PORT, {"alpha": 0.1, "omega": 0.5, "mu": 1.0, "kappa": 0.5}),
    ],
)
def test_initial_values_are_those_of_their_source(variant, values):
    """Each variant begins with the vectors of its source, with gains of norms at 0.1 and their biases at 0."""
    unit = FGRU(3, (1, 3, 3), variant=variant)
    values |= {f"norms.{k}.gain": 0.1 for k in range(4)} | {f"norms.{k}.bias": 0.0 for k in range(4)}
    found = dict(unit.named_parameters())
    for name, value in values.items():
        assert torch.equal(found[name], torch.full((3,), value)), name


def test_gates_stay_between_zero_and_one():
    """The excitatory gate stays between 0 and 1: without a candidate (kappa = omega = 0), H' / H is 1 - G_E."""
    x, h = states(3)
    kept = (set_to(randomised(FGRU(3, (1, 3, 3))), kappa=0.0, omega=0.0)(x, h) / h).detach()
    assert 0 < kept.min() < kept.max() < 1


def test_an_open_gate_without_candidate_empties_the_state():
    """A gate with G_E = 1 and no candidate (kappa = omega = 0) empties the state: H' = 0."""
    x, h = states(2)
    assert not set_to(randomised(FGRU(3, (3, 3))), kappa=0.0, omega=0.0, bias_excitation=1e4)(x, h).any()


def test_a_closed_gate_keeps_the_state_bit_for_bit():
    """A gate with G_E = 0 keeps H bit for bit, or X in a top-down cell that keeps its drive, as in the port."""
    x, h = states(2)
    assert torch.equal(set_to(randomised(FGRU(3, (3, 3))), bias_excitation=-1e4)(x, h), h)
    assert torch.equal(set_to(randomised(TopDownFGRU(3, (3, 3))), bias_excitation=-1e4)(x, h), h)
    keeping_x = Variant(top_down_keeps="drive")
    unit = set_to(randomised(TopDownFGRU(3, (3, 3), variant=keeping_x)), bias_excitation=-1e4)
    assert torch.equal(unit(x, h), x)


def test_without_alpha_and_mu_nothing_is_inhibited():
    """With alpha = mu = 0 the cell has Z = relu(X), and the inhibitory kernel has no effect."""
    x, h = states(2)
    unit = set_to(randomised(FGRU(3, (3, 3))), alpha=0.0, mu=0.0)
    assert torch.equal(unit.inhibit(x, h), F.relu(x))
    before = unit(x, h)
    set_to(unit.inhibition, free=7.0)
    assert torch.equal(unit(x, h), before)
    set_to(unit, mu=1.0)
    assert not torch.equal(unit(x, h), before)


def test_the_state_begins_as_the_rectified_drive():
    """The state begins as the rectified drive, and in the port as the drive itself; the papers do not say."""
    x, _ = states(2)
    assert torch.equal(FGRU(3, (3, 3)).initial(x), F.relu(x))
    assert torch.equal(FGRU(3, (3, 3), variant=TORCH_PORT).initial(x), x)


def test_the_global_gate_may_see_the_maximum_alone():
    """In the TensorFlow variant, the global gate depends only on the greatest value of each channel."""
    _, h = states(2)
    unit = randomised(FGRU(3, (3, 3), variant=TENSORFLOW))
    set_to(unit.local_gate, weight=0.0)
    with torch.no_grad():
        unit.local_gate.bias = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    gate = unit._gate(h)
    assert torch.equal(gate, gate[..., :1, :1].expand_as(gate))
    expected = F.conv2d(h.amax((2, 3), keepdim=True), unit.global_gate.weight)
    torch.testing.assert_close(gate[..., :1, :1], expected)


@pytest.mark.parametrize(("layers", "widths"), [(2, [4, 2, 4]), (3, [4, 2, 4, 4]), (4, [4, 2, 1, 2, 4])])
def test_gates_of_several_layers_narrow_in_between(layers, widths):
    """In gates of several layers, the global part narrows and widens again; the local part narrows to one channel."""
    unit = randomised(FGRU(4, (3, 3), gate_bias=True, variant=Variant(gate_layers=layers, rectify_gates=True)))
    inside, outside = zip(*[(layer.in_channels, layer.out_channels) for layer in unit.global_gate[::2]], strict=True)
    assert [*inside, outside[-1]] == widths
    assert [layer.out_channels for layer in unit.local_gate[::2]] == [2, 1, 1, 1][:layers]
    (h,) = states(2, channels=4, count=1)
    p = ByHand(unit)

    def deep(which):
        r = h.numpy()
        for layer in range(layers):
            r = relu(p.convolved(r, f"{which}.{2 * layer}.weight"))
        return r

    np.testing.assert_allclose(unit._gate(h).detach(), deep("global_gate") * deep("local_gate"), atol=1e-12)


def test_a_gate_without_layers_is_refused():
    """A gate with zero layers is refused."""
    with pytest.raises(ModelError, match="gate_layers is 0"):
        FGRU(4, (3, 3), variant=Variant(gate_layers=0))


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_names_of_the_port_fit_gates_of_any_number_of_layers(layers):
    """The port's names of gate weights lead to the right layers for gates of one, two and three layers."""
    unit, theirs = FGRU(4, (3, 3), gate_bias=True, variant=Variant(gate_layers=layers)), {}
    for kind, ours in (("se", unit.global_gate), ("sa", unit.local_gate)):
        for k, layer in enumerate([ours] if layers == 1 else ours[::2]):
            theirs |= {f"attention.{kind}.attention.{2 * k}.{name}": p for name, p in layer.named_parameters()}
    found = reference.fgru(theirs)
    assert len(found) == 4 * layers
    assert all(tensor is unit.get_parameter(name) for name, tensor in found.items())


def older_cell(w, x, h):
    """Compute the torch port's fGRUCell: its gate says what stays, its kernels have one channel, alpha is s(alpha)."""

    def normed(r, name):
        return F.instance_norm(r, weight=w[f"{name}.weight"], bias=w[f"{name}.bias"], eps=1e-5)

    def convolved(r, name):
        return F.conv2d(F.pad(r, (1, 1, 1, 1), mode="reflect"), w[name], groups=r.shape[1])

    pre = F.relu(F.conv2d(h, w["attention.attention.0.weight"], w["attention.attention.0.bias"]))
    c1 = normed(convolved(h * normed(pre + w["conv_g1_b"], "bn_g1").sigmoid(), "conv_c1_w"), "bn_c1")
    z = F.relu(F.relu(x) - F.relu((w["alpha"].sigmoid() * h + w["mu"]) * c1))
    g2 = normed(F.conv2d(z, w["conv_g2_w"]) + w["conv_g2_b"], "bn_g2").sigmoid()
    c2 = normed(convolved(z, "conv_c2_w"), "bn_c2")
    return g2 * h + (1 - g2) * F.relu(w["kappa"] * (z + c2) + w["omega"] * z * c2)


def test_the_ports_older_cell_is_a_variant_too():
    """A variant computes the port's older cell, whose gate says how much of the old state stays."""
    generator, c = torch.Generator().manual_seed(0), 4
    shapes = {name: (c, 1, 1) for name in ("alpha", "mu", "kappa", "omega", "conv_g1_b", "conv_g2_b")}
    shapes |= {f"bn_{part}.{kind}": (c,) for part in ("g1", "c1", "g2", "c2") for kind in ("weight", "bias")}
    shapes |= {"conv_c1_w": (c, 1, 3, 3), "conv_c2_w": (c, 1, 3, 3), "conv_g2_w": (c, c, 1, 1)}
    shapes |= {"attention.attention.0.weight": (c, c, 1, 1), "attention.attention.0.bias": (c,)}
    w = {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}
    variant = replace(TORCH_PORT, rectify_drive=True, divisive_alpha=True, local_gate=False)
    unit = FGRU(c, (3, 3), symmetry="none", gate_bias=True, variant=variant).double()
    unit.load_state_dict(reference.fgru(w, gate_keeps=True))
    x, h = states(2, channels=c)
    torch.testing.assert_close(unit(x, h), older_cell(w, x, h), rtol=1e-10, atol=1e-10)


def test_a_gate_without_attention_is_a_convolution():
    """Without its local part, the inhibitory gate is one convolution, as in the port's cell without attention."""
    unit = FGRU(3, (3, 3), variant=Variant(local_gate=False)).double()
    weight = torch.randn(3, 3, 1, 1, dtype=torch.float64)
    unit.load_state_dict(reference.fgru({"conv_g1_w": weight}), strict=False)
    (h,) = states(2, count=1)
    torch.testing.assert_close(unit._gate(h), F.conv2d(h, weight))


def test_norms_can_be_left_out_or_given_another_epsilon():
    """An fGRU can be built without norms, and the epsilon of its norms can be set."""
    x, h = states(2)
    plain = FGRU(3, (3, 3), norm=None).double()
    assert not any("norms" in name for name, _ in plain.named_parameters())
    fine, coarse = FGRU(3, (3, 3), epsilon=1e-12).double(), FGRU(3, (3, 3), epsilon=0.5).double()
    coarse.load_state_dict(fine.state_dict())
    assert not torch.allclose(fine(x, h), coarse(x, h))


def test_the_tensorflow_code_begins_fast_and_zero_is_an_option():
    """Excitatory biases of the TensorFlow variant begin positive (fast), and a state may begin as zero."""
    torch.manual_seed(0)
    unit = FGRU(200, (1, 1), steps=8, variant=TENSORFLOW)
    assert unit.bias_excitation.min() >= 0
    assert torch.equal(unit.bias_excitation, -unit.bias_inhibition)
    x, _ = states(2)
    assert not FGRU(3, (3, 3), variant=Variant(begins_as="zero")).initial(x).any()


def test_refuses_variants_that_do_not_exist():
    """The name of a variant that does not exist is refused."""
    with pytest.raises(ModelError, match="'paper', 'torch_port' or 'tensorflow'"):
        variant_of("keras")
