"""The notebook of the docs runs, and prints what its page shows."""

import re

import pytest

from tests.petaseg.notebook import PAGE, executed, read, texts

NUMBER = re.compile(r"(?<![\w.])\d[\d,]*(?:\.\d+)?")


def test_the_notebook_prints_what_its_page_shows(tmp_path):
    """Every cell runs, and shows the stored words and numbers, and a picture.

    Scores may differ by a twentieth: networks on other processors differ in the last bit of an affinity.
    """
    shown, found = texts(read()), texts(executed(read(), tmp_path))
    for before, now in zip(shown, found, strict=True):
        assert NUMBER.sub("#", now) == NUMBER.sub("#", before)
        assert _numbers(now) == pytest.approx(_numbers(before), rel=0.05)


def _numbers(text):
    return [float(number.replace(",", "")) for number in NUMBER.findall(text)]


def test_the_page_is_small_and_of_no_machine():
    """The stored page has every output, a picture, no error and no path of the machine that ran it, in 300 kB."""
    page, code = read(), [cell for cell in read().cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert {output.output_type for cell in code for output in cell.outputs} == {"stream", "execute_result"}
    assert any("image/png" in output.get("data", {}) for cell in code for output in cell.outputs)
    assert not re.search("/tmp|/home|/root|/work", "".join(texts(page)))
    assert PAGE.stat().st_size < 300_000
