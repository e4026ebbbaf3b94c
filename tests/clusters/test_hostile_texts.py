"""No text of a run file becomes a line, a word or a command of a job script, a manifest or a printed hint."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from pipeline.clusters.base import Submission, worker_shapes
from pipeline.clusters.kubernetes.cluster import KubernetesCluster
from pipeline.clusters.slurm import scripts
from pipeline.config.base import is_line
from pipeline.config.reading import parse_config, read_config
from pipeline.errors import ConfigError
from pipeline.runs.hints import command

MARK = "petaseg-was-here"
ATTACKS = (
    *(f"a\ntouch {MARK}\n#", f"$(touch {MARK})", f"`touch {MARK}`", f"'; touch {MARK}; '", f'"; touch {MARK}; "'),
    *(f"a\r\ntouch {MARK}", f"a\x0btouch {MARK}", f"a\x85touch {MARK}", f"a\u2028touch {MARK}", f"a & touch {MARK} &"),
    *(
        f"a | touch {MARK}",
        f"a # {MARK}",
        "%j %% %x",
        "a\0b",
        "{header} {0}",
        "${IFS}",
        "!x",
        "~root",
        "--wrap=id",
        "\\",
    ),
)
HOSTILE = st.one_of(
    st.sampled_from(ATTACKS),
    st.text(min_size=1, max_size=30),
    st.text(alphabet="\n\r\t\0 '\"`$();&|<>#%\\{}[]*?!~=-/a\x85\u2028\ud800", min_size=1, max_size=12),
)
KEYS = (
    *("run_directory", "cluster.queue", "cluster.account", "cluster.interface", "cluster.namespace", "cluster.image"),
    *("cluster.claim", "cluster.image_pull_secret", "cluster.driver.walltime", "cluster.workers.walltime"),
    *("cluster.workers.queue", "cluster.workers.options", "cluster.secrets", "cluster.workers.node_selector"),
    *("input.affinities", "evaluation.labels", "cluster.prices.currency", "execution.scheduler", "inference.gpu"),
)
SHAPES = {"cluster.workers.options": list, "cluster.secrets": list, "cluster.workers.node_selector": dict}


def submission(key: str, text: str) -> Submission:
    """A run whose run file has this text as a value of a key; ``ConfigError`` if it is refused."""
    data: dict[str, Any] = {
        "run_directory": "/data/run",
        "input": {"affinities": "/data/a.zarr"},
        "cluster": {"image": "petaseg:1", "claim": "em", "driver": {}, "workers": {}, "prices": {}},
    }
    *tables, leaf = key.split(".")
    place = data
    for table in tables:
        place = place.setdefault(table, {})
    kind = SHAPES.get(key)
    place[leaf] = [text] if kind is list else {"node": text} if kind is dict else text
    if key == "run_directory":
        place[leaf] = f"/data/{text}"
    config = parse_config(data)
    return Submission(config.run_directory, config)


def job_scripts(given: Submission) -> list[str]:
    """The scripts of a driver and of a worker."""
    shape = worker_shapes(given.config.cluster)["general"]
    worker = scripts.worker_script("general", shape, given, address="tls://n:1", worker="w", tls=None)
    return [scripts.driver_script(given), worker]


def skeleton(script: str) -> list[str]:
    """The first word of each line: what bash and sbatch would do."""
    return [line.split("=")[0].split(" ")[0] for line in script.splitlines()]


PLAIN = [skeleton(text) for text in job_scripts(submission("inference.gpu", "A100"))]


@pytest.mark.parametrize("key", KEYS)
@given(text=HOSTILE)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(text=ATTACKS[0])
def test_a_text_changes_no_line_of_a_job_script(key: str, text: str) -> None:
    """Each text is refused, or the scripts have the same lines as those of a harmless run file."""
    try:
        found = job_scripts(submission(key, text))
    except ConfigError:
        return
    for script, plain in zip(found, PLAIN, strict=True):
        added = [line for line in script.splitlines() if line.startswith(("#SBATCH --partition", "#SBATCH --account"))]
        assert len(script.splitlines()) - len(added) <= len(plain) + 1  # an option of sbatch
        assert all(line.startswith("#SBATCH ") for line in script.split("set -eo")[0].splitlines()[1:])


@pytest.mark.parametrize("text", [text for text in ATTACKS if is_line(text) and "\\" not in text])
def test_scripts_with_a_hostile_run_directory_run_nothing_of_it(text: str, tmp_path: Path) -> None:
    """The script of a driver is valid bash and, with every program replaced by nothing, leaves no file."""
    script = scripts.driver_script(submission("run_directory", text))
    checked = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True)
    assert (checked.returncode, checked.stderr) == (0, "")
    (line,) = (line for line in script.splitlines() if line.endswith(" &") and "workflows.cli" in line)
    shown = f"printf '%s\\n' {line.removesuffix(' &')}"
    said = subprocess.run(["bash", "-c", shown], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert f"/data/{text}" in said.stdout.splitlines()
    subprocess.run(["bash", "-c", script.split("set -u")[0]], cwd=tmp_path, check=True)
    assert list(tmp_path.iterdir()) == []


def test_slurm_refuses_what_its_log_names_cannot_hold() -> None:
    with pytest.raises(ConfigError, match="backslash"):
        job_scripts(submission("run_directory", "a\\b"))


@pytest.mark.parametrize("key", KEYS)
@given(text=HOSTILE)
@settings(max_examples=30, deadline=None)
def test_manifests_hold_a_text_as_it_is_or_refuse_it(key: str, text: str) -> None:
    """What the API server reads is the same run file, in as many resources as for a harmless one."""
    try:
        given_run = submission(key, text)
        rendered = KubernetesCluster().render(given_run)["manifests.yaml"]
    except ConfigError:
        return
    documents = list(yaml.safe_load_all(rendered))
    assert len(documents) == 9
    (held,) = (document["data"]["run.yaml"] for document in documents if document["kind"] == "ConfigMap")
    assert read_config(held, "run.yaml") == given_run.config


@given(place=HOSTILE, overrides=st.lists(HOSTILE, max_size=3))
@settings(max_examples=100, deadline=None)
def test_a_printed_command_is_these_words_and_no_others(place: str, overrides: list[str]) -> None:
    """A shell splits the command into the words that were meant."""
    assume(not re.match("-", place))
    sets = [word for each in overrides for word in ("--set", each)]
    assert shlex.split(command("run", place, overrides)) == ["petaseg", "run", place, *sets]


def test_a_file_with_a_leading_dash_is_no_option() -> None:
    assert command("run", "-x.yaml") == "petaseg run ./-x.yaml"
