"""The pictures of a training use fixed grey limits and say in their titles what they show."""

import numpy as np
import pytest
import torch

from pipeline.config.reading import parse_config
from pipeline.errors import ConfigError
from pipeline.training import pictures
from pipeline.training.config import TrainConfig
from pipeline.training.losses import MeanSquare
from pipeline.training.pictures import draw_steps, limits_of
from pipeline.training.preview import preview, rows_of
from pipeline.training.target_kinds import Contours, Foreground, InstanceDistance, SignedDistance
from tests.training.volumes import OFF, store


def config(labels, *what):
    """A training on one small volume."""
    volume = store("pictures", np.full(labels.shape, 128, np.uint8), labels)
    settings = {
        "output": "never",
        "name": "look",
        "volumes": [volume.model_dump(mode="json")],
        "validation": volume.model_dump(mode="json"),
        "patch_shape": [4, 16, 16],
        "targets": [{"what": each} for each in what],
        "augmentation": OFF.model_dump(mode="json"),
    }
    return parse_config(settings, TrainConfig)


def test_a_target_that_is_one_everywhere_is_white_and_says_so():
    """A target that is 1 everywhere is drawn white, and its title says "1 everywhere"."""
    *_, foreground, distance = rows_of(config(np.ones((4, 20, 20), np.uint32), "foreground", "signed_distance"))
    assert [row[0][0] for row in (foreground, distance)] == [
        "foreground: 1 everywhere",
        "signed_distance: 1 everywhere",
    ]
    for title, values, labels, (black, white) in (*foreground, *distance):
        assert values.min() > 0.99, title
        assert black <= 0 < white == 1, title
        assert labels is None


def test_a_target_that_nobody_asks_for_says_so():
    """A target whose weights are all zero has "all masked" in its title."""
    labels = np.ones((4, 20, 20), np.uint32)
    labels[:, :10] = 0
    empty = np.zeros((4, 20, 20), np.uint32)
    for given, wanted in ((labels, {"shape_descriptors"}), (empty, {"shape_descriptors: all masked"})):
        settings = config(given, "shape_descriptors")
        settings = settings.model_copy(update={"sampling": settings.sampling.model_copy(update={"labelled": 0.0})})
        assert {panel[0] for panel in list(rows_of(settings))[-1]} == wanted


@pytest.mark.parametrize(
    ("spec", "least", "most", "limits"),
    [
        (Contours(), 0, 0, (0, 1)),
        (Foreground(), 1, 1, (0, 1)),
        (SignedDistance(), 1, 1, (-1, 1)),
        (SignedDistance(squash=False, losses=(MeanSquare(activation="none"),)), -0.5, 7, (-0.5, 7)),
        (InstanceDistance(), 3, 5, (0, 10)),
        (InstanceDistance(levels=None, losses=(MeanSquare(activation="none"),)), -1, 0.25, (-1, 1)),
    ],
)
def test_black_and_white_are_the_ends_of_a_target_and_not_of_a_section(spec, least, most, limits):
    assert limits_of(spec, least, most) == limits


def test_a_preview_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("no folder")
    settings = config(np.ones((4, 20, 20), np.uint32), "contours").model_copy(update={"output": str(tmp_path / "file")})
    with pytest.raises(ConfigError, match="no folder can be made there"):
        preview(settings)


def test_a_network_without_steps_predicts_and_has_no_step_one(tmp_path, monkeypatch):
    """A network without steps has one picture titled "prediction"; others have numbered steps."""
    titles = []
    monkeypatch.setattr(pictures, "show", lambda axes, panel, title, limits=None: titles.append((title, limits)))
    image, logits = torch.zeros(1, 1, 2, 4, 4), torch.zeros(1, 1, 2, 4, 4)
    truth = torch.ones(1, 1, 2, 4, 4)
    truth[..., 0] = torch.nan
    draw_steps(image, [logits], truth, [SignedDistance()], tmp_path / "one.png")
    assert titles == [("image", None), ("prediction", (-1, 1)), ("truth: signed_distance", (-1, 1))]
    titles.clear()
    draw_steps(image, [logits] * 2, truth, [SignedDistance()], tmp_path / "two.png")
    assert [title for title, _ in titles] == ["image", "step 1", "step 2", "truth: signed_distance"]
    assert (tmp_path / "two.png").read_bytes().startswith(b"\x89PNG")
