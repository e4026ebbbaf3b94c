"""A network learns a list of targets, its card describes their channels, and a run uses its affinities."""

import numpy as np
import pytest
import torch

from pipeline.config.reading import parse_config
from pipeline.errors import ConfigError, ModelError
from pipeline.models.spec import load_card, load_model
from pipeline.training.config import TrainConfig
from pipeline.training.module import TrainingModule, arguments_of
from pipeline.training.sampler import Sampler
from pipeline.training.scores import score_name
from pipeline.training.sources import open_sources
from pipeline.training.trainer import train
from tests.runs import results, run, write_run, write_volume
from tests.training.trainings import log, settings
from tests.training.volumes import cubes

NEAREST = [[-1, 0, 0], [0, -1, 0], [0, 0, -1]]
AFFINITIES = {"what": "affinities", "offsets": NEAREST}
EVERYTHING = [
    {"what": "shape_descriptors", "sigma_nm": [24, 24, 24], "losses": [{"kind": "mse", "weight": 2}]},
    {"what": "contours", "weights": "ratio", "losses": [{"kind": "bce"}, {"kind": "dice", "weight": 0.5}]},
    AFFINITIES,
    {"what": "signed_distance"},
    {"what": "instance_distance", "levels": 4},
]
FLAT = {"widths": [3, 4], "horizontal": [3, 1], "steps": 2}


def wanting(output, targets, **changes):
    """A short training on a list of targets."""
    data = settings(output, **changes).model_dump(mode="json")
    return parse_config({**data, "targets": targets}, TrainConfig)


def test_offsets_are_short_for_one_target_of_affinities(tmp_path):
    """`offsets` trains the same model, byte for byte, as one target of affinities with the same offsets."""
    train(settings(tmp_path / "short", offsets=tuple(map(tuple, NEAREST)), pictures=False))
    train(wanting(tmp_path / "long", [AFFINITIES], pictures=False))
    for name in ("weights.safetensors", "log.jsonl", "card.yaml"):
        assert (tmp_path / "short" / name).read_bytes() == (tmp_path / "long" / name).read_bytes(), name


def test_offsets_and_targets_together_are_refused(tmp_path):
    """A file with both `offsets` and `targets`, or with offsets of mixed dimensions, is refused."""
    with pytest.raises(ConfigError, match="both offsets and targets"):
        wanting(tmp_path, [AFFINITIES], offsets=tuple(map(tuple, NEAREST)))
    with pytest.raises(ConfigError, match=r"all of a target are \(z, y, x\)"):
        wanting(tmp_path, [{"what": "affinities", "offsets": [[-1, 0, 0], [0, -1]]}])


def test_affinities_are_the_first_channels_of_the_network_and_of_its_card(tmp_path):
    """Affinities are the first channels, the card lists the others, and the log has every loss."""
    config = wanting(tmp_path, EVERYTHING)
    train(config)
    assert [target.what for target in config.channels][:3] == ["affinities", "shape_descriptors", "contours"]
    assert arguments_of(config)["out_channels"] == 3 + 10 + 1 + 1 + 5
    card = load_card(tmp_path)
    assert card.offsets == tuple(map(tuple, NEAREST))
    assert [(o.what, o.channels, o.activation) for o in card.other_channels] == [
        ("shape_descriptors", 10, "sigmoid"),
        ("contours", 1, "sigmoid"),
        ("signed_distance", 1, "tanh"),
        ("instance_distance", 5, "softmax"),
    ]
    assert load_model(card).module.out_channels == card.channels == 20
    parts = {"affinities/balanced_bce", "shape_descriptors/mse", "contours/bce", "contours/dice"}
    parts |= {"signed_distance/mse", "instance_distance/cross_entropy"}
    for record in log(tmp_path):
        assert record.keys() - {"step", "loss", "validation_loss", "score"} == {
            f"{when}/{part}" for when in ("training", "validation") for part in parts
        }
        weighted = {"shape_descriptors/mse": 2, "contours/dice": 0.5}
        total = sum(weighted.get(part, 1) * record[f"validation/{part}"] for part in parts)
        assert total == pytest.approx(record["validation_loss"], rel=1e-5)
    assert (tmp_path / "pictures" / "step-000003.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cubes")
    return write_volume(folder / "image.zarr", cubes((16, 32, 32))[0])


def test_a_run_writes_the_affinities_of_a_network_that_says_more(tmp_path, image):
    """A run stores only the affinities of a network that predicts other targets too."""
    train(wanting(tmp_path / "model", [*EVERYTHING[:2], AFFINITIES], precision="float32", pictures=False))
    found = affinities_of(tmp_path / "run", tmp_path / "model", image)
    card = load_card(tmp_path / "model")
    network = load_model(card).module
    patch = torch.from_numpy(cubes((16, 32, 32))[0][:8, :16, :16] / np.float32(255))[None, None]
    with torch.no_grad():
        expected = torch.sigmoid(network(patch))[0, :3]
    corner = found[:, :3, :8, :8].astype(float) / 255  # of one patch alone, beyond the reach of the next
    assert corner == pytest.approx(expected[:, :3, :8, :8].numpy(), abs=0.03)


