"""The values of heads: what the network's channels become, before and after copies and patches are averaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.geometry import BoundingBox, Vec
from pipeline.grid import ChunkGrid
from pipeline.inference.augmentation import Augmentation, variants
from pipeline.inference.lattice import PatchLattice
from pipeline.inference.outputs import head_values
from pipeline.inference.predictor import PredictOptions, Predictor
from pipeline.models.heads import Head
from pipeline.models.spec import OtherChannels, load_card, load_model
from pipeline.training.targets import shape_descriptors
from tests.heads import EVERY_HEAD, SHAPE, image_of, write_model
from tests.inference.networks import NEAREST, affinities_head, convolutional

STORABLE = ("affinities", "membranes", "signed_distance", "instance_distance", "classes", "shape_descriptors")
LATTICE = PatchLattice(BoundingBox.from_shape(SHAPE), (8, 10, 10), (2, 4, 4))


def predictor(folder: Path, *heads: str, **options: str) -> Predictor:
    return Predictor(load_model(load_card(write_model(folder, EVERY_HEAD))), PredictOptions(heads=heads, **options))


def test_each_activation_gives_values_from_0_to_1() -> None:
    """Levels become the expected level over their number; a signed distance of 0 becomes a half."""
    logits = torch.tensor([0.0, 30.0, -30.0, 0.0])[:, None, None, None]
    one, two = logits[:1], torch.log(torch.tensor([1.0, 2.0, 1.0]))[:, None, None, None]
    assert head_values(Head("membranes", 0, 4, "sigmoid"), logits).flatten().tolist() == pytest.approx([0.5, 1, 0, 0.5])
    assert head_values(Head("signed_distance", 0, 1, "tanh"), one).item() == 0.5
    assert head_values(Head("instance_distance", 0, 3, "softmax"), two).item() == pytest.approx(0.5)
    assert head_values(Head("classes", 0, 3, "softmax"), two).flatten().tolist() == pytest.approx([0.25, 0.5, 0.25])


@pytest.mark.parametrize("augmentation", ["none", "flips"])
def test_no_byte_of_any_head_depends_on_the_chunks(tmp_path: Path, augmentation: str) -> None:
    """The same with all heads in one pass and with each alone: a head does not depend on those beside it."""
    together = predictor(tmp_path, *STORABLE, augmentation=augmentation)
    image = image_of()
    whole, _ = together.predict(image, core=LATTICE.bounds, lattice=LATTICE)
    for chunk in ChunkGrid(LATTICE.bounds, LATTICE.bounds, (5, 9, 13)):
        box = LATTICE.support(chunk.core)
        block, _ = together.predict(image[box.slices()], core=chunk.core, lattice=LATTICE)
        np.testing.assert_array_equal(block, whole[:, *chunk.core.slices()])
    parts = together.split(whole)
    assert {name: part.ndim for name, part in parts.items()} == {
        **dict.fromkeys(("affinities", "classes", "shape_descriptors"), 4),
        **dict.fromkeys(("membranes", "signed_distance", "instance_distance"), 3),
    }
    for name in STORABLE:
        alone = predictor(tmp_path, name, augmentation=augmentation)
        block, _ = alone.predict(image, core=LATTICE.bounds, lattice=LATTICE)
        np.testing.assert_array_equal(alone.split(block)[name], parts[name])


def test_the_stored_numbers_are_those_of_the_table(tmp_path: Path) -> None:
    """The output of the network is the image v from 0 to 1 in each channel."""
    image = image_of()[:8, :10, 12:22]
    lattice = PatchLattice(BoundingBox.from_shape(image.shape), (8, 10, 10), (2, 4, 4))
    network = predictor(tmp_path, *STORABLE)
    parts = network.split(network.predict(image, core=lattice.bounds, lattice=lattice)[0])
    v = image.astype(np.float64) / 255
    sigmoid = 255 / (1 + np.exp(-v))
    expected = {
        **{"affinities": 255 * v, "membranes": sigmoid, "shape_descriptors": sigmoid},
        **{"signed_distance": 127.5 * (np.tanh(v) + 1), "instance_distance": 127.5, "classes": 255 / 3},
    }
    for name, values in expected.items():
        assert np.abs(parts[name].astype(np.float64) - values).max() < 0.501, name


def test_where_there_is_no_image_there_are_membranes_background_and_nothing_else(tmp_path: Path) -> None:
    network = predictor(tmp_path, *STORABLE)
    image = np.zeros(SHAPE, np.uint8)
    parts = network.split(network.predict(image, core=LATTICE.bounds, lattice=LATTICE)[0])
    assert (parts["membranes"] == 255).all()
    assert (parts["classes"][0] == 255).all()
    rest = [parts["classes"][1:], *(parts[name] for name in STORABLE if name not in ("membranes", "classes"))]
    assert not any(part.any() for part in rest)


def test_a_further_head_leaves_the_affinities_as_they_are() -> None:
    """With a network of convolutions, whose every channel has weights of its own."""
    loaded = convolutional([[-1, 0, 0], [0, -1, 0], [0, 0, -1], [-2, 0, 0], [0, -2, 0]])
    loaded.card.offsets = loaded.card.offsets[:3]
    loaded.card.other_channels = (OtherChannels(what="membranes", channels=2),)
    both = Predictor(loaded, PredictOptions(heads=("affinities", "membranes")))
    alone = Predictor(loaded, PredictOptions())
    block, _ = both.predict(image_of(), core=LATTICE.bounds, lattice=LATTICE)
    expected, _ = alone.predict(image_of(), core=LATTICE.bounds, lattice=LATTICE)
    np.testing.assert_array_equal(block[:3], expected)
    assert both.stored_channels == 5
    assert len(expected) == 3


@pytest.mark.parametrize("name", ["flips", "flips+transpose", "flips+permutations"])
def test_true_shape_descriptors_of_turned_labels_turned_back_are_those_of_the_labels(name: str) -> None:
    labels = np.random.default_rng(1).integers(1, 3, (7, 7, 7)).repeat(2, 2)[..., :7]
    head = Head("shape_descriptors", 0, 10, "sigmoid")
    _same_when_turned(name, labels, head, 10)


@pytest.mark.parametrize("name", ["flips", "flips+transpose"])
def test_shape_descriptors_of_sections_turn_too(name: str) -> None:
    labels = np.random.default_rng(1).integers(1, 3, (2, 7, 7)).repeat(2, 2)[..., :7]
    _same_when_turned(name, labels, Head("shape_descriptors", 0, 6, "sigmoid"), 6)


def _same_when_turned(name: str, labels: np.ndarray, head: Head, channels: int) -> None:
    def descriptors(array: np.ndarray) -> torch.Tensor:
        if channels == 10:
            return torch.from_numpy(shape_descriptors(array, [2.0] * 3)[0])
        return torch.from_numpy(np.stack([shape_descriptors(section, [2.0] * 2)[0] for section in array], 1))

    augmentation = Augmentation(name, [head], labels.shape)  # type: ignore[arg-type]
    expected = descriptors(labels)
    for which, variant in enumerate(augmentation.variants):
        turned = np.ascontiguousarray(variant.turn(torch.from_numpy(labels)).numpy())
        total = augmentation.empty(torch.device("cpu"))
        augmentation.add(total, descriptors(turned), which)
        torch.testing.assert_close(total, expected, atol=1e-5, rtol=0)


def test_descriptors_of_sections_are_not_turned_out_of_the_plane() -> None:
    with pytest.raises(ConfigError, match=r"shape descriptors of sections have no direction along z"):
        Augmentation("flips+permutations", [Head("shape_descriptors", 0, 6, "sigmoid")], (6, 6, 6))  # type: ignore[arg-type]


def test_channels_of_unknown_directions_are_refused_with_augmentation() -> None:
    flow = Head("flow", 0, 2, "sigmoid")
    assert len(Augmentation("none", [flow], (6, 6, 6)).variants) == 1  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"not known how the 2 channels of head flow change"):
        Augmentation("flips", [flow], (6, 6, 6))  # type: ignore[arg-type]
    assert len(variants("flips")) == 8


@pytest.mark.parametrize(
    ("name", "expected"),
    [("affinities", 0.25), ("foreground", 0.25), ("membranes", 0.75), ("contours", 0.75), ("signed_distance", 0.5)],
)
def test_with_the_rule_min_the_copy_that_sees_a_border_decides(name: str, expected: float) -> None:
    """Copies say 0.25 and 0.75 in turn; the least affinity, the largest membrane, and the mean of all others."""
    head = affinities_head(NEAREST) if name == "affinities" else Head(name, 0, 1, "sigmoid")
    augmentation = Augmentation("flips", [head], Vec(3, 4, 5), "min")
    total = augmentation.empty(torch.device("cpu"))
    for which in range(8):
        augmentation.add(total, torch.full((head.stored_channels, 3, 4, 5), 0.25 + 0.5 * (which % 2)), which)
    assert augmentation.result(total)[0, 1:, 1:, 1:].unique().tolist() == [expected]
    assert torch.isfinite(augmentation.result(total)).all()


def test_no_byte_depends_on_the_chunks_with_the_rule_min(tmp_path: Path) -> None:
    network = predictor(tmp_path, "affinities", "membranes", augmentation="flips", augmentation_rule="min")
    whole, _ = network.predict(image_of(), core=LATTICE.bounds, lattice=LATTICE)
    for chunk in ChunkGrid(LATTICE.bounds, LATTICE.bounds, (5, 9, 13)):
        box = LATTICE.support(chunk.core)
        block, _ = network.predict(image_of()[box.slices()], core=chunk.core, lattice=LATTICE)
        np.testing.assert_array_equal(block, whole[:, *chunk.core.slices()])
    mean = predictor(tmp_path, "affinities", "membranes", augmentation="flips")
    assert (whole[:3] <= mean.predict(image_of(), core=LATTICE.bounds, lattice=LATTICE)[0][:3]).all()


def test_extremes_of_the_copies_lie_beside_their_mean(tmp_path: Path) -> None:
    """The mean is that of the rule mean, to the byte, between the least and the largest value, in any chunks."""
    heads = ("affinities", "membranes", "classes", "shape_descriptors")
    network = predictor(tmp_path, *heads, augmentation="flips", augmentation_rule="mean+extremes")
    whole, _ = network.predict(image_of(), core=LATTICE.bounds, lattice=LATTICE)
    for chunk in ChunkGrid(LATTICE.bounds, LATTICE.bounds, (5, 9, 13)):
        box = LATTICE.support(chunk.core)
        block, _ = network.predict(image_of()[box.slices()], core=chunk.core, lattice=LATTICE)
        np.testing.assert_array_equal(block, whole[:, *chunk.core.slices()])
    parts = network.split(whole)
    assert list(parts) == [name + each for each in ("", "_least", "_largest") for name in heads]
    mean = predictor(tmp_path, *heads, augmentation="flips")
    for name, part in mean.split(mean.predict(image_of(), core=LATTICE.bounds, lattice=LATTICE)[0]).items():
        np.testing.assert_array_equal(parts[name], part)
        assert (parts[f"{name}_least"] <= part).all()
        assert (part <= parts[f"{name}_largest"]).all()


@pytest.mark.parametrize("name", ["affinities", "membranes", "classes", "shape_descriptors"])
def test_each_copy_lies_between_the_extremes(name: str) -> None:
    """The least and the largest of the copies are those of the copies one by one, each turned back by its head."""
    channels = {"affinities": 3, "classes": 3, "shape_descriptors": 10}.get(name, 1)
    head = affinities_head(NEAREST) if name == "affinities" else Head(name, 0, channels, "sigmoid")
    rng, shape = np.random.default_rng(0), Vec(3, 4, 5)
    values = [torch.from_numpy(rng.random((channels, *shape), np.float32)) for _ in range(8)]
    together, alone = Augmentation("flips", [head], shape, "mean+extremes"), Augmentation("flips", [head], shape)
    total, copies = together.empty(torch.device("cpu")), []
    for which, each in enumerate(values):
        together.add(total, each, which)
        copy = torch.full(alone.shape, torch.nan)
        alone.add(copy.zero_(), each, which)
        for out, source in zip(copy, alone.sources[which], strict=True):
            missing = torch.ones(shape, dtype=torch.bool)
            missing[source.slices(shape)[0]] = False
            out[missing] = torch.nan  # no partner
        copies.append(copy.numpy())
    mean, least, largest = together.result(total).numpy().reshape(3, channels, *shape)
    np.testing.assert_array_equal(least, np.nanmin(copies, 0))
    np.testing.assert_array_equal(largest, np.nanmax(copies, 0))
    np.testing.assert_allclose(mean, np.nanmean(copies, 0), rtol=1e-5)
