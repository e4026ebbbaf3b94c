"""The fault soak: 200 seeded runs that are killed, starved of disk space and resumed, all byte-identical."""

import subprocess
import sys

import pytest

from tests.soak import __main__ as command
from tests.soak.run import BrokenPromiseError

RUNS, PART = 200, 20


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1, RUNS + 1, PART))
def test_whatever_dies_and_whenever_the_bytes_are_the_same(first, tmp_path):
    """Runs that are killed, starved of disk space and resumed give the bytes of an undisturbed run."""
    soak = [sys.executable, "-m", "tests.soak", "--runs", str(PART), "--seed", str(first), "--folder", str(tmp_path)]
    done = subprocess.run(soak, capture_output=True, text=True)
    if done.returncode:
        pytest.fail(done.stdout + done.stderr, pytrace=False)
    assert f"{PART} of {PART} runs are byte-identical" in done.stdout


def test_the_command_prints_how_a_failure_is_replayed(monkeypatch, capsys, tmp_path):
    """The command prints the failed seed and the command that replays it."""

    def broken(plan, references, folder, tell):
        if plan.seed == 5:
            raise BrokenPromiseError("labels differ")
        return ["complete"]

    monkeypatch.setattr(command, "soak", broken)
    monkeypatch.setattr(command, "References", lambda folder: type("Nothing", (), {"folder": folder}))
    assert command.main(["--runs", "3", "--seed", "4", "--folder", str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert "2 of 3 runs are byte-identical" in printed
    assert "failed: seed 5; again with: python -m tests.soak --runs 1 --seed 5 --verbose" in printed
