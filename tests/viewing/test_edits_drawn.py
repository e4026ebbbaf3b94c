"""Lines that a person draws in the viewer become edits."""

from __future__ import annotations

from pathlib import Path

from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.common.by import By

from pipeline.runs.edit_states import edits_of_state
from pipeline.storage import ObjectStore
from pipeline.viewing.layers import layers_of_run
from pipeline.viewing.server import ServedLayer, serving
from pipeline.viewing.state import store_state
from pipeline.viewing.viewer import _browser, open_viewer
from tests.runs import affinity_run, run
from workflows.commands.view import Look


def test_a_line_that_is_drawn_in_a_real_browser_is_a_merge(tmp_path: Path) -> None:
    """Ctrl-click twice in ``petaseg view --edit`` draws a merge; its points are the voxels under the mouse."""
    finished = run(affinity_run(tmp_path))
    layers = layers_of_run(finished)
    served = {layer.name: ServedLayer(layer.served, layer.properties, layer.folders) for layer in layers}
    with serving(served, 0) as server:
        look = Look(layout="xy", edit=True).state(finished, layers, server.url)
        with open_viewer(look) as viewer, _browser(viewer, (800, 600)) as browser:
            viewer.screenshot(size=(640, 480))
            panel = browser.driver.find_element(By.CSS_SELECTOR, ".neuroglancer-rendered-data-panel")
            for x in (-20, 30):
                actions = ActionChains(browser.driver).move_to_element_with_offset(panel, x, 0).pause(0.5)
                actions.key_down(Keys.CONTROL).click().key_up(Keys.CONTROL).pause(0.5).perform()
            browser.sync()
            state = viewer.state.to_json()
    store_state(ObjectStore(finished.home), state, server.url)
    (found,) = edits_of_state(f"{finished.home}/view.json", finished.layout.resolution_nm)
    (a,), (b,) = found.first, found.second
    assert found.kind == "merge"
    assert a[:2] == b[:2] == (10, 12)
    assert b[2] > a[2]
