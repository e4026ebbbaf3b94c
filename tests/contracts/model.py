"""What every architecture must do. Subclass ``ModelContract`` and name the architecture with small arguments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from pipeline.errors import ModelError
from pipeline.geometry import Vec
from pipeline.models.spec import ModelCard, build, load_card, load_model, save_model

NEAREST: tuple[Vec, ...] = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))


def images(batch: int, patch: Vec, seed: int = 0) -> Tensor:
    """Random images (b, 1, z, y, x) from 0 to 1."""
    return torch.rand(batch, 1, *patch, generator=torch.Generator().manual_seed(seed))


def seeded(architecture: str, arguments: dict[str, Any], seed: int = 0) -> nn.Module:
    """A network whose random weights are those of a seed."""
    torch.manual_seed(seed)
    return build(architecture, arguments).eval()


class ModelContract:
    """Promises of a network: image (b, 1, z, y, x) in, logits (b, out_channels, z, y, x) out."""

    architecture: ClassVar[str]
    arguments: ClassVar[dict[str, Any]]
    """Small ones, so that a forward pass takes milliseconds; ``out_channels`` is among them and at least 3."""
    patches: ClassVar[tuple[Vec, ...]]
    """Patch shapes that fit, with three different sides; the first is used throughout."""
    refused: ClassVar[tuple[Vec, ...]] = ()
    """Patch shapes that do not fit; none if every shape does."""

    def network(self, seed: int = 0) -> nn.Module:
        """A network whose random weights are those of a seed."""
        return seeded(self.architecture, self.arguments, seed)

    def card(self) -> ModelCard:
        """A card that fits the network."""
        more = tuple((0, 0, -2 - k) for k in range(self.arguments["out_channels"] - 3))
        return ModelCard(
            name="contract",
            architecture=self.architecture,
            arguments=self.arguments,
            patch_shape=self.patches[0],
            overlap=(0, 0, 0),
            offsets=NEAREST + more,
            resolution_nm=(40.0, 4.0, 4.0),
        )

    def test_gives_one_channel_an_affinity_in_the_shape_of_the_patch(self) -> None:
        """Fails if axes are swapped, or voxels lost or made up at borders."""
        network = self.network()
        assert network.out_channels == self.arguments["out_channels"]
        for patch in self.patches:
            for batch in (1, 2):
                with torch.inference_mode():
                    logits = network(images(batch, patch))
                assert logits.shape == (batch, self.arguments["out_channels"], *patch)
                assert logits.isfinite().all()

    def test_refuses_patches_that_do_not_fit_and_says_which_do(self) -> None:
        """Fails if a patch is cropped or padded in silence, or dies deep inside the network."""
        for patch in self.refused:
            with pytest.raises(ModelError, match="multiple of"):
                self.network()(images(1, patch))

    def test_other_patches_of_the_batch_change_no_bit(self) -> None:
        """Fails if anything is normalised over the batch: a voxel would depend on what else is computed."""
        network, batch = self.network(), images(3, self.patches[0])
        others = images(3, self.patches[0], seed=1)
        others[1] = batch[1]
        with torch.inference_mode():
            assert torch.equal(network(batch)[1], network(others)[1])

    def test_a_patch_alone_gives_the_same_but_for_rounding(self) -> None:
        """Fails if the size of the batch matters.

        Not bit for bit: convolutions of another batch size may be summed in another order. So inference, which
        promises bits, keeps to one batch size.
        """
        network, batch = self.network(), images(3, self.patches[0])
        with torch.inference_mode():
            alone = torch.cat([network(image[None]) for image in batch])
            torch.testing.assert_close(network(batch), alone, rtol=1e-3, atol=1e-4)

    def test_a_call_leaves_nothing_behind(self) -> None:
        """Fails if a state lives on from one call to the next, or a call draws random numbers."""
        network, one, two = self.network(), images(1, self.patches[0]), images(1, self.patches[-1], seed=1)
        with torch.inference_mode():
            first = network(one)
            network(two)
            assert torch.equal(network(one), first)

    def test_training_mode_computes_the_same(self) -> None:
        """Fails if running statistics or dropout make the trained network another one than the validated one."""
        network, image = self.network(), images(1, self.patches[0])
        with torch.inference_mode():
            assert torch.equal(network.eval()(image), network.train()(image))

    def test_the_seed_decides_about_the_weights(self) -> None:
        """Fails if a training cannot be repeated, or if all networks begin alike."""
        one, same, other = (self.network(seed).state_dict() for seed in (1, 1, 2))
        assert all(torch.equal(one[name], same[name]) for name in one)
        assert not one or any(not torch.equal(one[name], other[name]) for name in one)

    def test_gradients_reach_every_parameter(self) -> None:
        """Fails if a part of the network is not connected to the output, or its gradient is not finite."""
        network = self.network()
        logits = network(images(2, self.patches[0]))
        parameters = dict(network.named_parameters())
        if parameters:
            logits.square().mean().backward()
        for name, parameter in parameters.items():
            assert parameter.grad is not None, f"{name} is not connected"
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().max() > 0, f"{name} gets no gradient"

    def test_arguments_survive_json(self) -> None:
        """Fails if an argument cannot stand in a card: there, tuples become lists."""
        told = json.loads(json.dumps(self.arguments))
        ours, theirs = self.network().state_dict(), seeded(self.architecture, told).state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)

    def test_a_saved_model_comes_back_bit_for_bit(self, tmp_path: Path) -> None:
        """Fails if weights or arguments change on their way through the files."""
        network, image = self.network(), images(1, self.patches[0])
        card = save_model(tmp_path, network, self.card())
        loaded = load_model(load_card(tmp_path))
        assert loaded.card == card
        state, found = network.state_dict(), loaded.module.state_dict()
        assert state.keys() == found.keys()
        assert all(torch.equal(state[name], found[name]) for name in state)
        with torch.inference_mode():
            assert torch.equal(loaded.module(image), network(image))


class BatchNormContract(ModelContract):
    """The same promises for a network with batch norms, whose training mode computes something else by design."""

    def test_training_mode_computes_the_same(self) -> None:
        """Fails if training does not use the statistics of the batch, or evaluation changes or ignores learned ones."""
        network, image = self.network(), images(2, self.patches[0])
        with torch.inference_mode():
            before = network.eval()(image)
            trained = network.train()(image)
            after = network.eval()(image)
            assert not torch.equal(before, trained)
            assert not torch.equal(before, after)
            assert torch.equal(after, network(image))
