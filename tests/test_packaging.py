"""The distribution owns its import names, two of them generic, and ships what it needs."""

import re
import sys
import tomllib
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest

import petaseg
import pipeline
import workflows
from tests.test_architecture import ABOVE, SOURCES, tops

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("package", ["petaseg", "pipeline", "workflows"])
def test_each_import_name_is_owned_by_one_distribution(package):
    """Each import name belongs to petaseg and to no other installed distribution."""
    assert set(packages_distributions().get(package, ["petaseg"])) == {"petaseg"}


def test_the_packages_are_those_of_this_checkout():
    assert all(Path(package.__file__).is_relative_to(ROOT) for package in (petaseg, pipeline, workflows))


def test_the_packages_of_this_checkout_are_shipped():
    """The wheel and the source distribution hold every package of the checkout."""
    built = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    assert set(built["wheel"]["packages"]) == packages
    assert {f"/{name}" for name in packages} <= set(built["sdist"]["include"])


def test_the_command_is_installed():
    scripts = {entry.name: entry.value for entry in distribution("petaseg").entry_points}
    assert scripts["petaseg"] == "workflows.cli:main"
    assert distribution("petaseg").version == pipeline.__version__


def normal(requirement):
    """The name of a distribution as package indexes compare it: ``cloud_volume>=12`` -> ``cloud-volume``."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


def test_every_library_that_is_imported_is_declared():
    """Every third-party library that the code imports is declared in pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lists = {"": project["dependencies"], **project["optional-dependencies"]}
    declared = {normal(each) for extra, found in lists.items() if extra != "dev" for each in found}
    imported = set().union(*map(tops, [*SOURCES, *ABOVE]))
    owners = packages_distributions()
    others = imported - set(sys.stdlib_module_names) - {"petaseg", "pipeline", "workflows"}
    undeclared = {name for name in others if not {normal(each) for each in owners[name]} & declared}
    assert undeclared == set()
