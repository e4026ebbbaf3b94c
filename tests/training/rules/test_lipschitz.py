import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.models.cells.convlstm import ConvLSTM
from pipeline.models.cells.hgru import HGRU
from pipeline.training.rules import (
    Backpropagation,
    CheckpointedBackpropagation,
    RecurrentBackpropagation,
    column_penalty,
    frobenius_penalty,
    spectral_penalty,
)
from pipeline.training.rules.lipschitz import column_sums, frobenius_norm_squared, spectral_norm
from tests.models.cells.units import randomised, states
from tests.training.rules.systems import Linear, Pair, contraction, drive

RULES = (Backpropagation(), CheckpointedBackpropagation(), RecurrentBackpropagation())


def jacobian(path):
    """The whole matrix of the last step, by one product a row."""
    rows = []
    for which, part in enumerate(path.last):
        for k in range(part.numel()):
            v = [torch.zeros_like(p) for p in path.last]
            v[which].view(-1)[k] = 1.0
            row = torch.autograd.grad(path.last, path.previous, v, retain_graph=True, allow_unused=True)
            rows.append(torch.cat([torch.zeros(p.numel(), dtype=p.dtype) if r is None else r.flatten()
                                   for r, p in zip(row, path.previous, strict=True)]))  # fmt: skip
    return torch.stack(rows)


def hgru_path(rule, unit=None):
    torch.manual_seed(0)
    unit = randomised(HGRU(2, (3, 3), norm="instance")) if unit is None else unit
    (x,) = states(2, channels=2, count=1, batch=1)
    return rule(unit, x, 3), unit


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
@pytest.mark.parametrize("system", [Linear, Pair])
def test_the_map_of_a_linear_system_is_the_column_sums_of_its_matrix(rule, system):
    """`column_sums` of a linear system are the column sums of its matrix."""
    a = contraction()
    found = torch.cat(column_sums(rule(system(a), drive(batch=1), 3)), dim=1)
    torch.testing.assert_close(found, a.sum(0)[None])


def test_the_published_penalty_has_the_forms_of_paper_and_codes():
    """The column penalty has the norm of equation 6, the mean of Pathfinder and the sum of panoptic segmentation."""
    a = 3 * contraction()
    path = Backpropagation()(Linear(a), drive(batch=1), 2)
    excess = torch.relu(a.sum(0) - 0.9).square()
    assert excess.sum() > 0
    torch.testing.assert_close(column_penalty(path), excess.mean())
    torch.testing.assert_close(column_penalty(path, reduction="sum"), excess.sum())
    torch.testing.assert_close(column_penalty(path, reduction="norm"), excess.sum().sqrt())
    torch.testing.assert_close(column_penalty(path, limit=0.1), torch.relu(a.sum(0) - 0.1).square().mean())
    both = excess + torch.relu(-a.sum(0) - 0.9).square()
    torch.testing.assert_close(column_penalty(path, both_signs=True), both.mean())


def test_the_norm_has_no_infinite_slope_where_nothing_exceeds():
    """The penalty by the norm has a gradient of zero, and not nan, if no column exceeds the limit."""
    system = Linear(0.1 * contraction())
    penalty = column_penalty(Backpropagation()(system, drive(), 2), reduction="norm")
    penalty.backward()
    assert penalty == 0
    assert not system.a.grad.any()


def test_only_the_sound_penalties_see_a_negative_jacobian():
    """J = -10 I costs nothing by its column sums, but much by its spectral and its Frobenius norm."""
    system = Linear(-10 * torch.eye(4))
    path = Backpropagation()(system, drive(4), 2)
    assert column_penalty(path) == 0
    assert spectral_penalty(path).item() == pytest.approx((10 - 0.9) ** 2)
    assert frobenius_penalty(path).item() == pytest.approx((8 * 100 - 0.81) / 8)


