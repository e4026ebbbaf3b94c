"""Neuroglancer on this machine, with layers of this process; the client comes with the ``neuroglancer`` package.

Nothing is loaded from the internet, and nothing but the loopback address listens.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.evaluation.files import whole_file

SECONDS = 120.0
"""So long a picture waits for its data."""
EXTRA = "pip install 'petaseg[view]'"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
GPU_LESS = ("--enable-unsafe-swiftshader", "--no-sandbox", "--disable-dev-shm-usage")
"""WebGL by the processor: a machine without a screen seldom has a GPU. The browser reads nothing but this server."""


@contextmanager
def open_viewer(state: dict[str, Any]) -> Iterator[Any]:
    """A viewer in this state while the block runs: ``str(viewer)`` is its address, ``viewer.state`` what it shows now.

    Raises ``ConfigError`` if the package is not installed.
    """
    neuroglancer = _package()
    neuroglancer.set_server_bind_address("127.0.0.1", 0)
    viewer = neuroglancer.Viewer()
    viewer.set_state(state)
    try:
        yield viewer
    finally:
        neuroglancer.stop()


def _package() -> Any:
    try:
        import neuroglancer
    except ImportError as error:
        raise ConfigError(f"the viewer needs the package neuroglancer, which is not there: {EXTRA}") from error
    return neuroglancer


def take_screenshot(viewer: Any, path: Path, size: tuple[int, int]) -> bool:
    """Draw what the viewer shows into a PNG of width x height pixels; False if something has not arrived in time.

    Raises ``ConfigError`` without a browser or the package that drives it.
    """
    with _browser(viewer, size) as browser:
        found: list[bytes] = []
        drawing = threading.Thread(target=lambda: found.append(_drawn(viewer, size)), daemon=True)
        drawing.start()
        drawing.join(SECONDS)
        picture = found[0] if found else browser.driver.get_screenshot_as_png()
    with whole_file(path) as temporary:
        temporary.write_bytes(picture)
    return bool(found)


def _drawn(viewer: Any, size: tuple[int, int]) -> bytes:
    """The picture, once all data have arrived: for ever, if a selected segment has no mesh."""
    picture: bytes = viewer.screenshot(size=size).screenshot.image
    return picture


@contextmanager
def _browser(viewer: Any, size: tuple[int, int]) -> Iterator[Any]:
    os.environ.setdefault("SE_OFFLINE", "true")  # selenium would look for a driver on the internet
    binary = next(filter(None, map(shutil.which, BROWSERS)), None)
    if binary is None:
        raise ConfigError(
            f"--screenshot draws with a browser, and none of {', '.join(BROWSERS)} is installed; on Debian: apt-get "
            "install chromium chromium-driver"
        )
    try:
        from neuroglancer.webdriver import Webdriver
        from selenium.common.exceptions import WebDriverException
    except ImportError as error:
        raise ConfigError(f"--screenshot needs the package selenium, which is not there: {EXTRA}") from error
    try:
        driver = Webdriver(
            viewer,
            headless=True,
            browser_binary_path=binary,
            window_size=size,
            print_logs=False,
            extra_command_line_args=GPU_LESS,
        )
    except WebDriverException as error:
        raise ConfigError(
            f"{binary} cannot be driven ({str(error).strip().splitlines()[0]}); on Debian: apt-get install "
            "chromium-driver"
        ) from error
    with driver:
        yield driver
