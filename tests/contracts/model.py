"""The promises of every architecture. Subclass ``ModelContract``; name the architecture and small arguments."""

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
    """Small arguments, for forward passes of milliseconds; ``out_channels`` is among them and at least 3."""
    patches: ClassVar[tuple[Vec, ...]]
    """Patch shapes that fit, with three different sides; the first is used throughout."""
    refused: ClassVar[tuple[Vec, ...]] = ()
    """Patch shapes that do not fit; empty if every shape fits."""

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
        """Logits have one channel an affinity and the shape of the patch, and are finite."""
        network = self.network()
        assert network.out_channels == self.arguments["out_channels"]
        for patch in self.patches:
            for batch in (1, 2):
                with torch.inference_mode():
                    logits = network(images(batch, patch))
                assert logits.shape == (batch, self.arguments["out_channels"], *patch)
                assert logits.isfinite().all()

    def test_refuses_patches_that_do_not_fit_and_says_which_do(self) -> None:
        """A patch whose shape does not fit is refused, and the error names the multiple that does."""
        for patch in self.refused:
            with pytest.raises(ModelError, match="multiple of"):
                self.network()(images(1, patch))

    def test_other_patches_of_the_batch_change_no_bit(self) -> None:
        """The logits of a patch do not depend, in any bit, on the other patches of its batch."""
        network, batch = self.network(), images(3, self.patches[0])
        others = images(3, self.patches[0], seed=1)
        others[1] = batch[1]
        with torch.inference_mode():
            assert torch.equal(network(batch)[1], network(others)[1])

    def test_a_patch_alone_gives_the_same_but_for_rounding(self) -> None:
        """The batch size changes the logits of a patch by no more than rounding.

        They are not equal bit for bit: convolutions of another batch size may be summed in another order. Therefore
        inference, whose bytes must not change, uses one batch size.
        """
        network, batch = self.network(), images(3, self.patches[0])
        with torch.inference_mode():
            alone = torch.cat([network(image[None]) for image in batch])
            torch.testing.assert_close(network(batch), alone, rtol=1e-3, atol=1e-4)

    def test_a_call_leaves_nothing_behind(self) -> None:
        """A call keeps no state and draws no random numbers: the same patch gives the same logits later."""
        network, one, two = self.network(), images(1, self.patches[0]), images(1, self.patches[-1], seed=1)
        with torch.inference_mode():
            first = network(one)
            network(two)
            assert torch.equal(network(one), first)

    def test_training_mode_computes_the_same(self) -> None:
        """Training mode and evaluation mode give the same logits: there is no dropout and no running mean."""
        network, image = self.network(), images(1, self.patches[0])
        with torch.inference_mode():
            assert torch.equal(network.eval()(image), network.train()(image))

    def test_the_seed_decides_about_the_weights(self) -> None:
        """Equal seeds give equal weights, and different seeds give different ones."""
        one, same, other = (self.network(seed).state_dict() for seed in (1, 1, 2))
        assert all(torch.equal(one[name], same[name]) for name in one)
        assert not one or any(not torch.equal(one[name], other[name]) for name in one)

    def test_gradients_reach_every_parameter(self) -> None:
        """Every parameter gets a finite gradient that is not zero."""
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
        """Arguments that went through JSON, where tuples become lists, build the same network."""
        told = json.loads(json.dumps(self.arguments))
        ours, theirs = self.network().state_dict(), seeded(self.architecture, told).state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)

    def test_a_saved_model_comes_back_bit_for_bit(self, tmp_path: Path) -> None:
        """A model that was saved and loaded has the same card, weights and logits, bit for bit."""
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
        """Training mode uses the statistics of the batch and learns them; evaluation mode uses what was learned."""
        network, image = self.network(), images(2, self.patches[0])
        with torch.inference_mode():
            before = network.eval()(image)
            trained = network.train()(image)
            after = network.eval()(image)
            assert not torch.equal(before, trained)
            assert not torch.equal(before, after)
            assert torch.equal(after, network(image))
