from math import prod

import pytest
import torch
from torch.nn import functional as F

from pipeline.errors import ModelError
from pipeline.models.vgg16 import LAYERS, TORCHVISION, VGG16


def test_it_has_the_parameters_of_the_paper():
    """The 13 convolutions of VGG16 have the paper's 14,714,688 parameters."""
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in VGG16().parameters()) == 14_714_688


def test_it_computes_convolutions_with_pools_between_blocks():
    """A max pool follows conv1_2, conv2_2, conv3_3 and conv4_3, and no other layer."""
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
    """VGG16 run in parts, from layer to layer, gives the output of VGG16 run as a whole."""
    network, image = VGG16(width=0.05), torch.rand(1, 3, 32, 32)
    parts = image
    for after, until in ((None, "conv2_2"), ("conv2_2", "conv3_1"), ("conv3_1", "conv5_3")):
        parts = network(parts, after, until)
    assert torch.equal(parts, network(image))


@pytest.mark.parametrize("names", ["ours", "torchvision"])
def test_weights_load_from_a_file_under_either_name(names, tmp_path):
    """Weights load under our names and under torchvision's, and tensors beyond the last layer are ignored."""
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


PLAN = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M")
"""Table 1 of the paper, column D, as torchvision writes it down; M is a max pool."""


def torchvision_shapes(batch_norm=False):
    """Names and shapes in the file of torchvision's vgg16, or vgg16_bn: features are counted with ReLUs and pools."""
    shapes, place, inside = {}, 0, 3
    for outside in PLAN:
        if outside == "M":
            place += 1
            continue
        shapes |= {f"features.{place}.weight": (outside, inside, 3, 3), f"features.{place}.bias": (outside,)}
        if batch_norm:
            kinds = ("weight", "bias", "running_mean", "running_var")
            shapes |= {f"features.{place + 1}.{kind}": (outside,) for kind in kinds}
        place, inside = place + (3 if batch_norm else 2), outside
    for place, sides in ((0, (4096, 25088)), (3, (4096, 4096)), (6, (1000, 4096))):
        shapes |= {f"classifier.{place}.weight": sides, f"classifier.{place}.bias": sides[:1]}
    return shapes


def test_torchvisions_file_is_taken_and_that_with_batch_norms_refused(tmp_path):
    """Each tensor of torchvision's vgg16 file has a layer of its name and shape; the file of vgg16_bn is refused."""
    shapes = torchvision_shapes()
    assert len(shapes) == 32
    assert sum(prod(shape) for shape in shapes.values()) == 138_357_544, "the published count, classifier included"
    ours = [f"{layer}.{kind}" for layer in LAYERS for kind in ("weight", "bias")]
    with torch.device("meta"):
        network = VGG16()
    found = {f"{TORCHVISION[layer]}.{kind}" for layer in LAYERS for kind in ("weight", "bias")}
    assert found == {name for name in shapes if name.startswith("features.")}
    assert {name: tuple(value.shape) for name, value in network.state_dict().items()} == {
        name: shapes[f"{TORCHVISION[name.split('.')[0]]}.{name.split('.')[1]}"] for name in ours
    }
    small = VGG16("conv2_2")
    with pytest.raises(ModelError, match=r"conv1_2\.weight is missing"):
        small.load({name: torch.zeros(1).expand(shape) for name, shape in torchvision_shapes(batch_norm=True).items()})
    torch.save(
        {name: torch.full((), 0.5).expand(shape) for name, shape in shapes.items() if "features" in name},
        tmp_path / "vgg16.pth",
    )
    small.load_file(tmp_path / "vgg16.pth")
    assert (small.conv2_2.weight == 0.5).all()
    with pytest.raises(ModelError, match="does not exist"):
        small.load_file(tmp_path / "vgg19.pth")


def test_refuses_weights_of_something_else():
    """A missing tensor, a tensor of another shape and an unknown layer are refused by name."""
    network = VGG16("conv1_2", width=0.05)
    with pytest.raises(ModelError, match=r"conv1_1.weight is missing"):
        network.load({"conv1_2.weight": torch.zeros(3, 3, 3, 3)})
    with pytest.raises(ModelError, match=r"conv1_1.bias has shape \(7,\), not \(3,\)"):
        network.load({**network.state_dict(), "conv1_1.bias": torch.zeros(7)})
    with pytest.raises(ModelError, match="VGG16 has conv1_1"):
        VGG16("conv6_1")
