from math import log

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pipeline.errors import ModelError
from pipeline.models import reference
from pipeline.models.cells.hgru import HGRU
from tests.models.cells.units import ByHand, randomised, relu, set_to, sigmoid, softplus, states

KERNELS = [(3, 5), (3, 1, 5)]


def by_the_paper(unit, x, h, form):
    """Compute the equations of a form with scipy; x, h: (b, c, n)."""
    p, rise = ByHand(unit), relu if form in ("paper", "relu") else softplus
    over_all = (0, *range(2, x.ndim))
    axes = {"crbp": over_all, "relu": over_all, "panoptic": tuple(range(1, x.ndim)), "paper": None}[form]

    def norm(r, k):
        if form == "paper":
            return r
        if form == "panoptic":  # 32 and 3 have no common factor: all three channels are one group
            epsilon = 1e-5
            scaled = (r - r.mean(axes, keepdims=True)) / np.sqrt(r.var(axes, keepdims=True) + epsilon)
            return p.vector(f"norms.{k}.bias", r) + p.vector(f"norms.{k}.gain", r) * scaled
        return p.norm(r, f"norms.{k}", axes, 1e-3)

    if form == "panoptic":
        wide = p.convolved(
            softplus(p.convolved(h, "inhibition_gate.channels.0.weight")), "inhibition_gate.channels.2.weight"
        )
        place = p.convolved(
            softplus(p.convolved(h, "inhibition_gate.places.0.weight")), "inhibition_gate.places.2.weight"
        )
        g1 = sigmoid(wide * place + p.vector("inhibition_gate.bias", h))
    else:
        g1 = sigmoid(p.convolved(h, "inhibition_gate.weight"))
    c1 = norm(p.convolved(h * g1, "inhibition.free"), 1)
    z = rise(x - rise(c1 * (p.vector("alpha", h) * h + p.vector("mu", h))))
    g2 = sigmoid(p.convolved(z, "excitation_gate.weight"))
    c2 = norm(p.convolved(z, "excitation.free"), 3)
    gamma = p.vector("gamma" if form in ("crbp", "relu") else "kappa", z)
    candidate = rise(p.vector("kappa", z) * z + gamma * c2 + p.vector("omega", z) * z * c2)
    mixed = (1 - g2) * h + g2 * candidate
    return softplus(mixed) if form == "crbp" else mixed


