from typing import ClassVar

import torch

from pipeline.models.spec import load_card, load_model
from tests.contracts.model import ModelContract, images


class TestIdentity(ModelContract):
    architecture = "identity"
    arguments: ClassVar = {"out_channels": 4}
    patches = ((3, 5, 7), (2, 9, 1))


def test_every_channel_is_the_image():
    """Every output channel of the identity model is the image, so errors of tiling and blending show in its output."""
    image = images(2, (3, 4, 5))
    logits = load_model(load_card("identity")).module(image)
    assert logits.shape == (2, 3, 3, 4, 5)
    for channel in range(3):
        assert torch.equal(logits[:, channel], image[:, 0])
