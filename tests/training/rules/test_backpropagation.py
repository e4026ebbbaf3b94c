import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.models.cells.blocks import same_conv
from pipeline.models.cells.convlstm import ConvLSTM
from pipeline.models.cells.fgru import FGRU, TopDownFGRU
from pipeline.models.cells.hgru import HGRU
from pipeline.models.cells.mgu import MGU, MGU3
from pipeline.models.gamma_net_2d import GammaNet2D
from pipeline.models.gamma_net_3d import GammaNet3D
from pipeline.models.gamma_net_vgg import GammaNetVGG
from pipeline.models.hgru_contour import ConvLSTMContour, HGRUContour
from pipeline.training.rules import (
    Backpropagation,
    CheckpointedBackpropagation,
    RecurrentBackpropagation,
    TruncatedBackpropagation,
    column_penalty,
)
from pipeline.training.rules.base import tensors
from tests.models.cells.units import randomised, states
from tests.training.rules.systems import Linear, Published, contraction, drive

RULES = (
    Backpropagation(),
    TruncatedBackpropagation(2),
    CheckpointedBackpropagation(),
    RecurrentBackpropagation(),
    RecurrentBackpropagation(reference_stopping=True),
)

CELLS = {
    f"{cell.__name__}{dimension}D": (lambda cell=cell, dimension=dimension: cell(3, (3,) * dimension))
    for cell in (HGRU, FGRU, TopDownFGRU)
    for dimension in (2, 3)
}
CELLS |= {f"ConvLSTM{d}D": (lambda d=d: ConvLSTM(3, 4, (3,) * d)) for d in (2, 3)}
CELLS |= {
    f"{cell.__name__}{d}D": (lambda cell=cell, d=d: cell(same_conv(3, 4, (3,) * d), 4, None, d))
    for cell in (MGU, MGU3)
    for d in (2, 3)
}

NETWORKS = {
    "GammaNet2D": lambda: GammaNet2D((4, 5), (3, 3)),
    "GammaNet3D": lambda: GammaNet3D((4, 5), ((1, 3, 3), (3, 3, 3)), ((1, 2, 2),)),
    "GammaNetVGG": lambda: GammaNetVGG(("conv1_2", "conv2_1"), (3, 1), (4,), width=0.1),
    "HGRUContour": lambda: HGRUContour(3, orientations=2),
    "ConvLSTMContour": lambda: ConvLSTMContour(3, orientations=2),
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
@pytest.mark.parametrize("name", CELLS)
def test_any_cell_can_be_trained_by_any_rule(name, rule):
    """For every cell and rule, one optimiser step lowers the sum of loss and penalty on the same input."""
    torch.manual_seed(0)
    unit = randomised(CELLS[name]())
    (x,) = states(int(name[-2]), count=1)

    def loss_of(path):
        return sum((part - 1).square().mean() for part in tensors(path.state)) + column_penalty(path)

    before = loss_of(rule(unit, x, 4))
    before.backward()
    with torch.no_grad():
        for parameter in unit.parameters():
            if parameter.grad is not None:
                assert parameter.grad.isfinite().all()
                parameter -= 1e-4 * parameter.grad / (1 + parameter.grad.norm())
    assert loss_of(rule(unit, x, 4)) < before


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
@pytest.mark.parametrize("name", NETWORKS)
def test_any_network_can_be_trained_by_any_rule_and_computes_the_same(name, rule):
    """Under every rule, each network computes the logits of inference, bit for bit, and gets finite gradients."""
    torch.manual_seed(0)
    network = NETWORKS[name]()
    image = torch.rand(2, 1, *((2,) if network.dimensions == 3 else ()), 8, 12)
    network.steps = 3
    x = network.drive(image)
    path = rule(network, x, network.steps)
    logits = network.read(path.state, x, image)
    assert torch.equal(logits, network(image))
    (logits.square().mean() + column_penalty(path)).backward()
    trained = [parameter for parameter in network.parameters() if parameter.grad is not None]
    assert len(trained) > 5
    assert all(parameter.grad.isfinite().all() for parameter in trained)


def test_checkpoints_change_no_bit_of_a_gradient():
    """Checkpointed and plain backpropagation give the same gradients, bit for bit."""
    found = []
    for rule in (Backpropagation(), CheckpointedBackpropagation()):
        torch.manual_seed(0)
        network, image = GammaNet3D((4, 5), ((1, 3, 3), (3, 3, 3)), ((1, 2, 2),)), torch.rand(1, 1, 2, 8, 12)
        path = rule(network, network.drive(image), 4)
        network.read(path.state, network.drive(image), image).square().mean().backward()
        found.append([parameter.grad for parameter in network.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_back_propagation_has_the_closed_form_of_a_linear_system():
    """For T steps of a linear system, dL/dx is B^T (I + A^T + ... + A^T^(T-1)) g."""
    a, x = contraction(), drive(batch=1).requires_grad_()
    path = Backpropagation()(Linear(a), x, 5)
    g = drive(batch=1, seed=1)
    (path.state * g).sum().backward()
    expected = sum(g @ torch.linalg.matrix_power(a, k) for k in range(5))
    torch.testing.assert_close(x.grad, expected)


@pytest.mark.parametrize(("window", "steps"), [(1, 5), (2, 5), (3, 7), (9, 5)])
def test_truncation_ends_the_same_sum_after_the_window(window, steps):
    """Truncation sums the gradient over the last `window` steps and does not change the state."""
    a, g = contraction(), drive(batch=1, seed=1)
    for keep in (False, True):
        x = drive(batch=1).requires_grad_()
        path = TruncatedBackpropagation(window)(Linear(a), x, steps, keep=keep)
        (path.state * g).sum().backward()
        expected = sum(g @ torch.linalg.matrix_power(a, k) for k in range(min(window, steps)))
        torch.testing.assert_close(x.grad, expected)
        torch.testing.assert_close(path.state, Backpropagation()(Linear(a), x, steps).state)
    assert len(path.states) == steps


def test_states_of_every_step_are_kept_when_asked():
    """With `keep`, a path holds the state of every step; without it, only the last one."""
    x, system = drive(), Linear(contraction())
    for rule in (Backpropagation(), CheckpointedBackpropagation(), TruncatedBackpropagation(2)):
        path = rule(system, x, 4, keep=True)
        assert len(path.states) == 4
        assert path.states[-1] is path.state
        for step, state in enumerate(path.states, start=1):
            torch.testing.assert_close(state, Backpropagation()(system, x, step).state)
        assert len(rule(system, x, 4).states) == 1


def test_converged_back_propagation_is_the_exact_implicit_gradient(shared_fixtures):
    """BPTT over 60 steps of the published contraction gives the exact implicit gradient but for rounding."""
    published = Published(shared_fixtures)
    gradients, _ = published.gradients(Backpropagation(), 60)
    assert published.error(gradients, "gexact__") < 1e-13


def test_refuses_to_run_no_step_and_empty_windows():
    """Every rule refuses to run 0 steps, and truncation refuses a window of 0."""
    for rule in RULES:
        with pytest.raises(ConfigError, match="steps is 0"):
            rule(Linear(contraction()), drive(), 0)
    with pytest.raises(ConfigError, match="window is 0"):
        TruncatedBackpropagation(0)
