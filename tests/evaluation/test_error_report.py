"""A report of masks or objects holds the numbers, a sweep, and the sections with the most errors."""

import json

import numpy as np
import pytest
from matplotlib.image import imread

from pipeline.errors import ConfigError, VolumeError
from pipeline.evaluation.compare_masks import compare_masks
from pipeline.evaluation.compare_objects import compare_objects
from pipeline.evaluation.error_plots import CODES, NOT_SCORED, threshold_plot
from pipeline.evaluation.error_report import mask_codes, object_codes, worst_sections, write_report
from tests.evaluation.test_kinds import blobs, pair_for

FOUND, MISSED, INVENTED = CODES.values()


@pytest.mark.parametrize("compare", [compare_masks, compare_objects])
def test_a_report_holds_numbers_and_pictures(tmp_path, compare):
    """scores.json holds what --json prints; the sweep and the errors are pictures."""
    truth, predicted = blobs(0)
    values = (predicted * 5).clip(0, 255).astype(np.uint8)
    pair = pair_for(truth, values if compare is compare_masks else predicted)
    scores = compare(pair, sections=True)
    files = write_report(tmp_path / "report", pair, scores)
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == ["errors.png", "scores.json", "sweep.png"]
    assert json.loads((tmp_path / "report" / "scores.json").read_text()) == scores.to_dict()
    assert files == {
        name: str(tmp_path / "report" / file)
        for name, file in (("scores", "scores.json"), ("errors", "errors.png"), ("sweep", "sweep.png"))
    }
    assert imread(files["errors"]).shape[0] > 300


def test_a_mask_has_no_sweep(tmp_path):
    truth, predicted = blobs(0)
    scores = compare_masks(pair_for(truth, predicted), sections=True)
    assert sorted(write_report(tmp_path, pair_for(truth, predicted), scores)) == ["errors", "scores"]
    with pytest.raises(VolumeError, match="needs probabilities"):
        threshold_plot(scores, tmp_path / "sweep.png")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"--report is .*file/below"):
        write_report(tmp_path / "file" / "below", pair_for(truth, predicted), scores)


def test_the_sections_with_the_most_errors_are_drawn():
    """Three sections at most, in order of z; of equally bad ones the first."""
    truth = np.zeros((6, 4, 4), np.int32)
    truth[:, 0, 0], predicted = 3, np.zeros((6, 4, 4), np.uint32)
    predicted[:, 0, 0] = 3
    predicted[4, 2, 2:], predicted[1, 2, 2], predicted[5, 3, 3] = 8, 8, 8
    for compare in (compare_masks, compare_objects):
        assert worst_sections(compare(pair_for(truth, predicted), sections=True)) == [3, 6, 7]
    assert worst_sections(compare_masks(pair_for(truth, predicted * 0 + 1), sections=True)) == [2, 3, 4]


def test_voxels_of_a_mask_are_found_missed_or_invented():
    true, predicted = np.array([[1, 1, 0, 0, -1]]), np.array([[200, 90, 200, 90, 200]], np.uint8)
    assert mask_codes(true, predicted, 128).tolist() == [[FOUND, MISSED, INVENTED, 0, NOT_SCORED]]


def test_objects_are_found_missed_or_invented_as_a_whole():
    """The colour is that of the object in the whole volume, and objects that touch are parted by a line."""
    truth = np.array([[[1, 1, 1, 0, 2, 2, 0, 0, -1]]])
    predicted = np.array([[[9, 9, 8, 0, 0, 7, 7, 7, 7]]], np.uint64)
    overlaps = compare_objects(pair_for(truth, predicted)).overlaps
    codes = object_codes(truth[0], predicted[0], overlaps)
    assert codes["truth"].tolist() == [[FOUND, FOUND, FOUND, 0, MISSED, MISSED, 0, 0, NOT_SCORED]]
    assert codes["predicted"].tolist() == [[FOUND, FOUND, 0, 0, 0, INVENTED, INVENTED, INVENTED, NOT_SCORED]]
