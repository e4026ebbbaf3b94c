"""The Dockerfiles, checked instruction by instruction. No engine builds images here; a shell runs the RUN lines."""

from __future__ import annotations

import json
import os
import re
import shutil
import site
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pytest

import pipeline
from pipeline.segmentation.compiled import SHIPPED

ROOT = Path(__file__).resolve().parents[2]
FILES = [ROOT / "deploy" / "docker" / name for name in ("Dockerfile", "Dockerfile.cuda")]
PACKAGES = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
KNOWN = {"FROM", "ENV", "ARG", "WORKDIR", "COPY", "RUN", "USER", "ENTRYPOINT", "CMD"}


@dataclass(frozen=True)
class Instruction:
    name: str
    text: str


def parse(file: Path) -> list[list[Instruction]]:
    """The stages of a Dockerfile, each a list of instructions that begins with FROM."""
    lines = [line for line in file.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")]
    stages: list[list[Instruction]] = []
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        name, _, text = line.partition(" ")
        if name == "FROM":
            stages.append([])
        stages[-1].append(Instruction(name, text.strip()))
    return stages


def texts(stage: list[Instruction], name: str) -> list[str]:
    return [instruction.text for instruction in stage if instruction.name == name]


def copied(stage: list[Instruction]) -> list[tuple[list[str], str]]:
    """The files copied from the project, and their destinations."""
    pairs = [text.split() for text in texts(stage, "COPY") if not text.startswith("--from=")]
    return [(words[:-1], words[-1]) for words in pairs]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_instruction_is_known_and_every_base_is_pinned(file: Path) -> None:
    stages = parse(file)
    names = {text.split(" AS ")[1] for stage in stages for text in texts(stage, "FROM") if " AS " in text}
    assert {instruction.name for stage in stages for instruction in stage} <= KNOWN
    for stage in stages:
        assert re.fullmatch(r"python:3\.11-slim-bookworm( AS \w+)?", stage[0].text)
        assert not [text for text in texts(stage, "ARG") if re.search("token|secret|password|key", text, re.IGNORECASE)]
        for text in texts(stage, "COPY"):
            assert not text.startswith("--from=") or text.split()[0].removeprefix("--from=") in names


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_copied_file_exists_and_reaches_the_build(file: Path) -> None:
    """Every file that a Dockerfile copies exists in the project and is not hidden by .dockerignore."""
    first, *others = file.with_name(f"{file.name}.dockerignore").read_text().split()
    assert first == "*"
    allowed = [line.removeprefix("!") for line in others if line.startswith("!")]
    sources = [source for stage in parse(file) for group, _ in copied(stage) for source in group]
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert any(fnmatch(source, pattern) for pattern in allowed), f".dockerignore hides {source}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_image_runs_petaseg_as_a_user_without_rights(file: Path) -> None:
    final = parse(file)[-1]
    (user,) = texts(final, "USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user), "Kubernetes can only check a number for runAsNonRoot"
    assert "RUN" not in {instruction.name for instruction in final[[i.name for i in final].index("USER") :]}
    variables = dict(pair.split("=", 1) for text in texts(final, "ENV") for pair in text.split())
    assert variables["PYTHONSAFEPATH"] == "1"
    assert variables["PATH"].startswith("/opt/petaseg/bin:"), "python must be the one with petaseg"
    assert all(variables[name].startswith("/tmp") for name in ("HOME", "NUMBA_CACHE_DIR", "MPLCONFIGDIR"))
    assert variables[SHIPPED] == "/opt/petaseg/kernels", "where the build stage compiled the kernels"
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert json.loads(texts(final, "ENTRYPOINT")[0])[0] in scripts


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_its_commands_install_petaseg_from_what_was_copied(file: Path, tmp_path: Path) -> None:
    """The RUN lines, run by a shell on the copied files, install petaseg; this environment provides the libraries."""
    build = parse(file)[0]
    source, target = tmp_path / "source", tmp_path / "petaseg"
    for group, _ in copied(build):
        for name in group:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            copy(ROOT / name, source / name)
    path = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for line in texts(build, "RUN"):
        if "--index-url" in line:
            requirement = line.split('"$TORCH_INDEX" ')[1]
            said = subprocess.run(["sh", "-ec", f"echo {requirement}"], cwd=source, capture_output=True, text=True)
            assert re.fullmatch(r"torch==[\d.]+", said.stdout.strip()), "the CPU build is that of constraints.txt"
            continue
        here = line.replace("/opt/petaseg", str(target)).replace("pip install", "pip install -q --no-deps")
        libraries = site.getsitepackages() if "warm_up" in line else []
        env = {**path, "PYTHONPATH": os.pathsep.join([str(target / PACKAGES), *libraries])}
        done = subprocess.run(["sh", "-ec", here], cwd=source, capture_output=True, text=True, env=env)
        assert done.returncode == 0, done.stdout + done.stderr
    assert list((target / "kernels").rglob("*.nbc")), "the image carries no machine code"
    libraries = {**os.environ, "PYTHONPATH": os.pathsep.join(site.getsitepackages()), "PYTHONSAFEPATH": "1"}
    said = subprocess.run([target / "bin" / "petaseg", "--version"], capture_output=True, text=True, env=libraries)
    assert said.stdout == f"petaseg {pipeline.__version__}\n", said.stderr
    where = [target / "bin" / "python", "-c", "import workflows; print(workflows.__file__)"]
    assert subprocess.run(where, capture_output=True, text=True, env=libraries).stdout.startswith(str(target))
