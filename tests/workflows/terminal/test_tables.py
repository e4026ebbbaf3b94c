"""The progress bars that people see while a command works."""

from io import StringIO

import pytest
from rich.console import Console

from pipeline.errors import ConfigError
from workflows.terminal import tables as display


@pytest.mark.parametrize(("steps", "shown"), [(0, False), (2, True)])
def test_a_refusal_is_not_hidden_behind_an_empty_bar(monkeypatch, steps, shown):
    """A command that is refused before its first step shows no progress bar."""
    seen = StringIO()
    monkeypatch.setattr(display, "progress_console", Console(file=seen, width=100))
    with pytest.raises(ConfigError):
        refused_after(steps)
    assert ("train" in seen.getvalue()) is shown


def refused_after(steps):
    """Run a command that ends with an error after some steps."""
    with display.bar("train") as advance:
        for done in range(steps):
            advance(done + 1, 3)
        raise ConfigError("refused")
