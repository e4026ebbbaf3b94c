import re
from typing import ClassVar

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pipeline.errors import ModelError
from pipeline.models.facts import parameters
from pipeline.models.pretrained import renamed
from pipeline.models.resnet import SIZES, ResNetFCN, dilate, enlarged, load_backbone, resnet_blocks
from pipeline.models.resnet import TORCHVISION as RULES
from tests.contracts.model import BatchNormContract, images, seeded

MINI = {"embedding_size": 4, "widths": (8, 12, 16, 20), "depths": (1, 2, 1, 2), "out_channels": 3}


class TestBottlenecks(BatchNormContract):
    architecture = "resnet_fcn"
    arguments = MINI
    patches = ((2, 40, 70), (1, 33, 64))


class TestFineScores(BatchNormContract):
    architecture = "resnet_fcn"
    arguments: ClassVar = {**MINI, "block": "basic", "finest": 8, "stride_first": True}
    patches = ((2, 40, 70), (1, 33, 64))


@pytest.mark.parametrize(("size", "count"), [("resnet50", 23_508_032), ("resnet101", 42_500_160)])
def test_backbones_have_the_parameters_of_the_classical_networks(size, count):
    """ResNet-50 and ResNet-101 have the parameters of the well-known networks without their classifier."""
    with torch.device("meta"):
        assert parameters(resnet_blocks(in_channels=3, **SIZES[size])) == count


def on_meta(blocks, shape):
    x = torch.empty(shape, device="meta")
    for block in blocks:
        x = block(x)
    return tuple(x.shape)


def test_a_dilated_block_keeps_the_resolution():
    """A dilated last block keeps the output stride at 16, and each of its residual units has its own dilation."""
    with torch.device("meta"):
        blocks = resnet_blocks(depths=(3, 4, 23, 3), stride_first=True)
        dilate(blocks[-1], (2, 4, 8))
    assert [unit.layer[1].convolution.dilation for unit in blocks[-1].layers] == [(2, 2), (4, 4), (8, 8)]
    assert on_meta(blocks, (1, 3, 513, 513)) == (1, 2048, 33, 33)
    assert on_meta(blocks, (1, 3, 1025, 2049)) == (1, 2048, 65, 129)
    with pytest.raises(ModelError, match="2 dilations for 3 residual units"):
        dilate(blocks[-1], (2, 4))


def test_the_first_kind_has_its_stride_in_the_small_kernel():
    """The stride is in the 1x1 kernel with ``stride_first`` (the paper's v1), and in the 3x3 kernel without (v1.5)."""
    for first, strides in ((True, [(2, 2), (1, 1)]), (False, [(1, 1), (2, 2)])):
        unit = resnet_blocks(**{k: MINI[k] for k in ("widths", "depths")}, stride_first=first)[2].layers[0]
        assert [layer.convolution.stride for layer in unit.layer[:2]] == strides


def test_scores_of_finer_blocks_are_added():
    """Scores of finer blocks are added to those of the last one: two scores in FCN-16s, three in FCN-8s."""
    network, image = seeded("resnet_fcn", {**MINI, "finest": 16}), images(1, (1, 64, 64))
    with torch.inference_mode():
        before = network(image)
        nn.init.zeros_(network.scores[1].weight)
        assert not torch.equal(network(image), before)
    assert len(ResNetFCN(**{**MINI, "finest": 8}).scores) == 3


def middle_of(paint, features, feature):
    """The pixel at the middle of what a single feature (of a row of them) paints."""
    x = torch.zeros(1, 1, features, features)
    x[..., feature] = 1
    row = paint(x)[0, 0, 0].double()
    return float((row * torch.arange(len(row))).sum() / row.sum())


