import os
import pty
import subprocess
import sys

import pytest


@pytest.mark.parametrize("command", ["status", "run", "relabel"])
def test_a_terminal_shows_first_what_is_opened(tmp_path, command):
    """On a terminal the first line names the run; without a terminal there is no such line."""
    ours, theirs = pty.openpty()
    words = [sys.executable, "-m", "workflows.cli", command, str(tmp_path / "none.yaml")]
    subprocess.run(words, stderr=theirs, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    os.close(theirs)
    with os.fdopen(ours, "rb") as terminal:
        assert b"opening" in terminal.readline()
    piped = subprocess.run(words, capture_output=True, text=True)
    assert piped.returncode == 1
    assert "opening" not in piped.stderr