def test_both_signs_still_miss_columns_that_cancel():
    """A matrix of spectral radius 5 costs nothing with `both_signs` if its columns sum to 0."""
    a = torch.tensor([[5.0, 0.0], [-5.0, 0.0]])
    path = Backpropagation()(Linear(a), drive(2), 2)
    assert column_penalty(path, both_signs=True) == 0
    assert spectral_penalty(path) > 30


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
@pytest.mark.parametrize("system", [Linear, Pair])
def test_power_iteration_finds_the_largest_singular_value(rule, system):
    """Power iteration finds the spectral norm, which here exceeds the spectral radius."""
    a = contraction(radius=0.5)
    found = spectral_norm(rule(system(a), drive(batch=1), 3), iterations=200).item()
    assert found == pytest.approx(torch.linalg.matrix_norm(a, 2).item(), rel=1e-9)
    assert found > 0.5


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_estimates_agree_with_the_whole_jacobian_of_a_cell(rule):
    """Column sums, spectral and Frobenius norm of an hGRU agree with those of its whole Jacobian."""
    path, _ = hgru_path(rule)
    j = jacobian(path)
    torch.testing.assert_close(torch.cat([part.flatten() for part in column_sums(path)]), j.sum(0))
    spectral = torch.linalg.matrix_norm(j, 2).item()
    assert spectral_norm(path, iterations=60).item() == pytest.approx(spectral, rel=1e-4)
    frobenius = frobenius_norm_squared(path, samples=100).item()
    assert frobenius == pytest.approx(j.square().sum().item(), rel=0.1)
    assert j.square().sum() >= spectral**2 >= torch.linalg.eigvals(j).abs().max().square()


@pytest.mark.parametrize("penalty", [spectral_penalty, frobenius_penalty, column_penalty])
def test_a_step_down_the_penalty_makes_it_smaller(penalty):
    """One step of gradient descent on a penalty lowers the penalty."""
    system = Linear(3 * contraction(radius=1.0))

    def value():
        return penalty(RecurrentBackpropagation()(system, drive(), 2))

    before = value()
    before.backward()
    with torch.no_grad():
        system.a -= 1e-3 * system.a.grad
    assert value() < before


def test_training_with_the_sound_penalty_makes_a_contraction():
    """Training with the spectral penalty makes a Neumann series converge that diverged before."""
    system, x = Linear(contraction(radius=3.0)), drive()
    rule = RecurrentBackpropagation(terms=100)

    def report():
        path = rule(system, x, 5)
        path.state.sum().backward()
        return path.report

    assert report().stopped == "divergence"
    update = torch.optim.Adam([system.a], lr=0.05)
    for _ in range(200):
        update.zero_grad()
        spectral_penalty(rule(system, x, 5), limit=0.8, iterations=20).backward()
        update.step()
    assert torch.linalg.matrix_norm(system.a.detach(), 2) < 0.9
    assert report().stopped == "tolerance"


def test_states_of_several_tensors_can_be_penalised_each():
    """With `each`, the column sums of a ConvLSTM cover h by h and c by c alone; without it, all rows."""
    unit, x = ConvLSTM(2, 2, (1, 1)).double(), states(2, channels=2, count=1, batch=1)[0]
    path = Backpropagation()(unit, x, 3)
    j, n = jacobian(path), path.last[0].numel()
    for found, block in zip(column_sums(path, each=True), (j[:n, :n], j[n:, n:]), strict=True):
        torch.testing.assert_close(found.flatten(), block.sum(0))
    for found, block in zip(column_sums(path), (j[:, :n], j[:, n:]), strict=True):
        torch.testing.assert_close(found.flatten(), block.sum(0))


def test_the_same_seed_gives_the_same_penalty():
    """A seed always gives the same penalty, and another seed gives another estimate."""
    path, _ = hgru_path(Backpropagation())
    assert torch.equal(spectral_penalty(path, seed=3), spectral_penalty(path, seed=3))
    assert torch.equal(frobenius_penalty(path, seed=3), frobenius_penalty(path, seed=3))
    assert not torch.equal(frobenius_norm_squared(path, seed=3), frobenius_norm_squared(path, seed=4))


def test_refuses_reductions_that_do_not_exist():
    """A column penalty with an unknown reduction is refused."""
    path, _ = hgru_path(Backpropagation())
    with pytest.raises(ConfigError, match="'mean', 'sum' or 'norm'"):
        column_penalty(path, reduction="max")