@pytest.mark.parametrize("size", [513, 512, 500])
def test_a_feature_is_painted_where_it_lies(size):
    """Feature 1 of 33 is painted around pixel 16 of 513, where it lies; also where sides are no 32 k + 1."""
    features = -(-size // 16)
    for feature in (1, features // 2, features - 2):
        found = middle_of(lambda x: enlarged(x, (size, size), 16), features, feature)
        assert found == pytest.approx(16 * feature, abs=1e-4)


def test_the_middle_of_what_a_feature_sees_is_its_place():
    """Feature i of the block of stride 16 sees as many pixels before pixel 16 i as behind it."""
    blocks = resnet_blocks(1, 4, (8, 12, 16, 20), (1, 1, 1, 1), "basic").double()
    image = torch.rand(1, 1, 193, 193, dtype=torch.float64, requires_grad=True)
    x = image
    for block in blocks[:4]:
        x = block(x)
    x[..., 6, 6].sum().backward()
    seen = image.grad.abs().sum((0, 1, 2)).nonzero().flatten()
    assert (seen[0] + seen[-1]).item() / 2 == 16 * 6


@pytest.mark.parametrize("finest", [32, 16, 8])
def test_scores_lie_on_the_pixels_of_the_image(finest):
    """A score of the finest block is painted around its own pixel, at every stride that scores may have."""
    network = ResNetFCN(**{**MINI, "finest": finest, "out_channels": 1})
    found = middle_of(lambda x: network.finish(x, torch.empty(1, 1, 257, 257)), 256 // finest + 1, 2)
    assert found == pytest.approx(2 * finest, abs=1e-4)


TORCHVISION = (
    (r"^0\.embedder\.convolution", "conv1"),
    (r"^0\.embedder\.normalization", "bn1"),
    (r"^(\d)\.layers\.(\d+)\.shortcut\.convolution", r"layer\1.\2.downsample.0"),
    (r"^(\d)\.layers\.(\d+)\.shortcut\.normalization", r"layer\1.\2.downsample.1"),
    (r"^(\d)\.layers\.(\d+)\.layer\.(\d)\.convolution", lambda m: f"layer{m[1]}.{m[2]}.conv{int(m[3]) + 1}"),
    (r"^(\d)\.layers\.(\d+)\.layer\.(\d)\.normalization", lambda m: f"layer{m[1]}.{m[2]}.bn{int(m[3]) + 1}"),
)
TRANSFORMERS = (
    (r"^0\.", "resnet.embedder."),
    (r"^(\d)\.", lambda m: f"resnet.encoder.stages.{int(m[1]) - 1}."),
)


def blocks_of(channels, seed):
    torch.manual_seed(seed)
    blocks = resnet_blocks(channels, 4, (8, 12, 16, 20), (1, 2, 1, 2)).eval()
    for name, value in blocks.state_dict().items():
        if value.ndim == 1:
            value.copy_(torch.rand(value.shape) + 0.5) if "num" not in name else None
    return blocks


def written(folder, blocks, rules, ending):
    """Write the weights of blocks under the names of another library, with a classifier, and return the file."""
    state = {"fc.weight": torch.zeros(3, 20), "fc.bias": torch.zeros(3)}
    for name, value in blocks.state_dict().items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        state[name] = value.clone()
    path = folder / f"weights{ending}"
    save_file(state, path) if ending == ".safetensors" else torch.save({"state_dict": state}, path)
    return path


@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
@pytest.mark.parametrize("rules", [TORCHVISION, TRANSFORMERS], ids=["torchvision", "transformers"])
def test_pretrained_weights_of_other_libraries_are_taken(tmp_path, rules, ending):
    """Weights under the names of torchvision or transformers load into our backbone bit for bit."""
    theirs, ours = blocks_of(3, seed=1), blocks_of(3, seed=2)
    load_backbone(ours, written(tmp_path, theirs, rules, ending))
    expected, found = theirs.state_dict(), ours.state_dict()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def torchvision_shapes(depths):
    """Names and shapes in torchvision's files of bottleneck ResNets, written down from its classes; no classifier."""
    shapes = {"conv1.weight": (64, 3, 7, 7), **norm_shapes("bn1", 64)}
    inside = 64
    for k, (blocks, width) in enumerate(zip(depths, (64, 128, 256, 512), strict=True), start=1):
        for block in range(blocks):
            name = f"layer{k}.{block}"
            kernels = ((width, inside, 1, 1), (width, width, 3, 3), (4 * width, width, 1, 1))
            for i, kernel in enumerate(kernels, start=1):
                shapes |= {f"{name}.conv{i}.weight": kernel, **norm_shapes(f"{name}.bn{i}", kernel[0])}
            if block == 0:
                shapes |= {f"{name}.downsample.0.weight": (4 * width, inside, 1, 1)}
                shapes |= norm_shapes(f"{name}.downsample.1", 4 * width)
            inside = 4 * width
    return shapes


def norm_shapes(name, channels):
    kinds = ("weight", "bias", "running_mean", "running_var")
    return {**{f"{name}.{kind}": (channels,) for kind in kinds}, f"{name}.num_batches_tracked": ()}


@pytest.mark.parametrize(("size", "tensors"), [("resnet50", 318), ("resnet101", 624)])
def test_every_name_and_shape_of_torchvisions_files_is_known(size, tensors):
    """Every tensor of torchvision's ResNet files has a place of its shape in our backbone, and no place stays empty."""
    shapes = torchvision_shapes(SIZES[size]["depths"])
    assert len(shapes) == tensors
    with torch.device("meta"):
        blocks = resnet_blocks(in_channels=3, **SIZES[size])
    theirs = renamed({name: torch.empty(shape, device="meta") for name, shape in shapes.items()}, RULES)
    found = {name: tuple(value.shape) for name, value in theirs.items()}
    assert found == {name: tuple(value.shape) for name, value in blocks.state_dict().items()}


def test_a_grey_image_gives_what_it_gives_in_colour(tmp_path):
    """A grey backbone gives for an image what the pretrained one gives for three channels equal to it."""
    colour, grey = blocks_of(3, seed=1), blocks_of(1, seed=2)
    load_backbone(grey, written(tmp_path, colour, TORCHVISION, ".pth"))
    image = images(1, (1, 40, 40))[:, 0]
    with torch.inference_mode():
        torch.testing.assert_close(grey[0](image), colour[0](image.expand(-1, 3, -1, -1)))


def test_weights_of_another_network_are_refused(tmp_path):
    """Weights of a ResNet with other depths are refused, and a missing tensor is named."""
    path = written(tmp_path, blocks_of(3, seed=1), TORCHVISION, ".pth")
    with pytest.raises(ModelError, match=r"do not fit this ResNet: .* is missing"):
        load_backbone(resnet_blocks(3, 4, (8, 12, 16, 20), (2, 2, 1, 2)), path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"finest": 4}, "32, 16 or 8"),
        ({"depths": (1, 2)}, "four depths"),
        ({"block": "dense"}, "'bottleneck' or 'basic'"),
    ],
)
def test_impossible_arguments_are_refused(change, message):
    """Arguments that no ResNet can be built from are refused, and the message says what is allowed."""
    with pytest.raises(ModelError, match=message):
        ResNetFCN(**{**MINI, **change})
