"""The live page of a run, in a real browser."""

from __future__ import annotations

import json
import os
import time
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from selenium.webdriver import Chrome, ChromeOptions

from pipeline.geometry import BoundingBox, Vec
from pipeline.grid import ChunkGrid
from pipeline.ledger.ledger import Ledger
from pipeline.runs.outline import StageOutline, read_outline
from pipeline.runs.run import Run
from pipeline.runs.status import RunWatch
from pipeline.stages.base import ChunkReport
from pipeline.storage import ObjectStore
from pipeline.viewing.dashboard import Dashboard, map_of, read_state
from pipeline.viewing.loopback import answering
from pipeline.viewing.viewer import GPU_LESS
from tests.runs import affinity_run, petaseg, run


@pytest.fixture
def watch(tmp_path: Path) -> RunWatch:
    """A finished run with one chunk that was set aside."""
    finished: Run = run(affinity_run(tmp_path))
    stage = finished.stage("relabel")
    chunk = next(iter(stage.grids()[0]))
    ledger = finished.ledger(stage)
    ledger.begin()
    ledger.forget(chunk)
    ledger.record_failure(chunk, "OSError: <b>disk</b> is full", "Traceback of it", 3, final=True)
    ledger.close()
    outline = read_outline(finished.store)
    assert outline is not None
    return RunWatch(outline)


@pytest.fixture
def browser() -> Iterator[Chrome]:
    """Debian's Chromium without a screen, which keeps a log of requests and of its console."""
    os.environ.setdefault("SE_OFFLINE", "true")
    options = ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for argument in ("--headless=new", *GPU_LESS):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = Chrome(options=options)
    yield driver
    driver.quit()


def requests_of(browser: Chrome) -> list[str]:
    """The addresses that the page asked for."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [message["params"] for message in messages if message["method"] == "Network.requestWillBeSent"]
    return [each["request"]["url"] for each in sent]


def test_the_page_shows_stages_map_and_failures(watch: RunWatch, browser: Chrome, tmp_path: Path) -> None:
    """The page has every stage, colours chunks that are done, names what failed, and asks no other host."""
    with answering(Dashboard(watch).find) as server:
        browser.get(f"{server.url}/")
        text = wait_for(browser, "1 failed")
        assert all(stage.name in text for stage in watch.outline.stages)
        assert "7 / 8" in text
        assert "chunk 0_0_0, 3 attempts: OSError: <b>disk</b> is full" in text
        picture: Any = browser.execute_script(
            "const c = document.getElementById('map');"
            "return Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data)"
        )
        pixels = np.reshape(picture, (-1, 4))
        assert ((pixels[:, 1] > pixels[:, 0] + 50) & (pixels[:, 3] > 100)).sum() > 10_000
        assert all(url.startswith((server.url, "data:")) for url in requests_of(browser))
    assert [entry for entry in browser.get_log("browser") if "ERR_CONNECTION" not in entry["message"]] == []


def wait_for(browser: Chrome, words: str) -> str:
    end = time.monotonic() + 60
    while words not in (text := browser.find_element("tag name", "body").text):
        assert time.monotonic() < end, text
        time.sleep(0.1)
    return text


def test_the_state_is_plain_json(watch: RunWatch) -> None:
    """What the page reads is JSON, with one map a stage, and the failure has its traceback."""
    state = json.loads(json.dumps(read_state(watch), allow_nan=False))
    relabel = next(stage for stage in state["stages"] if stage["name"] == "relabel")
    assert relabel["map"]["shape"] == [2, 2, 2]
    assert list(b64decode(relabel["map"]["done"])) == [0] + 7 * [255]
    assert relabel["failures"][0]["traceback"] == "Traceback of it"


def test_a_cell_stands_for_several_chunks_of_a_large_grid(tmp_path: Path) -> None:
    """In a grid of 130 chunks along x a cell is the mean of up to three."""
    box = BoundingBox(Vec(0, 0, 0), Vec(1, 1, 130))
    grid = ChunkGrid(box, box, Vec(1, 1, 1))
    ledger = Ledger(ObjectStore(tmp_path), "count", "f", [grid])
    ledger.begin()
    for x in range(4):
        ledger.record(report(grid, x, seconds=1.0 + x))
    ledger.close()
    found = map_of(StageOutline("count", "f", (grid,), 0, False), ledger)
    assert found["shape"] == [1, 1, 44]
    assert list(b64decode(found["done"]))[:3] == [255, 85, 0]
    assert list(np.frombuffer(b64decode(found["seconds"]), "<f4"))[:3] == [2.0, 4.0, 0.0]


def report(grid: ChunkGrid, x: int, seconds: float) -> ChunkReport:
    chunk = grid.chunk((0, 0, x))
    return ChunkReport(0, chunk.index, "00" * 16, seconds, voxels=1, bytes_written=1)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    done = petaseg("dashboard", tmp_path, "--no-browser")
    assert done.returncode == 1
    assert "is no run directory" in done.stderr
