import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pipeline.errors import ModelError
from pipeline.models.hgru_contour import HGRUContour
from pipeline.models.tilt_readout import TiltReadout, bias_curve, centre, mirror_loss, orientation, tilt_bias
from pipeline.synthetic.tilt import TiltConfig, make_tilt, orientation_target

GRATINGS = TiltConfig(size=64, radius=(24, 30), wavelength=(5, 9))
TURNED = GRATINGS.model_copy(update={"doubled_angle": False})


def readout(side=32):
    torch.manual_seed(0)
    return TiltReadout(HGRUContour(3, steps=1, norm="instance"), channels=25, hidden=32, side=side)


def gratings(count, config):
    samples = [make_tilt(i, config=config) for i in range(count)]
    images = torch.from_numpy(np.stack([sample.image for sample in samples]))[:, None]
    return images, torch.from_numpy(np.stack([sample.target for sample in samples])), samples


def test_the_mirror_loss_takes_the_nearer_sign_of_each_sample():
    """The mirror loss takes the nearer sign for each sample, where the published code takes one for the whole batch."""
    y = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    p = torch.tensor([[0.9, 0.0], [0.0, -0.8]])
    assert mirror_loss(p, y).item() == pytest.approx((0.1**2 + 0.2**2) / 2)
    assert mirror_loss(-p, y) == mirror_loss(p, -y) == mirror_loss(p, y)


@pytest.mark.parametrize("doubled", [True, False])
def test_an_answer_is_an_orientation_again(doubled):
    """A target turns back into its orientation; with the single angle, so does the target of opposite sign."""
    thetas = np.array([0.0, 10.0, 45.0, 89.0, 90.0, 135.0, 179.0])
    answers = np.stack([orientation_target(theta, doubled=doubled) for theta in thetas])
    assert tilt_bias(orientation(answers, doubled=doubled), thetas) == pytest.approx(0, abs=1e-4)
    if not doubled:
        assert tilt_bias(orientation(-answers, doubled=False), thetas) == pytest.approx(0, abs=1e-4)


def test_bias_is_the_shorter_way_round():
    """The bias is the shorter way round: from a true 1 to an answered 179 degrees it is -2."""
    assert tilt_bias(np.array([179.0, 1.0, 50.0]), np.array([1.0, 179.0, 45.0])).tolist() == [-2.0, 2.0, 5.0]


def test_the_curve_is_of_fourth_order():
    """The bias curve is a polynomial of fourth order, like the fit in the paper's figure."""
    dtheta = np.linspace(-90, 90, 50)
    curve = bias_curve(dtheta, 1e-7 * dtheta**4 - 0.1 * dtheta)
    assert curve.degree() == 4
    assert curve(30.0) == pytest.approx(1e-7 * 30**4 - 3)


def test_it_reads_the_centre_of_the_normalised_state():
    """The readout normalises the state, resizes it bilinearly and applies two 1x1 convolutions at the centre pixel."""
    network, (image, _, _) = readout(), gratings(2, GRATINGS)
    with torch.no_grad():
        h = F.interpolate(F.instance_norm(network.features(image)), (32, 32), mode="bilinear", align_corners=False)
        first, second = network.layers[0], network.layers[2]
        r = F.relu(F.conv2d(h, first.weight[:, :, None, None], first.bias))
        p = F.conv2d(r, second.weight[:, :, None, None], second.bias)[:, :, 16, 16]
        torch.testing.assert_close(network(image), p)


@pytest.mark.parametrize("config", [GRATINGS, TURNED], ids=["2 theta", "theta"])
def test_it_learns_orientations_and_leaves_the_network_alone(config):
    """The readout learns orientations to a median error below 12 degrees, and the network's weights do not change."""
    network = readout().train()
    assert not network.network.training
    images, targets, samples = gratings(60, config)
    before = [parameter.clone() for parameter in network.network.parameters()]
    with torch.no_grad():
        seen = centre(network.norm(network.features(images)), network.side)
    optimiser = torch.optim.Adam(network.layers.parameters(), 1e-2)
    for _ in range(150):
        optimiser.zero_grad()
        p = network.layers(seen)
        loss = mirror_loss(p, targets) if config is TURNED else F.mse_loss(p, targets)
        loss.backward()
        optimiser.step()
    answers = orientation(network.layers(seen).detach().numpy(), doubled=config.doubled_angle)
    errors = tilt_bias(answers, np.array([sample.more["theta"] for sample in samples]))
    assert np.median(np.abs(errors)) < 12
    assert all(torch.equal(a, b) for a, b in zip(before, network.network.parameters(), strict=True))


def test_volumes_are_refused():
    """A volume is refused, since the readout takes images with four axes."""
    with pytest.raises(ModelError, match="four axes"):
        readout()(torch.zeros(1, 1, 2, 8, 8))
