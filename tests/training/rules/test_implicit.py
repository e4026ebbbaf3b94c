import numpy as np
import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.models.cells.convlstm import ConvLSTM
from pipeline.models.gamma_net_2d import GammaNet2D
from pipeline.training.rules import (
    Backpropagation,
    NeumannReport,
    RecurrentBackpropagation,
    TruncatedBackpropagation,
    neumann_series,
)
from tests.models.cells.units import states
from tests.training.rules.systems import Linear, Pair, Published, contraction, drive


@pytest.mark.parametrize(("terms", "expected"), [(0, 8.4e-2), (1, 7.2e-3), (2, 6.3e-4), (3, 5.6e-5), (5, 4.8e-7)])
def test_terms_of_the_series_approach_the_exact_gradient(shared_fixtures, terms, expected):
    """On the published contraction, each term divides the error of the gradient by about twelve."""
    published = Published(shared_fixtures)
    gradients, path = published.gradients(RecurrentBackpropagation(terms, tolerance=0.0), 40)
    error = published.error(gradients, "gexact__")
    assert float(f"{error:.1e}") == expected
    assert path.report.terms == terms
    assert path.report.stopped == "terms"
    assert path.report.residual == pytest.approx(error, rel=0.2)


def test_with_a_small_tolerance_it_is_the_exact_gradient(shared_fixtures):
    """With a tolerance of 1e-14, the series stops only when the gradient is exact but for rounding."""
    published = Published(shared_fixtures)
    gradients, path = published.gradients(RecurrentBackpropagation(terms=40, tolerance=1e-14), 60)
    assert published.error(gradients, "gexact__") < 1e-13
    assert path.report.stopped == "tolerance"
    assert path.report.terms < 20


def test_the_published_rule_stops_at_once_and_gives_the_gradient_of_one_step(shared_fixtures):
    """The published stopping rule uses 0 of 15 or 200 terms, and only the report shows it."""
    published = Published(shared_fixtures)
    one_step, _ = published.gradients(TruncatedBackpropagation(1), 20)
    for terms, steps in ((15, 20), (200, 60)):
        gradients, path = published.gradients(RecurrentBackpropagation(terms, reference_stopping=True), steps)
        assert published.error(gradients, "grbp_T20_K15__") < 1e-10
        assert published.error(gradients, "grbp_T600_K200__") < 1e-10
        assert float(f"{published.error(gradients, 'gexact__'):.1e}") == 8.4e-2
        assert (path.report.terms, path.report.stopped) == (0, "cap")
        assert path.report.residual == pytest.approx(0.0852, abs=1e-4)
    gradients, _ = published.gradients(RecurrentBackpropagation(15, reference_stopping=True), 20)
    assert all(torch.equal(gradients[name], one_step[name]) for name in one_step)


@pytest.mark.parametrize(("terms", "expected"), [(1, 7.2e-3), (5, 4.8e-7), (15, 4.8e-7)])
def test_the_published_rule_works_on_tiny_losses_alone(shared_fixtures, terms, expected):
    """On a loss a thousandth as large, the published rule uses up to five terms and gives the published gradients."""
    published = Published(shared_fixtures)
    rule = RecurrentBackpropagation(terms, reference_stopping=True)
    gradients, path = published.gradients(rule, 20, scale=float(published.arrays["loss_scale"]))
    assert published.error(gradients, f"grbp_scaled_K{terms}__") < 1e-10
    assert float(f"{published.error(gradients, 'gexact__'):.1e}") == expected
    assert path.report.terms == min(terms, 5)


