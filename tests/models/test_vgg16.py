import pytest
import torch
from torch.nn import functional as F

from pipeline.errors import ModelError
from pipeline.models.vgg16 import LAYERS, TORCHVISION, VGG16


def test_it_has_the_parameters_of_the_paper():
    """Would break weights from elsewhere: 13 convolutions."""
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in VGG16().parameters()) == 14_714_688


def test_it_computes_convolutions_with_pools_between_blocks():
    """Would pool in the wrong places: after conv1_2, conv2_2, conv3_3 and conv4_3, and nowhere else."""
    torch.manual_seed(0)
    network = VGG16(width=0.05)
    r = image = torch.rand(1, 3, 37, 48)
    for layer in LAYERS:
        if layer in ("conv2_1", "conv3_1", "conv4_1", "conv5_1"):
            r = F.max_pool2d(r, 2)
        r = F.relu(getattr(network, layer)(r))
    assert torch.equal(network(image), r)
    assert r.shape[2:] == (2, 3)


def test_it_can_be_run_in_parts():
    """Would break the recurrence around it, which runs it from unit to unit."""
    network, image = VGG16(width=0.05), torch.rand(1, 3, 32, 32)
    parts = image
    for after, until in ((None, "conv2_2"), ("conv2_2", "conv3_1"), ("conv3_1", "conv5_3")):
        parts = network(parts, after, until)
    assert torch.equal(parts, network(image))


@pytest.mark.parametrize("names", ["ours", "torchvision"])
def test_weights_load_from_a_file_under_either_name(names, tmp_path):
    """Would make users rename tensors; what is beyond the last layer is ignored."""
    from safetensors.torch import load_file, save_file

    source, network = VGG16("conv3_1", width=0.05), VGG16("conv2_2", width=0.05)
    tensors = {
        f"{layer if names == 'ours' else TORCHVISION[layer]}.{kind}": getattr(getattr(source, layer), kind).data
        for layer in source.layers
        for kind in ("weight", "bias")
    }
    save_file({**tensors, "classifier.0.weight": torch.zeros(2)}, tmp_path / "vgg16.safetensors")
    network.load(load_file(tmp_path / "vgg16.safetensors"))
    image = torch.rand(1, 3, 16, 16)
    assert torch.equal(network(image), source(image, until="conv2_2"))


def test_torchvision_counts_activations_and_pools():
    """Would load the wrong layers."""
    assert TORCHVISION["conv1_2"] == "features.2"
    assert TORCHVISION["conv5_3"] == "features.28"


def test_refuses_weights_of_something_else():
    """Would run with random weights, in silence."""
    network = VGG16("conv1_2", width=0.05)
    with pytest.raises(ModelError, match=r"conv1_1.weight is missing"):
        network.load({"conv1_2.weight": torch.zeros(3, 3, 3, 3)})
    with pytest.raises(ModelError, match=r"conv1_1.bias has shape \(7,\), not \(3,\)"):
        network.load({**network.state_dict(), "conv1_1.bias": torch.zeros(7)})
    with pytest.raises(ModelError, match="VGG16 has conv1_1"):
        VGG16("conv6_1")
