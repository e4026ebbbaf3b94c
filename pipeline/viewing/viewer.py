"""Neuroglancer on this machine, with layers of this process; the client comes with the ``neuroglancer`` package.

Nothing is loaded from the internet, and nothing but the loopback address listens.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, PetasegError

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


def take_screenshot(viewer: Any, path: Path, size: tuple[int, int]) -> None:
    """Draw what the viewer shows, once all its data have arrived, into a PNG of width x height pixels.

    Raises ``ConfigError`` without a browser or the package that drives it, ``PetasegError`` if it draws nothing.
    """
    with _browser(viewer, size):
        try:
            reply = viewer.screenshot(size=size, statistics_callback=None)
        except Exception as error:  # whatever the browser raises
            raise PetasegError(f"the browser drew nothing ({type(error).__name__}: {error}); try again") from error
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(reply.screenshot.image)
    part.replace(path)


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
