"""The state of a run whose labels `petaseg relabel` has begun to replace."""

from pathlib import Path

import pytest

from pipeline.execution.runner import Event, StageStarted
from tests.runs import affinity_run, petaseg, run
from workflows.commands.relabel import remember
from workflows.driver import segment


def interrupt_before_relabel(event: Event) -> None:
    """Ctrl-C when the labels are to be written."""
    if isinstance(event, StageStarted) and event.stage == "relabel":
        raise KeyboardInterrupt


def test_an_interrupted_relabel_is_called_so_with_the_command_that_goes_on(tmp_path: Path) -> None:
    """Until a relabel is complete, status names the stages that hold what was before, and the next command."""
    file = affinity_run(tmp_path)
    run(file)
    remember(str(file), ["segmentation.threshold=0.9"])
    with pytest.raises(KeyboardInterrupt):
        segment(str(file), ["segmentation.threshold=0.9"], listener=interrupt_before_relabel)
    shown = petaseg("status", file)
    expected = f"petaseg relabel was interrupted: relabel of before its threshold; go on with: petaseg run {file}"
    assert expected in shown.stdout
    assert "another configuration" not in shown.stdout
    assert petaseg("run", file, "--quiet").returncode == 0
    assert "relabel was" not in petaseg("status", file).stdout
