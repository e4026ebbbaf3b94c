import numpy as np
import pytest
from matplotlib.image import imread, imsave

from pipeline.errors import CorruptError
from pipeline.evaluation.png_text import has_text, with_text


def test_a_picture_with_a_text_is_the_same_picture(tmp_path):
    """Other programs read the picture as before, and only its own text is found in it."""
    file = tmp_path / "picture.png"
    imsave(file, np.random.default_rng(1).random((5, 7, 3)))
    before, plain = imread(file), file.read_bytes()
    file.write_bytes(with_text(plain, "state 1"))
    assert (imread(file) == before).all()
    assert has_text(file.read_bytes(), "state 1")
    assert not has_text(file.read_bytes(), "state 2")
    assert not has_text(file.read_bytes()[:-1], "state 1")
    assert not has_text(plain, "state 1")
    assert not has_text(None, "state 1")


def test_what_is_no_whole_picture_gets_no_text():
    with pytest.raises(CorruptError, match="draw the picture again"):
        with_text(b"\x89PNG", "state 1")