@pytest.mark.parametrize("form", ["crbp", "panoptic", "relu", "paper"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_each_form_computes_the_equations_of_its_paper(form, kernel):
    """Each of the four forms computes the equations of its paper, which are computed here again with scipy."""
    unit, (x, h) = randomised(HGRU(3, kernel, form=form)), states(len(kernel))
    np.testing.assert_allclose(unit(x, h).detach(), by_the_paper(unit, x.numpy(), h.numpy(), form), atol=1e-12)


def test_the_published_cell_gives_the_same_states_and_gates(shared_fixtures):
    """With the published weights, the C-RBP form gives the published state and gate of each step."""
    arrays = np.load(shared_fixtures / "crbp_hgru_cell_f64.npz")
    unit = HGRU(25, (5, 5)).double()
    unit.load_state_dict(reference.hgru(reference.tensors_of(arrays)))
    x, h = torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["states"][0])
    with torch.no_grad():
        for gate, expected in zip(arrays["gate2"], arrays["states"][1:], strict=True):
            np.testing.assert_allclose(unit.gate(unit.inhibit(x, h), 2), gate, atol=1e-10)
            h = unit.step(x, h)
            np.testing.assert_allclose(h, expected, atol=1e-10)


def test_the_outer_softplus_lifts_a_state_without_limit():
    """With a closed gate, n steps from 0 give log(n + 1) with the outer softplus, and 0 with ``outer=False``."""
    x = torch.zeros(1, 2, 1, 1, dtype=torch.float64)
    for outer in (True, False):
        unit = HGRU(2, (1, 1), outer=outer).double()
        with torch.no_grad():
            unit.excitation_gate.bias.fill_(-1e4)
            h = unit.initial(x)
            for _ in range(1000):
                h = unit.step(x, h)
        assert h.flatten().tolist() == pytest.approx([log(1001) if outer else 0.0] * 2, abs=1e-12)


def test_softplus_n_times_from_zero_is_the_logarithm_of_n_plus_one():
    """Softplus applied n times to zero gives log(n + 1), since exp(softplus(h)) = exp(h) + 1."""
    h = torch.zeros((), dtype=torch.float64)
    for _ in range(10_000):
        h = F.softplus(h)
    assert h.item() == pytest.approx(log(10_001), abs=1e-10)


def test_an_open_gate_and_little_drive_reach_a_steady_state():
    """With an open gate (b2 = 2) and a small drive, the C-RBP form is at a steady state after 30 steps."""
    torch.manual_seed(0)
    unit, (x,) = HGRU(25, (5, 5)).double(), states(2, channels=25, count=1)
    set_to(unit.excitation_gate, bias=2.0)
    with torch.no_grad():
        unit.excitation_gate.weight.mul_(0.1)
        h = unit.initial(x)
        for _ in range(30):
            before, h = h, unit.step(0.01 * x.square(), h)
    assert (h - before).abs().max() < 1e-13


def test_batch_statistics_hold_in_evaluation_too():
    """Norms use the statistics of the current batch in evaluation too, as in the published cell."""
    unit, (x, h) = HGRU(3, (3, 3)).double(), states(2)
    assert torch.equal(unit.train()(x, h), unit.eval()(x, h))
    assert not torch.allclose(unit(x, h)[:1], unit(x[:1], h[:1]))


def test_the_idle_norms_of_gates_count_and_can_be_woken():
    """The two norms of the gates are idle and untrained, as published; ``normalise_gates`` puts them to use."""
    x, h = states(2)
    idle, awake = HGRU(3, (3, 3)).double(), HGRU(3, (3, 3), normalise_gates=True).double()
    awake.load_state_dict(idle.state_dict())
    assert not torch.allclose(idle(x, h), awake(x, h))
    trained = {name for name, parameter in idle.named_parameters() if parameter.requires_grad}
    assert {name for name, _ in idle.named_parameters()} - trained == {
        f"norms.{k}.{kind}" for k in (0, 2) for kind in ("gain", "bias")
    }
    assert all(parameter.requires_grad for parameter in awake.parameters())


def test_biases_are_slow_and_the_published_slip_is_an_option():
    """Gate biases are log U(1, 7) for 8 steps; the published slip, U(1, 7) without the logarithm, is an option."""
    torch.manual_seed(0)
    for chronos, low, high in (("log", 0.0, np.log(7.01)), ("unlogged", 1.0, 7.0)):
        unit = HGRU(300, (1, 1), steps=8, chronos=chronos)
        bias = unit.inhibition_gate.bias
        assert torch.equal(unit.excitation_gate.bias, -bias)
        assert low <= bias.min() < low + 0.2
        assert high - 0.2 < bias.max() <= high


def test_initial_values_are_those_of_the_code():
    """Vectors and norms begin with the values of the published code, and gate weights are orthogonal."""
    found = dict(HGRU(3, (3, 3)).named_parameters())
    values = {"alpha": 0.1, "gamma": 1.0, "kappa": 0.5, "omega": 0.5, "mu": 1.0}
    values |= {f"norms.{k}.gain": 0.1 for k in range(4)} | {f"norms.{k}.bias": 0.0 for k in range(4)}
    for name, value in values.items():
        assert torch.equal(found[name], torch.full((3,), value)), name
    weight = found["excitation_gate.weight"].squeeze()
    torch.testing.assert_close(weight @ weight.T, torch.eye(3))


def test_the_panoptic_unit_has_the_parameters_of_the_paper():
    """The panoptic unit has 783,552 parameters fewer than the four convolutions that it replaces, as in the paper."""
    convolutions = 4 * (3 * 3 * 256 * 256 + 256)
    with torch.device("meta"):
        unit = HGRU(256, (3, 3), form="panoptic")
    count = sum(parameter.numel() for parameter in unit.parameters())
    assert (count, convolutions - count) == (1_576_768, 783_552)


def test_names_of_the_panoptic_code_fit():
    """Weights of the panoptic code load under their own names."""
    c = 8
    shapes = {
        **{"u1_channel_gate_0.weight": (2, c, 1, 1), "u1_channel_gate_0.bias": (2,)},
        **{"u1_channel_gate_1.weight": (c, 2, 1, 1), "u1_spatial_gate_0": (4, c, 3, 3), "u1_spatial_bias": (4, 1, 1)},
        **{"u1_spatial_gate_1": (1, 4, 3, 3), "u1_combine_bias": (c, 1, 1)},
        **{"u2_gate.weight": (c, c, 1, 1), "u2_gate.bias": (c,)},
        **{"w_gate_inh": (c, c, 3, 3), "w_gate_exc": (c, c, 3, 3)},
        **{name: (c, 1, 1) for name in ("alpha", "mu", "w", "kappa")},
        **{f"bn.{k}.{kind}": (c,) for k in range(2) for kind in ("weight", "bias")},
    }
    tensors = {name: torch.randn(shape) for name, shape in shapes.items()}
    unit = HGRU(c, (3, 3), form="panoptic")
    unit.load_state_dict(reference.panoptic_hgru(tensors))
    assert torch.equal(unit.norms[3].gain, tensors["bn.1.weight"])


def test_names_of_the_panoptic_code_without_attention_fit():
    """Weights of the panoptic cell without attention load, and its gate is then a sigmoid of one convolution."""
    unit = HGRU(4, (3, 3), form="panoptic", attention=False)
    weight, bias = torch.randn(4, 4, 1, 1), torch.randn(4)
    unit.load_state_dict(reference.panoptic_hgru({"u1_gate.weight": weight, "u1_gate.bias": bias}), strict=False)
    (h,) = (r.float() for r in states(2, channels=4, count=1))
    torch.testing.assert_close(unit.gate(h, 0), torch.sigmoid(F.conv2d(h, weight, bias)))


def weights_of_2019(steps, c=4):
    """Draw weights under the names of hgru-pytorch: four norms for each step, with running statistics."""
    generator = torch.Generator().manual_seed(0)
    shapes = {name: (c, 1, 1) for name in ("alpha", "mu", "gamma", "kappa", "w")}
    shapes |= {f"u{k}_gate.{kind}": sides for k in (1, 2) for kind, sides in (("weight", (c, c, 1, 1)), ("bias", (c,)))}
    shapes |= {"w_gate_inh": (c, c, 3, 3), "w_gate_exc": (c, c, 3, 3)}
    kinds = ("weight", "bias", "running_mean", "running_var") if steps > 1 else ("weight", "bias")
    shapes |= {f"bn.{k}.{kind}": (c,) for k in range(4 * steps) for kind in kinds}
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}


