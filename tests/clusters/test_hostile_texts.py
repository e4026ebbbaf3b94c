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
from pipeline.config.slurm import SlurmJob
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
JOBS = ("cluster", "cluster.driver", "cluster.workers")
FREE_OPTIONS = ("comment", "nice", "gres", "exclude", "constraint")
KEYS = (
    *("run_directory", "cluster.queue", "cluster.account", "cluster.interface", "cluster.namespace", "cluster.image"),
    *("cluster.claim", "cluster.image_pull_secret", "cluster.driver.walltime", "cluster.workers.walltime"),
    *("cluster.secrets", "cluster.workers.node_selector", "cluster.ports"),
    *("cluster.driver.mail_user", "cluster.driver.mail_type"),
    *(f"{job}.{key}" for job in JOBS for key in SlurmJob.model_fields if key not in ("tmp_gb", "options")),
    *(f"{job}.options" for job in JOBS),
    *(f"{job}.options.--{option}" for job in JOBS for option in FREE_OPTIONS),
    *("input.affinities", "evaluation.labels", "cluster.prices.currency", "execution.scheduler", "inference.gpu"),
)
LISTS = ("cluster.secrets", "cluster.driver.mail_type", *(f"{job}.options" for job in JOBS))


def submission(key: str, text: str) -> Submission:
    """A run whose run file has this text as a value of a key; ``ConfigError`` if it is refused."""
    data: dict[str, Any] = {
        "run_directory": "/data/run",
        "input": {"affinities": "/data/a.zarr"},
        "cluster": {"image": "petaseg:1", "claim": "em", "driver": {}, "workers": {}, "prices": {}},
    }
    if ".options.--" in key:
        key, _, option = key.rpartition(".")
        text = f"{option}={text}"
    *tables, leaf = key.split(".")
    place = data
    for table in tables:
        place = place.setdefault(table, {})
    place[leaf] = [text] if key in LISTS else {"node": text} if leaf == "node_selector" else text
    if key == "run_directory":
        place[leaf] = f"/data/{text}"
    config = parse_config(data)
    return Submission(config.run_directory, config)


def job_scripts(given: Submission) -> list[str]:
    """The scripts of a driver and of a worker."""
    shape = worker_shapes(given.config.cluster)["general"]
    worker = scripts.worker_script("general", shape, given, address="tls://n:1", first=0, tasks=1, tls=None)
    return [scripts.driver_script(given), worker]


def words_of(line: str) -> list[str]:
    """What sbatch reads in an ``#SBATCH`` line: words between blanks, quotes, and a backslash also within them."""
    words, word, quote, escaped = [], "", "", False
    inside = False
    for each in line:
        if escaped:
            word, escaped = word + each, False
        elif each == "\\":
            inside = escaped = True
        elif quote:
            word, quote = (word, "") if each == quote else (word + each, quote)
        elif each in "'\"":
            inside, quote = True, each
        elif each in " \t\n\v\f\r":
            words, word, inside = ([*words, word], "", False) if inside else (words, word, inside)
        elif each == "#":
            break  # a comment
        else:
            word, inside = word + each, True
    assert not quote
    return [*words, word] if inside else words


def parts(script: str) -> tuple[list[str], list[str]]:
    """The words of all ``#SBATCH`` lines, and the first word of each other line: what sbatch and bash would do."""
    lines = script.splitlines()
    asked = [line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH ")]
    others = [line.split("=")[0].split(" ")[0] for line in lines if not line.startswith("#SBATCH ")]
    return [word for line in asked for word in words_of(line)], others


PLAIN = [parts(text) for text in job_scripts(submission("inference.gpu", "A100"))]
SET_HERE = ("--job-name=", "--output=", "--time=", "--signal=", "--mail-type=END,FAIL")
"""Words that hold the run directory or a walltime, and the events of which an address is told where none are named."""


@pytest.mark.parametrize("key", KEYS)
@given(text=HOSTILE)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(text=ATTACKS[0])
@example(text="a'b\\'c\\")
@example(text="a # b")
def test_a_text_adds_one_word_to_a_job_script_and_no_line(key: str, text: str) -> None:
    """Each text is refused, or sbatch reads it as the value of one option, and bash gets the lines of a harmless run
    file."""
    try:
        found = job_scripts(submission(key, text))
    except ConfigError:
        return
    for script, (words, lines) in zip(found, PLAIN, strict=True):
        asked, others = parts(script)
        assert others == lines
        same = [word for word in words if not word.startswith(SET_HERE)]
        added = [word for word in asked if not word.startswith(SET_HERE) and word not in same]
        assert [word for word in asked if word in same] == same
        assert len(added) <= 1
        assert all(word.startswith("--") and word.endswith(text.removeprefix("--")) for word in added)


@pytest.mark.parametrize("text", [*(text for text in ATTACKS if is_line(text)), "a'b\\'c\\", "日本 a"])
def test_sbatch_gets_a_comment_as_it_was_written(text: str) -> None:
    """The comment of a job is free text: whatever it is, it stays the value of its option."""
    script, _ = job_scripts(submission("cluster.driver.comment", text))
    assert f"--comment={text}" in parts(script)[0]


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
@settings(max_examples=12, deadline=None)
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
