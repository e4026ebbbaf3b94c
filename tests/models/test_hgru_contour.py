from math import log
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pipeline.errors import ModelError
from pipeline.models import reference
from pipeline.models.cells.hgru import HGRU
from pipeline.models.hgru_contour import ConvLSTMContour, FeedforwardContour, HGRUContour, gabor_bank
from pipeline.models.spec import build
from tests.contracts.model import ModelContract

PATCHES = ((2, 9, 12), (3, 8, 7))


class TestHGRU(ModelContract):
    architecture = "hgru_contour"
    arguments: ClassVar = {
        **{"kernel": 3, "steps": 3, "out_channels": 3, "orientations": 2},
        **{"norm": "instance", "normalise_gates": True},
    }
    patches = PATCHES


class TestConvLSTM(ModelContract):
    architecture = "convlstm_contour"
    arguments: ClassVar = {"kernel": 3, "steps": 3, "out_channels": 3, "orientations": 2, "norm": "instance"}
    patches = PATCHES


class TestFeedforward(ModelContract):
    architecture = "feedforward_contour"
    arguments: ClassVar = {"kernel": 3, "depth": 2, "width": 4, "out_channels": 3, "norm": "instance"}
    patches = PATCHES

    def test_gradients_reach_every_parameter(self) -> None:
        """Every parameter has a gradient, which is zero only for biases that an instance norm removes."""
        network = self.network()
        network(torch.rand(2, 1, *self.patches[0])).square().mean().backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None
            assert parameter.grad.isfinite().all()
            assert parameter.grad.abs().max() > 0 or name.endswith("bias")


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(("kernel", "expected"), [(3, 14_227), (5, 34_227), (9, 104_227), (15, 284_227)])
def test_the_network_has_the_published_parameters(kernel, expected):
    """For each kernel size, the hGRU network has the published number of parameters."""
    assert count(HGRUContour(kernel)) == expected


def test_its_controls_have_the_published_parameters():
    """The controls have the published numbers of parameters, about three and four times those of the hGRU network."""
    assert count(FeedforwardContour()) == 845_527
    assert count(ConvLSTMContour()) == 1_126_452


def test_the_gabor_bank_is_the_published_one(shared_fixtures):
    """The Gabor bank is the published one, which is stored as float32; the fixture holds it times 0.1."""
    published = np.load(shared_fixtures / "crbp_rbp_contractive_f64.npz")["w__conv0__weight"] * 10
    bank = gabor_bank().double()
    assert bank.shape == (25, 1, 7, 7)
    np.testing.assert_allclose(bank, published, atol=2e-7)


def test_filters_have_no_mean_and_unit_length_and_the_last_is_a_disk():
    """Every Gabor filter has a zero mean and unit length, and the last filter of the bank is a disk."""
    bank = gabor_bank(orientations=4)
    torch.testing.assert_close(bank[:-1].sum((1, 2, 3)), torch.zeros(8), atol=1e-5, rtol=0)
    torch.testing.assert_close(bank[:-1].flatten(1).norm(dim=1), torch.ones(8))
    assert (bank[-1] > 0).sum() == 29
    assert bank[-1].sum().item() == pytest.approx(49)


def test_the_published_network_reaches_the_same_steady_state(shared_fixtures):
    """With the published weights under their own names, 60 steps reach the published steady state."""
    arrays = np.load(shared_fixtures / "crbp_rbp_contractive_f64.npz")
    network = HGRUContour(5).double()
    network.load_state_dict(reference.contour(reference.tensors_of(arrays)))
    with torch.no_grad():
        x = network.drive(torch.from_numpy(arrays["img"]))
        h = network.initial(x)
        for _ in range(60):
            h = network.step(x, h)
    np.testing.assert_allclose(h, arrays["hstar"], atol=1e-10)


def test_the_readout_normalises_over_the_batch_and_begins_at_a_rare_class():
    """The readout is a batch norm over the current batch and a 1x1 convolution, whose biases begin at log(99)."""
    network, h = HGRUContour(3).double(), torch.randn(2, 25, 6, 7, dtype=torch.float64)
    assert network.readout.bias.tolist() == pytest.approx([log(99)] * 2)
    expected = F.conv2d(F.batch_norm(h, None, None, training=True, eps=1e-3), network.readout.weight) + log(99)
    torch.testing.assert_close(network.read(h, h, h), expected)