def step_of_2019(w, x, h, step, factor):
    """Compute a step of hgru-pytorch; with ``factor`` gamma multiplies c2 everywhere, as in its earliest version."""

    def norm(r, k):
        k += 4 * step
        return F.batch_norm(r, None, None, w[f"bn.{k}.weight"], w[f"bn.{k}.bias"], training=True, eps=1e-3)

    g1 = norm(F.conv2d(h, w["u1_gate.weight"], w["u1_gate.bias"]), 0).sigmoid()
    z = F.relu(x - F.relu(norm(F.conv2d(h * g1, w["w_gate_inh"], padding=1), 1) * (w["alpha"] * h + w["mu"])))
    g2 = norm(F.conv2d(z, w["u2_gate.weight"], w["u2_gate.bias"]), 2).sigmoid()
    c2 = norm(F.conv2d(z, w["w_gate_exc"], padding=1), 3)
    if factor:
        candidate = w["kappa"] * (z + w["gamma"] * c2) + w["w"] * (z * (w["gamma"] * c2))
    else:
        candidate = w["kappa"] * z + w["gamma"] * c2 + w["w"] * z * c2
    return (1 - g2) * h + g2 * F.relu(candidate)


def test_the_code_of_2019_is_a_form_with_four_norms_for_each_step():
    """The 'relu' form computes the code of 2019, whose weights have four norms for each step."""
    w, (x, h) = weights_of_2019(steps=3), states(2, channels=4)
    expected = h
    for step in range(3):
        unit = HGRU(4, (3, 3), form="relu", normalise_gates=True).double()
        unit.load_state_dict(reference.relu_hgru(w, step))
        h, expected = unit(x, h), step_of_2019(w, x, expected, step, factor=False)
        torch.testing.assert_close(h, expected, rtol=1e-10, atol=1e-10)
    with pytest.raises(ModelError, match=r"step is 3; bn\.12\.bias"):
        reference.relu_hgru(w, 3)


def test_in_the_earliest_code_gamma_is_a_factor():
    """With ``gamma_multiplies``, weights of the earliest code are read so that gamma multiplies c2 in both terms."""
    w, (x, h) = weights_of_2019(steps=1), states(2, channels=4)
    for factor in (False, True):
        unit = HGRU(4, (3, 3), form="relu", normalise_gates=True).double()
        unit.load_state_dict(reference.relu_hgru(w, gamma_multiplies=factor))
        torch.testing.assert_close(unit(x, h), step_of_2019(w, x, h, 0, factor), rtol=1e-10, atol=1e-10)
    with pytest.raises(ModelError, match="gamma are missing"):
        reference.relu_hgru({"kappa": w["kappa"], "w": w["w"]}, gamma_multiplies=True)


def test_norms_may_add_another_epsilon():
    """The epsilon of the norms is 1e-3 as in the code, and can be set."""
    assert [norm.epsilon for norm in HGRU(3, (3, 3), epsilon=1e-5).norms] == [1e-5] * 4
    assert [norm.epsilon for norm in HGRU(3, (3, 3)).norms] == [1e-3] * 4


def test_refuses_forms_that_do_not_exist():
    """A form or a rule of Chronos that does not exist is refused."""
    with pytest.raises(ModelError, match="'crbp', 'panoptic', 'relu' or 'paper'"):
        HGRU(2, (3, 3), form="2018")
    with pytest.raises(ModelError, match="'log' or 'unlogged'"):
        HGRU(2, (3, 3), chronos="none")
