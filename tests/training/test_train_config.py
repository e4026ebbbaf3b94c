import pytest

from pipeline.config.reading import parse_config
from pipeline.errors import ConfigError
from pipeline.training.config import TrainConfig
from tests.training.trainings import settings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"overlap": [8, 4, 4]}, r"overlap is \[8, 4, 4\]; it must be .* less than the patch \[8, 16, 16\]"),
        ({"overlap": [-1, 4, 4]}, "must be at least 0"),
        ({"offsets": []}, "at least 1"),
        ({"offsets": [[-1, 0, 0], [0, 0, 0]]}, r"offsets.1: \[0, 0, 0\] leads from a voxel to itself"),
        ({"offsets": [[-8, 0, 0], [0, 40, 0]]}, "none of them stays inside a patch"),
        ({"patch_shape": [8, 16]}, r"patch_shape is \[8, 16\]; number 3 of it is missing"),
    ],
)
def test_settings_that_would_fail_at_the_first_validation_are_refused_at_once(tmp_path, changes, message):
    """Overlaps, offsets and patch shapes that no training can use are refused when the file is read."""
    data = settings(tmp_path).model_dump(mode="json")
    with pytest.raises(ConfigError, match=message):
        parse_config(data | changes, TrainConfig)


def test_patches_of_a_run_share_a_quarter_unless_the_file_says_otherwise(tmp_path):
    """The overlap on the card is a quarter of the patch unless the file gives another one."""
    assert settings(tmp_path).card_overlap == (2, 4, 4)
    assert settings(tmp_path, overlap=None).card_overlap == (2, 4, 4)
    assert settings(tmp_path, overlap=None, patch_shape=(1, 16, 20)).card_overlap == (0, 4, 5)
