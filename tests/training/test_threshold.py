"""The threshold of a trained model is chosen by a run on its validation part, and stands in its card."""

import json

import pytest
import yaml
from typer.testing import CliRunner

from pipeline.geometry import BoundingBox, Vec
from pipeline.models.spec import load_card
from pipeline.runs.run import Run
from pipeline.training.callbacks import Record, Update
from pipeline.training.trainer import identity, train
from tests.training.trainings import settings
from workflows.app import app
from workflows.terminal.training import Pace, described
from workflows.threshold import choose_threshold, validation_box

NEAREST = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))


def test_the_threshold_of_the_lowest_voi_goes_to_the_card_once(tmp_path):
    """A card gets the threshold of the lowest VOI around it; a second call keeps it, and nothing else changes."""
    config = settings(tmp_path / "model")
    train(config)
    before = load_card(tmp_path / "model")
    assert before.threshold is None
    chosen = choose_threshold(config, quiet=True)
    after = load_card(tmp_path / "model")
    assert after.threshold == chosen.threshold
    assert 0.05 <= after.threshold <= 1
    assert after.scores["validation VOI on"] == "16..24 x 0..32 x 0..32"
    assert after.digest == before.digest  # so affinities of runs stay valid
    run = Run.open(tmp_path / "model" / "threshold" / "run")
    assert run.threshold == after.threshold
    assert "stands in" in str(choose_threshold(config, quiet=True))
    assert load_card(tmp_path / "model") == after


def test_the_threshold_of_the_largest_iou_goes_to_the_card_of_a_foreground(tmp_path):
    """A network of the foreground has a mask: its best threshold is on the card, and a mask of it takes that."""
    config = settings(tmp_path / "model", targets=({"what": "foreground"},))
    train(config)
    said = str(choose_threshold(config, quiet=True))
    card = load_card(tmp_path / "model")
    stored = json.loads((tmp_path / "model" / "threshold" / "run" / "report" / "scores.json").read_text())
    (line,) = stored["sweep"]
    assert card.threshold == line["best"]["value"]
    assert card.scores["validation IoU"] == round(max(each["foreground_iou"] for each in line["points"]), 4)
    assert f"threshold {card.threshold:g} has the largest foreground IoU" in said
    run = Run.open(tmp_path / "model" / "threshold" / "run")
    assert (run.threshold, run.chosen.source) == (card.threshold, "model's card")
    objects = Run.open(tmp_path / "model" / "threshold" / "run", ["segmentation.kind=objects"])
    assert (objects.threshold, objects.chosen.source) == (0.5, "default")


def test_where_no_threshold_can_be_chosen_it_is_said(tmp_path):
    """Other targets and one object have no threshold; a threshold of the training file is kept."""
    other = settings(tmp_path / "other", targets=({"what": "contours"},))
    train(other)
    assert "neither affinities" in str(choose_threshold(other))
    given = settings(tmp_path / "given", threshold=0.25)
    train(given)
    assert choose_threshold(given).threshold == 0.25
    corner = settings(tmp_path / "corner", threshold_box=(1, 1, 1))
    train(corner)
    assert "fewer than two labelled objects" in str(choose_threshold(corner))
    assert load_card(tmp_path / "corner").threshold is None


def test_how_the_threshold_is_chosen_does_not_change_the_weights(tmp_path):
    """The keys about the threshold may change between two parts of a training."""
    plain = identity(settings(tmp_path))
    assert identity(settings(tmp_path, choose_threshold=False, threshold_box=(8, 8, 8), threshold=0.5)) == plain


def test_the_box_lies_in_the_middle_of_the_validation_part():
    part = BoundingBox((10, 0, 0), (20, 300, 100))
    assert validation_box(part, Vec(64, 192, 192)) == BoundingBox((10, 54, 0), (20, 246, 100))


def test_the_line_of_a_training_has_loss_score_pace_and_time_left():
    """The line names the losses, the best score, updates a second without those of earlier calls, and the time left."""
    times = iter([0.0, 10.0])
    pace = Pace(lambda: next(times))
    assert pace.of(100) is None
    first, best = Record(100, 0.5, 0.4, 0.8), Record(50, 0.6, 0.5, 0.9)
    update = Update(130, 430, 0.4321, first, best)
    assert described(update, pace.of(130)) == (
        "loss 0.4321, validation loss 0.4, score 0.8000 (best 0.9000), 3 updates/s, 1 min 40 s left"
    )
    assert described(Update(1, 9, 1.5, None, None), None) == "loss 1.5"


def test_the_command_trains_chooses_and_names_the_next_command(tmp_path, monkeypatch):
    """`petaseg train` shows each validation, chooses the threshold, and `petaseg init --model` writes it."""
    monkeypatch.chdir(tmp_path)
    config = settings("model")
    data = config.model_dump(mode="json", exclude_unset=True)
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(data))
    done = CliRunner().invoke(app, ["train", "train.yaml", "--no-threshold"])
    assert done.exit_code == 0, done.output
    assert "update 3 of 6: loss" in done.output
    assert load_card("model").threshold is None
    again = CliRunner().invoke(app, ["train", "train.yaml"])
    assert again.exit_code == 0, again.output
    assert "next: petaseg init run.yaml --image IMAGE --model model" in again.output
    threshold = load_card("model").threshold
    assert f"threshold {threshold:g} has the lowest VOI" in again.output
    written = CliRunner().invoke(app, ["init", "a/run.yaml", "--image", config.validation.image, "--model", "model"])
    assert written.exit_code == 0, written.output
    opened = Run.open("a/run.yaml")
    assert opened.config.segmentation.threshold == threshold == opened.threshold
    assert opened.config.inference.model == str(tmp_path / "model" / "card.yaml")


@pytest.mark.parametrize("command", ["init", "train"])
def test_the_help_names_the_options(command):
    shown = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"}).output
    assert {"init": "--model", "train": "--no-threshold"}[command] in shown