@pytest.mark.parametrize("system", [Linear, Pair])
def test_a_linear_system_has_its_closed_form(system):
    """A linear system has the state (I - A)^-1 x, and the gradient of x passes through the same inverse."""
    a, x, g = contraction(), drive().requires_grad_(), drive(seed=1)
    path = RecurrentBackpropagation(terms=200, tolerance=1e-15)(system(a), x, 100)
    state = torch.cat(path.state, dim=1) if system is Pair else path.state
    (state * g).sum().backward()
    inverse = torch.linalg.inv(torch.eye(6, dtype=torch.float64) - a)
    torch.testing.assert_close(state, x @ inverse.T, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(x.grad, g @ inverse, rtol=1e-10, atol=1e-12)


def test_the_gradient_of_weights_is_the_implicit_one():
    """The gradient of the weights of a linear system is dL/dA = (I - A)^-T g h*^T."""
    system, x, g = Linear(contraction()), drive(), drive(seed=1)
    path = RecurrentBackpropagation(terms=200, tolerance=1e-15)(system, x, 100)
    (path.state * g).sum().backward()
    a = system.a.detach()
    inverse = torch.linalg.inv(torch.eye(6, dtype=torch.float64) - a)
    torch.testing.assert_close(system.a.grad, (g @ inverse).T @ (x @ inverse.T), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("terms", [0, 1, 2, 5, 10])
def test_the_residual_is_what_is_missing(terms):
    """The residual after K terms is the norm of the next term, A^T^(K+1) g, relative to that of g."""
    a, g = contraction(), drive()
    rule = RecurrentBackpropagation(terms, tolerance=0.0)
    (total,), report = neumann_series(lambda v: (v[0] @ a,), (g,), rule)
    missing = g - (total - total @ a)
    torch.testing.assert_close(missing, g @ torch.linalg.matrix_power(a, terms + 1))
    assert report.residual == pytest.approx((missing.norm() / g.norm()).item(), rel=1e-9)
    assert report.norms[-1] == report.residual
    assert len(report.norms) == terms + 2


def test_a_series_that_diverges_says_so_and_keeps_its_best_sum():
    """With J = -3 I, the series reports divergence and returns the gradient of one step."""
    g = drive()
    (total,), report = neumann_series(lambda v: (-3 * v[0],), (g,), RecurrentBackpropagation())
    assert torch.equal(total, g)
    assert (report.stopped, report.terms, report.residual) == ("divergence", 0, pytest.approx(3.0))


def test_a_series_that_grows_before_it_shrinks_is_not_given_up():
    """A series whose terms grow at first is summed to its end; this Jacobian has a spectral radius of 0."""
    a = torch.zeros(3, 3, dtype=torch.float64)
    a[0, 1] = a[1, 2] = 2.0
    g = torch.tensor([[1.0, 1.0, 1.0]], dtype=torch.float64)
    (total,), report = neumann_series(lambda v: (v[0] @ a,), (g,), RecurrentBackpropagation())
    torch.testing.assert_close(total, g @ torch.linalg.inv(torch.eye(3, dtype=torch.float64) - a))
    assert report.stopped == "tolerance"
    assert report.norms[1] > 1


def test_a_gradient_of_zero_needs_no_series():
    """A gradient of zero stays zero and has a residual of 0."""
    (total,), report = neumann_series(lambda v: v, (torch.zeros(2, 3),), RecurrentBackpropagation())
    assert not total.any()
    assert (report.residual, report.stopped) == (0.0, "tolerance")


def test_a_gradient_that_is_not_finite_stops_the_series():
    """A term that is not finite ends the series as a divergence."""
    report = neumann_series(lambda v: (v[0] * np.inf,), (drive(),), RecurrentBackpropagation())[1]
    assert report.stopped == "divergence"


def test_the_report_is_empty_until_the_backward_pass():
    """The report is empty until the backward pass has run the series."""
    path = RecurrentBackpropagation()(Linear(contraction()), drive(), 10)
    assert path.report == NeumannReport()
    path.state.sum().backward()
    assert path.report.stopped == "terms"


def test_the_series_may_run_over_a_part_of_the_state():
    """With `over=(0,)`, the series runs over h of a ConvLSTM, and c gets the gradient of one step."""
    unit, x = ConvLSTM(3, 3, (3, 3)).double(), states(2, count=1)[0]
    path = RecurrentBackpropagation(terms=1, tolerance=0.0, over=(0,))(unit, x, 4)
    g = states(2, count=1, seed=1)[0]
    (path.state[0] * g).sum().backward()
    h = path.previous[0]
    after = unit(x, (h, path.previous[1]))
    term = torch.autograd.grad(after[0], h, g, retain_graph=True)[0]
    expected = torch.autograd.grad(after[0], [*unit.parameters()], g + term)
    for parameter, gradient in zip(unit.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_the_first_step_of_a_gamma_net_has_no_state_before_it():
    """Recurrent backpropagation of a gamma-net needs two steps, because the first step makes its state."""
    network = GammaNet2D((4, 5), (3, 3))
    with pytest.raises(ConfigError, match="needs at least 2"):
        RecurrentBackpropagation()(network, network.drive(torch.rand(1, 1, 8, 8)), 1)


def test_one_step_from_a_given_state_is_one_step():
    """One step of recurrent backpropagation gives the state of one step of plain backpropagation."""
    system, x = Linear(contraction()), drive()
    torch.testing.assert_close(RecurrentBackpropagation()(system, x, 1).state, Backpropagation()(system, x, 1).state)


@pytest.mark.parametrize("wrong", [{"terms": -1}, {"tolerance": -1e-3}, {"divergence": 0.0}])
def test_refuses_bounds_without_sense(wrong):
    """A negative number of terms, a negative tolerance and a divergence bound of 0 are refused."""
    with pytest.raises(ConfigError, match="must be 0 or more"):
        RecurrentBackpropagation(**wrong)
