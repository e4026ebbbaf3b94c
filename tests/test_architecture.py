"""Each package imports only what the drawing in CONTRIBUTING.md allows."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
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
    "pyarrow",
    "botocore",
    "transformers",
    "lightning",
    "monai",
}

INSIDE = {
    "errors": set(),
    "registry": {"errors"},
    "formats": {"errors"},
    "geometry": {"errors"},
    "grid": {"errors", "geometry"},
    "config": {"errors", "registry", "formats", "geometry"},
    "storage": {"errors"},
    "clusters": {"errors", "registry", "formats", "config", "storage"},
    "volumes": {"errors", "registry", "formats", "geometry", "grid", "storage", "config"},
    "segmentation": {"errors", "geometry"},
    "shapes": {"errors", "geometry", "segmentation"},
    "synthetic": {"errors", "registry", "geometry", "config", "volumes"},
    "evaluation": {"errors", "geometry", "grid", "segmentation", "storage", "volumes"},
    "models": {"errors", "registry", "formats", "geometry", "config", "storage"},
    "training": {
        *("errors", "registry", "formats", "geometry", "config", "storage", "clusters", "models", "volumes"),
        *("evaluation", "synthetic"),
    },
    "inference": {"errors", "geometry", "grid", "config", "models"},
    "needs": set(),
    "execution": {
        *("errors", "registry", "geometry", "grid", "needs", "config", "stages", "ledger", "storage", "clusters"),
    },
    "ledger": {"errors", "formats", "geometry", "grid", "stages", "storage"},
    "few_labels": {
        *("errors", "formats", "geometry", "grid", "config", "storage", "models", "volumes", "evaluation", "training"),
        *("segmentation", "stages", "runs"),
    },
    "handover": {
        *("errors", "registry", "geometry", "grid", "storage", "volumes", "segmentation", "shapes", "stages", "runs"),
    },
    "viewing": {
        *("errors", "formats", "geometry", "storage", "volumes", "segmentation", "evaluation", "ledger", "stages"),
        *("runs", "shapes", "suspects"),
    },
    "suspects": {
        *("errors", "registry", "formats", "geometry", "grid", "config", "storage", "volumes", "segmentation"),
        *("evaluation", "models", "stages", "runs", "shapes"),
    },
    "stages": {
        *("errors", "formats", "geometry", "grid", "config", "storage", "volumes", "segmentation", "models"),
        *("inference", "evaluation", "needs", "shapes"),
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
    "zmesh": {"shapes"},
    "DracoPy": {"shapes"},
    "pyarrow": {"shapes", "handover", "runs"},
    "skimage": {"evaluation", "stages", "synthetic", "training"},
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
ENTRIES = ("petaseg", "workflows")
"""The packages above the library: Python's, and that of the command line and of Luigi."""
ABOVE = sorted(path for name in ENTRIES for path in (ROOT / name).rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_follow_the_drawing(path):
    """Each package imports only packages below it, so that it can be understood without those above it."""
    here = place(path)
    for module in imports(path):
        top, _, rest = module.partition(".")
        assert top not in ENTRIES, f"{path} imports {module}: the library must not know its entry points"
        if top == "pipeline" and rest and here in INSIDE:
            other = rest.split(".")[0]
            assert other == here or other in INSIDE[here], f"{path} imports pipeline.{other}"
        if top in OUTSIDE:
            assert here in OUTSIDE[top], f"{path} imports {top}"


def test_the_floors_of_the_drawing_hold():
    """In CONTRIBUTING's drawing of floors, everything that a package may import stands below it."""
    page = (ROOT / "CONTRIBUTING.md").read_text()
    drawing = page.split("no two files import each other:")[1].split("##")[0]
    floors = [line.split() for line in drawing.splitlines() if line.startswith("    ")]
    height = {name: len(floors) - number for number, floor in enumerate(floors) for name in floor}
    everything = {place(path) for path in SOURCES if path.name != "__init__.py" or path.parent.name != "pipeline"}
    assert set(height) == everything | set(ENTRIES)
    assert height["petaseg"] > height["workflows"] > max(height[name] for name in everything)
    for name, allowed in INSIDE.items():
        assert all(height[other] < height[name] for other in allowed), name
    assert everything - set(INSIDE) == {"runs", "experiments"}


def test_no_files_import_each_other():
    """The files of the library and of the entry points import each other in no circle, however long."""
    files = [*SOURCES, *ABOVE]
    names = {dotted(path): path for path in files}
    arrows = {name: {target for target in targets(path, names)} - {name} for name, path in names.items()}
    assert tuple(TopologicalSorter(arrows).static_order())  # raises CycleError with the files of a circle


def dotted(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def targets(path, names):
    """The files that a file imports, by dotted name; a package's own file only if a name is taken from it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            modules = {f"{node.module}.{alias.name}" for alias in node.names}
            yield from modules & set(names)
            if modules - set(names) and node.module in names:
                yield node.module


def test_chunks_meet_dask_in_one_file_only():
    users = {place(path): path.name for path in SOURCES if any(m.split(".")[0] == "distributed" for m in imports(path))}
    assert set(users) <= {"execution", "clusters"}
    in_execution = {path.name for path in (ROOT / "pipeline" / "execution").glob("*.py") if "distributed" in tops(path)}
    files = {"dask.py", "batch.py", "local_cluster.py", "within_workers.py"}
    assert in_execution == files, "submitting, its worker's side, processes, and what workers tell meanwhile"


def tops(path):
    return {module.split(".")[0] for module in imports(path)}


def test_luigi_lives_only_in_workflows():
    users = {path.relative_to(ROOT).parts[0] for path in (*SOURCES, *ABOVE) if "luigi" in tops(path)}
    assert users == {"workflows"}


def test_the_command_line_does_not_know_the_python_package():
    """``petaseg`` imports ``workflows``, and never the other way round."""
    assert not any("petaseg" in tops(path) for path in (ROOT / "workflows").rglob("*.py"))


def test_prometheus_is_known_in_one_file_only():
    """Only ``metrics.py`` imports the Prometheus client, so that runs without metrics do not load it."""
    users = {path.name for path in (*SOURCES, *ABOVE) if any(m.startswith("prometheus") for m in imports(path))}
    assert users == {"metrics.py"}


TERMINAL = {"typer", "rich"}
LIGHT = {
    "petaseg": set(),
    "pipeline": set(),
    "pipeline.config.run_file": set(),
    "pipeline.grid": set(),
    "pipeline.volumes": set(),
    "pipeline.runs.status": set(),
    "workflows.cli": set(),
    "workflows.app": TERMINAL,
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
