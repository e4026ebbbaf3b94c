import numpy as np
import pytest
import torch

from pipeline.errors import ModelError
from pipeline.models.cells.fgru import FGRU
from pipeline.models.cells.hgru import HGRU
from pipeline.models.cells.symmetry import Symmetric, SymmetricConv, free_parameters, symmetrise
from tests.models.cells.units import dense_operator, states

OPTIMISERS = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD)


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("kernel", [(3, 3), (1, 3, 3)])
def test_kernels_stay_symmetric_under_any_optimiser(optimiser, kernel):
    """Kernels change but stay exactly symmetric in their channels under every optimiser."""
    torch.manual_seed(0)
    x, h = (state.float() for state in states(len(kernel)))
    for unit in (FGRU(3, kernel, symmetry="channel"), HGRU(3, kernel, symmetry="channel")):
        update = optimiser(unit.parameters(), lr=0.1, weight_decay=0.1)
        before = unit.inhibition.kernel().clone()
        for _ in range(4):
            update.zero_grad()
            unit(x, h).square().sum().backward()
            update.step()
        for layer in (unit.inhibition, unit.excitation):
            assert torch.equal(layer.kernel(), layer.kernel().transpose(0, 1))
        assert not torch.equal(unit.inhibition.kernel(), before)


@pytest.mark.parametrize(("kernel", "shape"), [((3, 3), (4, 3)), ((3, 1, 3), (3, 2, 4))])
def test_adjoint_symmetry_makes_a_symmetric_operator_with_a_real_spectrum(kernel, shape):
    """Adjoint symmetry makes a symmetric operator with a real spectrum; symmetry at the same offset does not."""
    torch.manual_seed(0)
    found = {kind: dense_operator(SymmetricConv(2, kernel, kind), 2, shape) for kind in ("adjoint", "channel")}
    assert np.array_equal(found["adjoint"], found["adjoint"].T)
    assert np.abs(np.linalg.eigvals(found["adjoint"]).imag).max() == 0
    assert np.abs(np.linalg.eigvals(found["channel"]).imag).max() > 0.1


def test_adjoint_symmetry_survives_an_optimiser_too():
    """A kernel with adjoint symmetry is still a symmetric operator after steps of an optimiser."""
    unit, (x, h) = FGRU(3, (3, 3), symmetry="adjoint"), states(2)
    update = torch.optim.AdamW(unit.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(3):
        update.zero_grad()
        unit(x.float(), h.float()).square().sum().backward()
        update.step()
    dense = dense_operator(unit.excitation, 3, (4, 4))
    np.testing.assert_allclose(dense, dense.T, atol=1e-15)


@pytest.mark.parametrize("kind", ["channel", "adjoint", "none"])
def test_any_module_can_be_made_symmetric(kind):
    """``symmetrise`` gives a layer of torch the same kernel as our SymmetricConv, through torch's parametrisations."""
    torch.manual_seed(0)
    layer = symmetrise(torch.nn.Conv2d(3, 3, 3, padding=1, bias=False), kind)
    ours = SymmetricConv(3, (3, 3), kind)
    with torch.no_grad():
        ours.free.copy_(layer.parametrizations.weight.original)
    assert torch.equal(layer.weight, ours.kernel())
    assert free_parameters(layer) == free_parameters(ours)
    layer.weight = layer.weight.clone()  # a symmetric kernel is kept when it is assigned
    torch.testing.assert_close(layer.weight, ours.kernel())


@pytest.mark.parametrize("kind", ["channel", "adjoint", "none"])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (5, 3), (1, 3, 3)])
def test_free_parameters_are_the_rank_of_the_parametrisation(kind, kernel):
    """The count of free parameters is the rank of the parametrisation: how many numbers of W can be chosen."""
    layer = SymmetricConv(3, kernel, kind)
    free = layer.free.numel()
    basis = [Symmetric(kind)(unit.reshape(layer.free.shape)).flatten() for unit in torch.eye(free)]
    assert free_parameters(layer) == np.linalg.matrix_rank(torch.stack(basis).numpy())


def test_refuses_symmetries_that_do_not_exist():
    """A symmetry that does not exist is refused."""
    with pytest.raises(ModelError, match="'channel', 'adjoint' or 'none'"):
        SymmetricConv(2, (3, 3), "full")