def affinities_of(folder, model, image):
    """What a run stores, (3, z, y, x)."""
    file = write_run(
        folder,
        input={"image": image},
        inference={"model": str(model / "card.yaml"), "overlap": [2, 4, 4]},
        chunk_shape=[16, 32, 32],
        storage_chunk_shape=[16, 32, 32],
    )
    return np.frombuffer(results(run(file))["affinities"], np.uint8).reshape(3, 16, 32, 32)


def test_a_network_without_affinities_is_trained_and_refused_by_a_run(tmp_path, image):
    """A network without affinities is trained and scored, but a run refuses it."""
    result = train(wanting(tmp_path / "model", EVERYTHING[1:2], pictures=False))
    card = load_card(tmp_path / "model")
    assert (card.offsets, card.channels) == ((), 1)
    assert card.scores["validation contours F1"] == round(result.best.score, 4)
    file = write_run(tmp_path / "run", input={"image": image}, inference={"model": str(result.folder / "card.yaml")})
    with pytest.raises(ConfigError, match=r"predicts contours; a run makes neurons of affinities.*: train a model"):
        run(file)


@pytest.mark.parametrize(
    ("architecture", "arguments"),
    [("gamma_net_2d", FLAT), ("hgru_contour", {"kernel": 3, "steps": 2, "orientations": 2, "norm": "instance"})],
)
def test_networks_in_two_dimensions_learn_targets_of_sections(tmp_path, architecture, arguments):
    """2D networks learn 2D affinities, membranes and shape descriptors of sections."""
    targets = [
        {"what": "membranes", "losses": [{"kind": "focal"}]},
        {"what": "affinities", "offsets": [[-1, 0], [0, -1]]},
        {"what": "shape_descriptors", "sigma_nm": [24, 24]},
    ]
    flat = {"architecture": architecture, "arguments": arguments, "patch_shape": (1, 16, 16), "overlap": (0, 4, 4)}
    config = wanting(tmp_path, targets, **flat)
    train(config)
    card = load_card(tmp_path)
    assert card.offsets == ()
    assert [(o.what, o.channels) for o in card.other_channels] == [
        ("affinities", 2),
        ("membranes", 1),
        ("shape_descriptors", 6),
    ]
    image, said, weights = Sampler(open_sources(config)[0], config).draw(0)
    assert image.shape == (1, 1, 16, 16)
    assert said.shape == weights.shape == (9, 1, 16, 16)


def test_sections_of_a_volume_have_the_targets_that_they_have_alone(tmp_path):
    """2D affinities and contours of a volume equal those of each of its sections alone."""
    _, labels = cubes((6, 24, 24))
    config = wanting(tmp_path, [{"what": "affinities", "offsets": [[-1, 0], [0, -3]]}, {"what": "contours"}])
    for target in config.channels:
        whole, weights = target.make(labels, (40.0, 8.0, 8.0))
        for z, section in enumerate(labels):
            alone = target.make(section, (8.0, 8.0))
            assert (whole[:, z] == alone[0]).all()
            assert (weights[:, z] == alone[1]).all()


def test_what_was_shifted_in_from_nowhere_is_not_asked(tmp_path):
    """Voxels that a misalignment shifts in from outside of the patch have weight zero."""
    config = wanting(tmp_path, [{"what": "foreground", "losses": [{"kind": "bce"}]}])
    changed = config.augmentation.model_copy(update={"misalignment": 1.0, "rescale": 0.0})
    config = config.model_copy(update={"augmentation": changed})
    drawer = Sampler(open_sources(config)[0], config)
    shares = [drawer.draw(number)[2].mean() for number in range(20)]
    assert min(shares) < 1
    assert min(shares) > 0.5


def test_scores_are_named_by_the_first_target(tmp_path):
    """The score is named after the first target, or is 1 / (1 + loss) if that target has no F1."""
    names = {
        "cut-edge F1": [AFFINITIES],
        "membranes F1": [{"what": "membranes"}, {"what": "signed_distance"}],
        "1 / (1 + loss)": [{"what": "signed_distance"}],
    }
    for name, targets in names.items():
        assert score_name(wanting(tmp_path, targets).channels) == name


def test_a_start_with_other_channels_is_refused(tmp_path):
    """A training is refused if it starts from a model with other output channels."""
    first = train(wanting(tmp_path / "first", [AFFINITIES], pictures=False))
    with pytest.raises(ModelError, match="start_from is"):
        TrainingModule(wanting(tmp_path / "other", EVERYTHING, start_from=str(first.folder)))
