"""A real terminal for tests: the command is its foreground group, and Ctrl-C reaches every process of that group."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

GATED = Path(__file__).with_name("gated")
ROOT = GATED.parents[2]
WAIT = 300.0
"""Long enough for a loaded machine; no test depends on it."""
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass
class Terminal:
    """A command in a terminal."""

    process: subprocess.Popen[bytes]
    screen: int
    """The file descriptor of the user's side."""
    printed: bytearray = field(default_factory=bytearray)

    @property
    def text(self) -> str:
        """All that was printed, on one line and without colours."""
        return " ".join(CONTROL.sub("", self.printed.decode(errors="replace")).split())

    def press_ctrl_c(self) -> None:
        """Press it once."""
        os.write(self.screen, b"\x03")

    def wait_for(self, text: str) -> None:
        """Wait until a text stands on the screen."""
        wait_until(lambda: text in self.text, lambda: f"{text!r} is not in: {self.text}")

    def end(self) -> int:
        """Wait until the command has ended, and return its status."""
        status = self.process.wait(WAIT)
        time.sleep(0.2)  # what it printed last is on its way
        return status

    def read(self) -> None:
        """Take what is printed, until the command and all of its processes have ended."""
        while True:
            try:
                self.printed += os.read(self.screen, 65536)
            except OSError:
                return


def wait_until(true: Callable[[], object], otherwise: Callable[[], str] = lambda: "it has not come true") -> None:
    """Wait until something is true."""
    end = time.monotonic() + WAIT
    while not true():
        assert time.monotonic() < end, otherwise()
        time.sleep(0.02)


@contextmanager
def terminal(*arguments: object, gate: Path | None = None) -> Iterator[Terminal]:
    """``petaseg`` in a terminal of its own. With ``gate``, chunks wait as ``gated/sitecustomize.py`` says."""
    screen, inner = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "200"}
    if gate is not None:
        environment |= {"PYTHONPATH": f"{GATED}:{ROOT}", "PETASEG_TEST_GATE": str(gate)}
    process = subprocess.Popen(
        [sys.executable, "-m", "workflows.cli", *map(str, arguments)],
        stdin=inner,
        stdout=inner,
        stderr=inner,
        env=environment,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(inner)
    opened = Terminal(process, screen)
    reader = threading.Thread(target=opened.read, daemon=True)
    reader.start()
    try:
        yield opened
    finally:
        for left in family(process.pid):
            left.kill()
        process.wait()
        reader.join(5)
        os.close(screen)


def family(session: int) -> list[psutil.Process]:
    """The processes of a session that live, as far as this user may see them."""
    return [process for process in psutil.process_iter() if _session(process.pid) == session and _lives(process)]


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return -1


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
