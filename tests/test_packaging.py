"""The distribution owns its two generic import names, and ships what it needs."""

from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest

import pipeline
import workflows

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("package", ["pipeline", "workflows"])
def test_each_import_name_is_owned_by_one_distribution(package):
    """Would import somebody else's code under our name."""
    assert set(packages_distributions().get(package, ["petaseg"])) == {"petaseg"}


def test_the_packages_are_those_of_this_checkout():
    assert Path(pipeline.__file__).is_relative_to(ROOT)
    assert Path(workflows.__file__).is_relative_to(ROOT)


def test_the_command_is_installed():
    scripts = {entry.name: entry.value for entry in distribution("petaseg").entry_points}
    assert scripts["petaseg"] == "workflows.cli:main"
    assert distribution("petaseg").version == pipeline.__version__
