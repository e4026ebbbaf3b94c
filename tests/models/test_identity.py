from typing import ClassVar

import torch

from pipeline.models.spec import load_card, load_model
from tests.contracts.model import ModelContract, images


class TestIdentity(ModelContract):
    architecture = "identity"
    arguments: ClassVar = {"out_channels": 4}
    patches = ((3, 5, 7), (2, 9, 1))


def test_every_channel_is_the_image():
    """Would hide errors of tiling and blending: what comes out must be what went in."""
    image = images(2, (3, 4, 5))
    logits = load_model(load_card("identity")).module(image)
    assert logits.shape == (2, 3, 3, 4, 5)
    for channel in range(3):
        assert torch.equal(logits[:, channel], image[:, 0])
