"""A table of confidences is read line by line, and each predicted object needs one."""

import numpy as np
import pytest

from pipeline.errors import VolumeError
from pipeline.evaluation.confidences import Confidences


def test_a_table_gives_each_id_its_number(tmp_path):
    """Commas or spaces part the columns, comments and empty lines are left out, and ids may have 64 bits."""
    (tmp_path / "table.txt").write_text(f"# id, confidence\n7, 0.5\n\n{2**64 - 2} 1e-3  # unsure\n")
    table = Confidences.load(tmp_path / "table.txt")
    assert table(np.array([2**64 - 2, 7], np.uint64)).tolist() == [0.001, 0.5]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1, 2\nx, 3", r"line 2 is 'x, 3'; it must be an id and a finite number"),
        ("1, nan", r"line 1 is '1, nan'"),
        ("1 2 3", r"line 1 is '1 2 3'"),
        ("-1 2", r"line 1 is '-1 2'"),
        ("4 1\n4 2", r"line 2: id 4 stands there twice"),
    ],
)
def test_a_line_that_means_nothing_is_refused(tmp_path, text, message):
    (tmp_path / "table.txt").write_text(text)
    with pytest.raises(VolumeError, match=message):
        Confidences.load(tmp_path / "table.txt")


def test_an_object_without_a_confidence_is_refused(tmp_path):
    with pytest.raises(VolumeError, match=r"no confidence of 1 of 2 predicted objects, such as 9;"):
        Confidences.parse(["4 0.1"], "table")(np.array([4, 9], np.uint64))
    with pytest.raises(VolumeError, match=r"none\.txt does not exist"):
        Confidences.load(tmp_path / "none.txt")
