"""``petaseg report``: one page that needs no other file."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from pipeline.runs.run import Run
from pipeline.stages import opened
from pipeline.volumes import open_volume
from tests.runs import affinity_run, petaseg, run, write_run, write_volume
from tests.viewing.test_dashboard import browser, requests_of

__all__ = ["browser"]


@pytest.fixture
def finished(tmp_path: Path) -> Run:
    """A finished run with ground truth and a name that HTML could take for markup."""
    given = {"affinities": write_volume(tmp_path / "<b>a</b>.zarr", blocks())}
    objects = np.repeat(np.arange(1, 25, dtype=np.uint64), 24 * 28).reshape(24, 24, 28)
    truth = write_volume(tmp_path / "truth.zarr", objects)
    shapes = {"chunk_shape": [12, 12, 14], "storage_chunk_shape": [12, 12, 14]}
    return run(write_run(tmp_path, input=given, evaluation={"labels": truth}, **shapes))


def blocks() -> np.ndarray:
    """Affinities of tissue with walls every eight voxels along x, (3, 24, 24, 28) uint8."""
    found = np.full((3, 24, 24, 28), 250, np.uint8)
    found[2, :, :, ::8] = 5
    return found


def test_the_page_needs_no_other_file(finished: Run, browser) -> None:
    """All sections and pictures are inside, the console is empty, and no host is asked for anything."""
    done = petaseg("report", finished.url, "--strict")
    assert done.returncode == 0, done.stderr
    page = Path(finished.url) / "report" / "report.html"
    assert str(page) in done.stdout.replace("\n", "")
    browser.get(page.as_uri())
    text = browser.find_element("tag name", "body").text
    for words in (
        "The result",
        "Scores",
        "Seams between chunks",
        "no seam",
        "Sizes",
        "Stages",
        "What was run",
        "<b>a</b>",
    ):
        assert words in text
    sizes = browser.execute_script("return [...document.images].map(i => i.naturalWidth)")
    assert len(sizes) == 4
    assert min(sizes) > 300
    assert f"petaseg add {finished.url} meshes" in text
    assert [url for url in requests_of(browser) if not url.startswith(("data:", "file:"))] == []
    assert browser.get_log("browser") == []


def test_a_seam_fails_a_strict_report(finished: Run) -> None:
    """A chunk with other labels is named with its faces, and ends a strict report with status 1."""
    volume = open_volume(finished.result_url, mode="r+")
    core = next(iter(finished.layout.grid())).core
    volume.write(core, volume.read(core) + 10**6)
    opened.forget()
    assert petaseg("report", finished.url).returncode == 0
    done = petaseg("report", finished.url, "--strict")
    assert done.returncode == 1
    assert re.search(r"seam: labels at [zyx] = \d+ at .* agreement off by", done.stdout.replace("\n", " "))


def test_an_unfinished_run_has_no_report(tmp_path: Path) -> None:
    """The command that finishes the run is named."""
    done = petaseg("report", affinity_run(tmp_path))
    assert done.returncode == 1
    assert "has no finished" in done.stderr.replace("\n", " ")
    assert "petaseg run" in done.stderr.replace("\n", " ")


def test_the_report_is_a_result_of_the_run(finished: Run) -> None:
    """A run of another input replaces the report with the other results, so that none of a wrong run stays."""
    assert petaseg("report", finished.url).returncode == 0
    other = write_volume(Path(finished.url).parent / "other.zarr", 255 - blocks())
    file = Path(finished.url).parent / "run.yaml"
    replaced = petaseg(
        "run", file, "--set", f"input.affinities={other}", "--overwrite", "--set", "evaluation.labels=null"
    )
    assert replaced.returncode == 0, replaced.stderr
    assert not (Path(finished.url) / "report" / "report.html").exists()
    assert json.loads((Path(finished.url) / "report" / "summary.json").read_text())


def test_the_largest_are_drawn_from_their_meshes(finished: Run) -> None:
    """Once the run has meshes, the page shows the largest in 3D instead of the way to get meshes."""
    assert petaseg("add", finished.url, "meshes", "--set", "meshes.smallest_voxels=10").returncode == 0
    assert petaseg("report", finished.url).returncode == 0
    page = (Path(finished.url) / "report" / "report.html").read_text()
    assert page.count("data:image/png") == 5
    assert "add meshes" not in page
