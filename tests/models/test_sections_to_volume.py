from typing import Any, ClassVar

import pytest
import torch

from pipeline.errors import ModelError
from pipeline.models.folding import ConvNorm, folded
from pipeline.models.sections_to_volume import SectionsToVolume
from pipeline.models.spec import build, named_arguments
from tests.contracts.model import BatchNormContract, images, seeded
from tests.models.plain import trained

FLAT, PLANE = (1, 3, 3), (1, 2, 2)
SMALL: dict[str, Any] = {
    "sections": "plain_unet",
    "sections_arguments": {"widths": (32, 32), "kernels": (FLAT, FLAT), "pools": (PLANE,), "out_channels": 7}
    | {"stride": PLANE},
    "volume": "plain_unet",
    "volume_arguments": {"in_channels": 7, "widths": (32, 32), "kernels": (FLAT, (3, 3, 3)), "pools": (PLANE,)}
    | {"stride": (1, 1, 1)},
    "out_channels": 3,
}


class TestSectionsToVolume(BatchNormContract):
    architecture = "sections_to_volume"
    arguments: ClassVar = SMALL
    patches = ((3, 8, 12), (5, 4, 8))
    refused = ((3, 6, 8), (3, 8, 7))


def test_the_maps_of_a_section_do_not_depend_on_the_others():
    """What the first network finds in a section is the same, but for rounding, whatever lies beside it."""
    network = seeded("sections_to_volume", SMALL)
    stack = images(1, (3, 8, 12))
    with torch.inference_mode():
        torch.testing.assert_close(network.sections(stack)[:, :, 1], network.sections(stack[:, :, 1:2])[:, :, 0])


def test_it_is_the_second_network_of_the_probabilities_of_the_first():
    """The logits are those of the second network for the sigmoid of what the first one finds."""
    network, image = seeded("sections_to_volume", SMALL), images(1, (3, 8, 12))
    with torch.inference_mode():
        assert torch.equal(network(image), network.volume(network.sections(image).sigmoid()))


def test_a_narrowed_network_computes_the_first_channels_and_shares_the_first_network():
    """A narrowed network computes the first affinities of the whole one, which stays as it is."""
    network, image = trained("sections_to_volume", SMALL), images(1, (3, 8, 12))
    narrow = network.narrowed(1)
    with torch.inference_mode():
        assert narrow(image).shape[1] == narrow.out_channels == 1
        torch.testing.assert_close(narrow(image), network(image)[:, :1])
    assert network.out_channels == 3
    assert narrow.sections is network.sections


def test_no_norm_of_either_network_is_left_in_inference():
    """Norms of both networks fold, and the result is the same but for rounding; in bfloat16 it is nearly the same."""
    network, image = trained("sections_to_volume", SMALL), images(1, (4, 8, 12))
    fold = folded(network)
    assert not any(isinstance(part, ConvNorm) for part in fold.modules())
    with torch.inference_mode():
        exact = network(image)
        torch.testing.assert_close(fold(image), exact, rtol=1e-3, atol=1e-4)
        assert network.whole_in_bfloat16
        short = fold.to(torch.bfloat16)(image)
    torch.testing.assert_close(short.float(), exact, rtol=0.1, atol=0.1 * exact.abs().max().item())


def test_halves_that_do_not_fit_are_refused():
    """Another number of maps, or a network with a rule of its own for patches, is refused with the remedy."""
    with pytest.raises(ModelError, match=r"has 7 outputs and the one of the volume reads 5 maps.*in_channels"):
        build("sections_to_volume", SMALL | {"volume_arguments": SMALL["volume_arguments"] | {"in_channels": 5}})
    with pytest.raises(ModelError, match=r"must state a multiple of its patches.*choose plain_unet"):
        SectionsToVolume(
            "connectomics_unet",
            named_arguments("connectomics_unet", "2d") | {"out_channels": 7},
            "plain_unet",
            SMALL["volume_arguments"],
        )
