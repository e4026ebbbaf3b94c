"""Each package imports only what the drawing in CONTRIBUTING.md allows."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {
    "torch",
    "distributed",
    "dask",
    "zarr",
    "cloudvolume",
    "luigi",
    "typer",
    "rich",
    "numba",
    "skimage",
    "matplotlib",
    "obstore",
    "prometheus_client",
    "botocore",
    "transformers",
    "lightning",
    "monai",
}

INSIDE = {
    "errors": set(),
    "geometry": {"errors"},
    "grid": {"errors", "geometry"},
    "config": {"errors", "geometry"},
    "storage": {"errors"},
    "clusters": {"errors", "config", "storage"},
    "volumes": {"errors", "geometry", "grid", "storage", "config"},
    "segmentation": {"errors", "geometry"},
    "synthetic": {"errors", "geometry", "config", "volumes"},
    "evaluation": {"errors", "geometry", "grid", "segmentation", "storage", "volumes"},
    "models": {"errors", "geometry", "config", "storage"},
    "training": {"errors", "geometry", "config", "models", "volumes", "evaluation", "synthetic"},
    "inference": {"errors", "geometry", "grid", "config", "models"},
    "needs": set(),
    "execution": {"errors", "geometry", "grid", "needs", "config", "stages", "ledger", "storage", "clusters"},
    "ledger": {"errors", "geometry", "grid", "stages", "storage"},
    "stages": {
        *("errors", "geometry", "grid", "config", "storage", "volumes", "segmentation", "models", "inference"),
        *("evaluation", "needs"),
    },
}
"""Package or module of ``pipeline`` -> the others that it may import. ``runs`` and ``experiments`` may import all."""

OUTSIDE = {
    "torch": {"models", "training", "inference", "experiments"},
    "transformers": {"models"},
    "lightning": {"training"},
    "monai": {"training"},
    "distributed": {"execution", "clusters"},
    "dask_jobqueue": {"clusters"},
    "kubernetes": {"clusters"},
    "zarr": {"volumes"},
    "cloudvolume": {"volumes"},
    "obstore": {"storage"},
    "botocore": {"storage"},
    "numba": {"segmentation"},
    "skimage": {"evaluation", "synthetic", "training"},
    "luigi": set(),
    "typer": set(),
    "rich": set(),
}
"""Library -> the packages of ``pipeline`` that may import it."""


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def place(path):
    return path.relative_to(ROOT / "pipeline").with_suffix("").parts[0]


SOURCES = sorted((ROOT / "pipeline").rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_follow_the_drawing(path):
    """Each package imports only packages below it, so that it can be understood without those above it."""
    here = place(path)
    for module in imports(path):
        top, _, rest = module.partition(".")
        assert top != "workflows", f"{path} imports {module}: the library must not know its entry points"
        if top == "pipeline" and rest and here in INSIDE:
            other = rest.split(".")[0]
            assert other == here or other in INSIDE[here], f"{path} imports pipeline.{other}"
        if top in OUTSIDE:
            assert here in OUTSIDE[top], f"{path} imports {top}"


def test_chunks_meet_dask_in_one_file_only():
    users = {place(path): path.name for path in SOURCES if any(m.split(".")[0] == "distributed" for m in imports(path))}
    assert set(users) <= {"execution", "clusters"}
    in_execution = {path.name for path in (ROOT / "pipeline" / "execution").glob("*.py") if "distributed" in tops(path)}
    assert in_execution == {"dask.py", "local_cluster.py"}, "the one submits chunks, the other starts processes"


def tops(path):
    return {module.split(".")[0] for module in imports(path)}


def test_luigi_lives_only_in_workflows():
    users = [p for p in (ROOT / "workflows").rglob("*.py") if any(m.split(".")[0] == "luigi" for m in imports(p))]
    assert users


def test_prometheus_is_known_in_one_file_only():
    """Only ``metrics.py`` imports the Prometheus client, so that runs without metrics do not load it."""
    everywhere = [*SOURCES, *(ROOT / "workflows").rglob("*.py")]
    users = {path.name for path in everywhere if any(m.startswith("prometheus") for m in imports(path))}
    assert users == {"metrics.py"}


TERMINAL = {"typer", "rich"}
LIGHT = {
    "pipeline": set(),
    "pipeline.config.run_file": set(),
    "pipeline.grid": set(),
    "pipeline.volumes": set(),
    "pipeline.runs.status": set(),
    "workflows.cli": TERMINAL,
    "workflows.terminal.watch": TERMINAL,
}
"""Module -> the heavy libraries that it may load."""


@pytest.mark.parametrize("module", LIGHT)
def test_importing_is_light(module):
    """``petaseg --help`` and ``petaseg status`` load no heavy library, so that they answer at once."""
    allowed = LIGHT[module]
    code = f"import sys, {module}; print(*(m for m in {sorted(HEAVY)!r} if m in sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert set(loaded) <= allowed