def test_the_convlstm_control_reads_h_and_not_c():
    """The readout of the ConvLSTM control depends on the state h and not on the memory c."""
    network = ConvLSTMContour(3, orientations=2)
    image = torch.rand(1, 1, 8, 8)
    x = network.drive(image)
    h, c = network.step(x, network.initial(x))
    assert torch.equal(network.read((h, c), x, image), network.read((h, h), x, image))


def test_names_of_the_controls_fit():
    """The weights of the published controls load under the names that the published code gives them."""
    lstm, feedforward = ConvLSTMContour(3), FeedforwardContour(3)
    theirs = {"conv0.weight": torch.rand(25, 1, 7, 7), "conv0.bias": torch.rand(25)}
    theirs |= {"bn.weight": torch.rand(25), "bn.bias": torch.rand(25)}
    theirs |= {"conv6.weight": torch.rand(2, 25, 1, 1), "conv6.bias": torch.rand(2)}
    theirs |= {f"unit1.W{side}{gate}.weight": torch.rand(25, 25, 3, 3) for side in "xh" for gate in "ifco"}
    theirs |= {f"unit1.Wx{gate}.bias": torch.rand(25) for gate in "ifco"}
    lstm.load_state_dict(reference.contour(theirs))
    names = {"readout": "conv7", **{f"convolutions.{k}": f"conv{k}" for k in range(7)}}
    names |= {f"norms.{k}": f"bn{k}" for k in range(7)}
    state = feedforward.state_dict()
    renamed = {f"{names[key.rsplit('.', 1)[0]]}.{key.rsplit('.', 1)[1]}": tensor for key, tensor in state.items()}
    assert reference.feedforward_contour(renamed).keys() == state.keys()


def test_each_step_sees_two_kernels_further():
    """From h = 0 the first step sees one kernel radius far, and each later step sees two radii further."""
    unit = HGRU(2, (3, 3), norm="rms").double()
    for steps in (1, 2, 4):
        x = torch.rand(1, 2, 31, 31, dtype=torch.float64, requires_grad=True)
        h = unit.initial(x)
        for _ in range(steps):
            h = unit.step(x, h)
        h[0, :, 15, 15].sum().backward()
        seen = x.grad.abs().sum((0, 1, 2)).nonzero().flatten()
        assert int(seen.max()) - 15 == 15 - int(seen.min()) == 2 * steps - 1


@pytest.mark.parametrize(("side", "steps"), [(3, 1), (5, 2), (3, 4)])
def test_the_published_reach_holds_for_a_state_that_is_not_zero(side, steps):
    """From a state that is not zero, the network sees 2 floor(S / 2) T + 3 pixels to each side.

    The paper's figures follow: 87 pixels for S = 15 and T = 6, and 603 for S = 3 and T = 300.
    """
    network = HGRUContour(side, orientations=1).double()
    network.cell = HGRU(network.width, (side, side), norm="rms").double()
    radius = 2 * (side // 2) * steps + 3
    length = 2 * radius + 9
    image = torch.rand(1, 1, length, length, dtype=torch.float64, requires_grad=True)
    x = network.drive(image)
    h = x
    for _ in range(steps):
        h = network.step(x, h)
    h[0, :, length // 2, length // 2].sum().backward()
    seen = image.grad[0, 0].abs().sum(0).nonzero().flatten() - length // 2
    assert (int(seen.min()), int(seen.max())) == (-radius, radius)
    assert (2 * (15 // 2) * 6 + 3, 2 * (3 // 2) * 300 + 3) == (87, 603)


def test_unknown_names_of_a_reference_are_refused():
    """Published weights with an unknown or a missing name are refused, and the message gives the name."""
    with pytest.raises(ModelError, match="unit2"):
        reference.contour({"unit2.alpha": torch.zeros(25)})
    kernels = {f"W{side}{gate}.weight": torch.zeros(3, 3, 1, 1) for side in "xh" for gate in "ifco"}
    with pytest.raises(ModelError, match=r"Wxo.bias are missing"):
        reference.convlstm({**kernels, **{f"Wx{gate}.bias": torch.zeros(3) for gate in "ifc"}})


@pytest.mark.parametrize("architecture", ["hgru_contour", "convlstm_contour", "feedforward_contour"])
def test_refuses_norms_that_do_not_exist(architecture):
    """A norm that the network does not offer is refused when the network is built."""
    with pytest.raises(ModelError, match="'batch' or 'instance'"):
        build(architecture, {"norm": "rms"})


def test_refuses_to_run_no_step():
    """A network with zero steps is refused."""
    with pytest.raises(ModelError, match="steps is 0"):
        HGRUContour(3, steps=0)
