"""Every command that a message prints works as it is printed: it names the same run, with its overrides."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from pipeline.clusters.base import DRIVER_RECORD, DriverJob
from pipeline.errors import ConfigError
from pipeline.runs.hints import command, continuation
from pipeline.runs.launch import RunPlace, cancel, submit
from pipeline.runs.outline import read_outline
from pipeline.runs.run import Run
from pipeline.runs.status import find_run_directory
from pipeline.storage import ObjectStore
from tests.object_runs import SEEDS, write
from tests.runs import petaseg, write_run, write_volume
from workflows.commands import submit as commands
from workflows.events.run_log import stored_lines

ELSEWHERE = "run_directory=another run"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    source = write_volume(tmp_path / "affinities.zarr", np.full((3, 8, 8, 8), 200, np.uint8))
    chunks = {"chunk_shape": [8, 8, 8], "storage_chunk_shape": [8, 8, 8]}
    return write_run(tmp_path, input={"affinities": source}, **chunks)


def named(text: str) -> list[Path]:
    """The run directories that the printed commands name, as a shell and petaseg read them."""
    found = []
    for printed in re.findall(r"petaseg (?:run|status|logs|cancel|submit|plan|verify|relabel) [^`\n]*", text):
        words = shlex.split(printed.partition("   ")[0])
        sets = [words[n + 1] for n, word in enumerate(words) if word == "--set"]
        found.append(find_run_directory(words[2], sets).local_path)
    return found


def test_the_command_that_continues_a_run_is_one_function() -> None:
    assert continuation("run.yaml", ["a=1"]) == "petaseg run run.yaml --set a=1"
    assert continuation("run.yaml", ["a=1"], "slurm") == "petaseg submit run.yaml --set a=1 --on slurm"
    assert command("status", "-x") == "petaseg status ./-x"


def test_what_submit_prints_names_the_run_with_its_overrides(file: Path, capsys, monkeypatch) -> None:
    """``--set run_directory=...`` is repeated in every command that submit prints."""
    monkeypatch.setattr("pipeline.runs.launch.submit", lambda *_, **__: DriverJob("slurm", "7"))
    commands.submit(str(file), on="slurm", set_=[ELSEWHERE], setup=None, overwrite=False, dry_run=False)
    assert named(capsys.readouterr().out) == [file.parent / "another run"] * 4


def test_what_cancel_and_logs_say_names_the_run_with_its_overrides(file: Path) -> None:
    place = RunPlace(find_run_directory(str(file), [ELSEWHERE]), str(file), (ELSEWHERE,))
    with pytest.raises(ConfigError, match="no driver works on") as nobody:
        cancel(place)
    with pytest.raises(ConfigError, match="no log yet") as nothing:
        list(stored_lines(place))
    for error in (nobody, nothing):
        assert named(str(error.value)) == [file.parent / "another run"]


def test_after_a_cancel_on_a_cluster_the_cluster_is_named(file: Path, capsys, monkeypatch) -> None:
    """A submitted run is continued by submit, on the cluster where it was."""
    ObjectStore(file.parent / "another run").put(DRIVER_RECORD, DriverJob("slurm", "7").encode())
    monkeypatch.setattr("pipeline.runs.launch.cancel", lambda place: "slurm 7")
    commands.cancel(str(file), [ELSEWHERE])
    said = capsys.readouterr().out
    assert named(said) == [file.parent / "another run"]
    assert said.strip().endswith("--on slurm")


def test_a_run_directory_says_how_to_go_on_from_any_folder(file: Path, monkeypatch) -> None:
    """The command in a run directory names the run file by its whole path, and the cluster if there is one."""
    monkeypatch.chdir(file.parent)
    Run.open(file.name, [ELSEWHERE]).create()
    store = ObjectStore(file.parent / "another run")
    assert read_outline(store).command == f"petaseg run {file} --set 'run_directory=another run'"
    Run.open(file.name, [ELSEWHERE]).create("slurm")
    monkeypatch.chdir("/")
    again = read_outline(store).command
    assert again.endswith("--on slurm")
    assert named(again) == [file.parent / "another run"]


def test_a_refused_second_submission_names_the_first(file: Path, monkeypatch) -> None:
    from pipeline.errors import ClusterError

    class Alive:
        def state(self, _):
            from pipeline.clusters.base import JobState

            return JobState("running")

    run = Run.open(file, [ELSEWHERE])
    run.store.put(DRIVER_RECORD, DriverJob("slurm", "7").encode())
    monkeypatch.setattr("pipeline.runs.launch.make_cluster", lambda _: Alive())
    with pytest.raises(ClusterError, match="is alive") as refused:
        submit(run, Alive())
    assert named(str(refused.value)) == [file.parent / "another run"] * 2


def test_what_run_and_relabel_say_works_as_printed(file: Path) -> None:
    """A missing tree and a dry run name the next command, and it names the same run."""
    early = petaseg("relabel", file, "--threshold", "0.4", "--set", ELSEWHERE)
    assert named(early.stderr) == [file.parent / "another run"]
    dry = petaseg("run", file, "--dry-run", "--set", ELSEWHERE)
    assert named(dry.stdout) == [file.parent / "another run"]


def test_a_hint_of_relabel_repeats_an_override_that_is_a_table(tmp_path: Path) -> None:
    """Conditions on other heads are a table in one override; the printed command has it."""
    limits = "segmentation.seeds_within={contours: {below: 0.2}}"
    hint = Run.open(write(tmp_path, "objects", **SEEDS), [limits]).relabel_hint("--threshold", "0.6")
    assert shlex.split(hint)[3:] == ["--set", limits, "--threshold", "0.6"]
