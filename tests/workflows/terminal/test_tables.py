"""The progress bars that people see while a command works, and the tables after it."""

from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from pipeline.errors import ConfigError
from pipeline.stages import opened
from tests.runs import affinity_run, write_volume
from workflows.driver import segment
from workflows.terminal import tables as display
from workflows.terminal.report import report_table


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


def test_speed_is_that_of_the_chunks_of_this_driver(tmp_path, capsys):
    """A stage whose chunks were all kept is done before; of others only the chunks of this driver count."""
    session = segment(str(affinity_run(tmp_path)))
    assert session.voxels["relabel"] == 20 * 24 * 28
    session.seconds["relabel"] = session.seconds["write_supervoxels"] = 2.0
    session.voxels["relabel"] = 10 * 12 * 14
    del session.voxels["write_supervoxels"]
    display.run_table(session)
    rows = {line.split()[1]: line for line in capsys.readouterr().out.splitlines() if line.startswith("│")}
    assert " 840 " in rows["relabel"]
    assert "done before" in rows["write_supervoxels"]


def test_the_best_threshold_has_a_command_until_it_is_in_use(tmp_path, capsys):
    """Once the labels have the best threshold, no command is named that would change nothing."""
    truth = np.repeat([1, 2], 10).astype(np.uint64)[:, None, None] * np.ones((1, 24, 28), np.uint64)
    overrides = [f"evaluation.labels={write_volume(tmp_path / 'truth.zarr', truth)}"]
    file = str(affinity_run(tmp_path))
    best = f"{segment(file, overrides, report=True).report.best.threshold:.3g}"
    for threshold, told in (("0.9999", f"--threshold {best})"), (best, "(in use)")):
        opened.forget()
        session = segment(file, [*overrides, f"segmentation.threshold={threshold}"], report=True)
        report_table(session.run, session.report)
        said = capsys.readouterr().out
        assert f"best threshold    {best}: VOI" in said
        assert told in said
