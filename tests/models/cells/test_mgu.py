import numpy as np
import pytest
import torch

from pipeline.models.cells.blocks import same_conv
from pipeline.models.cells.mgu import MEMORIES, MGU, MGU3, NoMemory
from tests.models.cells.units import ByHand, elu, randomised, sigmoid, states

KERNELS = [(3, 3), (1, 3, 3)]


def by_the_paper(unit, x, b):
    """Compute SI equation 2; return what is sent on, and B'."""
    p = ByHand(unit)
    a = p.convolved(x, "convolution.weight")
    f = sigmoid(a + p.convolved(b, "forget.weight"))
    b = f * b + (1 - f) * elu(a + p.convolved(f * b, "candidate.weight"))
    return p.instance(b, "norm"), b


def by_the_code(unit, x, b):
    """Compute the published code's unit: three kernels, norms in the gate, and the norm of ELU(B')."""
    p = ByHand(unit)
    a = p.convolved(x, "convolution.weight")
    gate = p.instance(p.convolved(b, "previous.weight"), "gate_norms.0")
    gate = gate + p.instance(p.convolved(a, "current.weight"), "gate_norms.1")
    f = sigmoid(gate + p.vector("bias", b))
    b = f * b + (1 - f) * elu(a + p.convolved(f * b, "candidate.weight"))
    return p.instance(elu(b), "norm"), b


def unit_of(cell, kernel, norm="instance"):
    torch.manual_seed(0)
    return randomised(cell(same_conv(2, 3, kernel), 3, norm, len(kernel)))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("cell", "expected"), [(MGU, by_the_paper), (MGU3, by_the_code)])
def test_a_unit_computes_its_equations(cell, expected, kernel):
    """MGU computes the paper's equations, and MGU3 those of the published code."""
    unit = unit_of(cell, kernel)
    (x,), (b,) = states(len(kernel), channels=2, count=1), states(len(kernel), channels=3, count=1, seed=1)
    for found, wanted in zip(unit(x, b), expected(unit, x.numpy(), b.numpy()), strict=True):
        np.testing.assert_allclose(found.detach(), wanted, atol=1e-12)


@pytest.mark.parametrize("cell", [MGU, MGU3])
def test_memory_begins_with_nothing(cell):
    """A unit that is given no memory starts from B[0] = 0."""
    unit, (x,) = unit_of(cell, (3, 3)), states(2, channels=2, count=1)
    assert torch.equal(unit(x, None)[1], unit.step(x, unit.initial(x)))
    assert not unit.initial(x).any()


def test_a_full_forget_gate_keeps_the_memory():
    """A forget gate with F = 1 keeps the memory bit for bit."""
    unit = unit_of(MGU, (3, 3))
    (x,), (b,) = states(2, channels=2, count=1), states(2, channels=3, count=1, seed=1)
    with torch.no_grad():
        unit.forget.bias.fill_(1e4)
    assert torch.equal(unit.step(x, b), b)


def test_without_memory_only_the_convolution_is_left():
    """NoMemory sends on the ELU of its convolution, whatever the memory was."""
    unit = unit_of(NoMemory, (3, 3), norm=None)
    (x,), (b,) = states(2, channels=2, count=1), states(2, channels=3, count=1, seed=1)
    sent, _ = unit(x, b)
    assert torch.equal(sent, torch.nn.functional.elu(unit.convolution(x)))


@pytest.mark.parametrize(("name", "per_unit"), [("paper", 2 * 9 + 2 * 3), ("code", 3 * 9 + 3), ("none", 0)])
def test_units_differ_by_their_kernels_and_biases(name, per_unit):
    """The paper's unit has two kernels with biases, the code's has three kernels and one bias, NoMemory has none."""
    unit = MEMORIES[name](torch.nn.Identity(), 3, None, 2)
    assert sum(parameter.numel() for parameter in unit.parameters()) == per_unit


def test_biases_of_the_forget_gate_begin_at_one():
    """The biases of the forget gate begin at one."""
    assert torch.equal(MGU(torch.nn.Identity(), 3, None).forget.bias, torch.ones(3))
    assert torch.equal(MGU3(torch.nn.Identity(), 3, None).bias, torch.ones(3))
