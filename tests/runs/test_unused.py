"""What a user sets in a run file has an effect, or is refused or named; nothing is ignored in silence."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from pipeline.config.cluster import ClusterTable
from pipeline.config.cluster_use import ONLY_ON
from pipeline.config.problems import tables_of
from pipeline.config.reading import apply_overrides, parse_config
from pipeline.config.reference import keys_of
from pipeline.config.run_file import SOURCES, RunConfig
from pipeline.config.unused import Unused, given_keys, refuse, unused
from pipeline.errors import ConfigError
from pipeline.execution import EXECUTORS
from pipeline.runs.changes import KEYS, NOTHING, RUNS
from pipeline.runs.example import Wanted, text_of
from pipeline.runs.unused import ROWS, RunCase
from tests.changes import VALUES, write_runs
from workflows.app import app

IMAGE: dict[str, Any] = {"run_directory": "r", "input": {"image": "i"}}
AFFINITIES: dict[str, Any] = {"run_directory": "r", "input": {"affinities": "a"}}
MEMBRANES: dict[str, Any] = {"run_directory": "r", "input": {"membranes": "m"}}
HEADS: dict[str, Any] = {"run_directory": "r", "input": {"heads": {"affinities": "a", "membranes": "m"}}}
LABELS: dict[str, Any] = {"run_directory": "r", "input": {"labels": "l"}, "segmentation": {"kind": "labels"}}
REQUIRED = {"run_directory", *(f"input.{name}" for name in SOURCES)}


def case_of(data: dict[str, Any], *, device: str = "cpu", cluster: str | None = None, **keys: Any) -> RunCase:
    """The case of a run file with more keys, whose dots are written as two underscores."""
    overrides = [f"{key.replace('__', '.')}={json.dumps(value)}" for key, value in keys.items()]
    config: RunConfig = parse_config(apply_overrides(data, overrides))
    return RunCase(config, "" if config.input.image is None else device, cluster)


def found_in(case: RunCase) -> list[Unused]:
    return unused(case.config, case, ROWS)


def named(case: RunCase) -> set[str]:
    """The keys that are refused or named."""
    return {given.key for each in found_in(case) for given in each.given}


def wrong(case: RunCase) -> set[str]:
    """The keys that are refused."""
    return {given.key for each in found_in(case) for given in each.wrong}


# -- each key -------------------------------------------------------------------------------------------------------

CASES = {
    "image": lambda **keys: case_of(IMAGE, **keys),
    "affinities": lambda **keys: case_of(AFFINITIES, **keys),
    "membranes": lambda **keys: case_of(MEMBRANES, **keys),
    "heads": lambda **keys: case_of(HEADS, **keys),
    "section": lambda **keys: case_of(IMAGE, **{"supervoxels__mode": "section", **keys}),
    "mask": lambda **keys: case_of(HEADS, **{"segmentation__kind": "mask", **keys}),
    "objects": lambda **keys: case_of(HEADS, **{"segmentation__kind": "objects", **keys}),
    "classes": lambda **keys: case_of(HEADS, **{"segmentation__kind": "classes", **keys}),
    "labels": lambda **keys: case_of(LABELS, **{"segmentation__kind": "labels", **keys}),
    "flips": lambda **keys: case_of(IMAGE, **{"inference__augmentation": "flips", **keys}),
    "upright": lambda **keys: case_of(IMAGE, **keys),
    "cpu": lambda **keys: case_of(IMAGE, **keys),
    "gpu": lambda **keys: case_of(IMAGE, device="cuda", **keys),
    "mean": lambda **keys: case_of(IMAGE, **keys),
    "evidence": lambda **keys: case_of(IMAGE, **{"supervoxels__borders": "evidence", **keys}),
    "quantile": lambda **keys: case_of(IMAGE, **{"agglomeration__linkage": "quantile", **keys}),
}
"""The runs of ``pipeline.runs.changes``."""
PERMITS = {"inference.any_resolution", "inference.gpu"}
"""Keys that change no byte, and permit what would be refused without them; another GPU's name is compared."""


def placed(key: str) -> list[str]:
    """The runs for which the table of changes says something of its own about a key, and that say it has no effect."""
    return [change.run for change in KEYS if change.what == key and change.run and change.effect is NOTHING]


NO_EFFECT = [(key, run) for key in keys_of() for run in placed(key)]


@pytest.mark.parametrize(("key", "run"), NO_EFFECT)
def test_a_key_without_an_effect_is_refused_or_named(key: str, run: str) -> None:
    """Wherever the table of changes says that a key changes nothing in one kind of run alone, the user is told so."""
    found = named(CASES[run](**{key.replace(".", "__"): VALUES[key]}))
    assert (key in found) == (run == "affinities" or key not in PERMITS or (key, run) == ("inference.gpu", "cpu"))


EFFECT = [(change.what, change.run) for change in KEYS if change.effect is not NOTHING]


@pytest.mark.parametrize(("key", "run"), EFFECT)
def test_a_key_with_an_effect_is_not_named(key: str, run: str) -> None:
    """What changes a stage is used, with its other keys as they must be for that."""
    if key in REQUIRED:
        return
    keys = {key: VALUES[key], **BESIDE.get(key, {})}
    for kind in [run] if run else ["image", "affinities"]:
        assert key not in named(CASES[kind](**{name.replace(".", "__"): value for name, value in keys.items()}))


BESIDE: dict[str, dict[str, Any]] = {
    "segmentation.seedless": {"segmentation.seed_threshold": 0.9},
    "segmentation.min_seed_size": {"segmentation.seed_threshold": 0.9},
    "segmentation.min_size_threshold": {"segmentation.min_size": 100},
    "chunk_shape": {"storage_chunk_shape": VALUES["storage_chunk_shape"]},
    "storage_chunk_shape": {"chunk_shape": VALUES["chunk_shape"]},
}
"""Key -> what it needs beside it."""


def test_the_runs_of_the_table_of_changes_are_these() -> None:
    assert set(RUNS) - {""} == set(CASES)


# -- where chunks are processed -------------------------------------------------------------------------------------

EXECUTION = [key for key in keys_of() if key.startswith("execution.")]
USED = {
    "serial": {"attempts", "backoff_seconds", "lease_seconds", "metrics", "executor"},
    "threads": {"attempts", "backoff_seconds", "lease_seconds", "metrics", "executor", "workers", "max_in_flight"},
    "dask": {key.partition(".")[2] for key in EXECUTION},
}
"""Executor -> the keys of ``execution`` that it uses."""
OF_DRIVER = {"attempts", "backoff_seconds", "lease_seconds", "metrics", "max_in_flight", "timeout_seconds", "dashboard"}
"""The keys that the driver of a cluster's workers uses."""


@pytest.mark.parametrize(("executor", "key"), list(product(EXECUTORS, EXECUTION)))
def test_a_setting_of_an_executor_is_used_or_told(executor: str, key: str) -> None:
    """Each executor uses these keys; the others are named, and refused if they only ever hold for another one."""
    leaf = key.partition(".")[2]
    keys = {"execution__executor": executor, key.replace(".", "__"): executor if leaf == "executor" else VALUES[key]}
    assert (leaf in USED[executor]) == (key not in named(case_of(IMAGE, **keys)))
    assert (key in wrong(case_of(IMAGE, **keys))) == (
        leaf not in USED[executor] and leaf not in ("workers", "max_in_flight")
    )


@pytest.mark.parametrize(("cluster", "key"), list(product(ONLY_ON, EXECUTION)))
def test_a_setting_of_a_driver_is_used_or_told(cluster: str, key: str) -> None:
    leaf = key.partition(".")[2]
    case = case_of(IMAGE, cluster=cluster, **{key.replace(".", "__"): VALUES[key]})
    assert (leaf in OF_DRIVER) == (key not in named(case))
    assert wrong(case) == ({key} if leaf in ("scheduler", "threads_per_worker") else set())


def test_an_existing_scheduler_has_its_own_workers() -> None:
    keys = {"workers": 3, "threads_per_worker": 2, "dashboard": "127.0.0.1:1", "scheduler": "tcp://h:1"}
    case = case_of(IMAGE, execution={**keys, "executor": "dask"})
    assert named(case) == {"execution.workers", "execution.threads_per_worker", "execution.dashboard"}
    assert not wrong(case)


def test_offsets_need_affinities() -> None:
    """Offsets of affinities are refused with an image and with membranes alone, and used with heads that hold some."""
    for data, told in ((IMAGE, True), (MEMBRANES, True), (HEADS, False), (AFFINITIES, False)):
        case = case_of(data, input__affinity_offsets=VALUES["input.affinity_offsets"])
        assert wrong(case) == ({"input.affinity_offsets"} if told else set())


def test_a_pause_before_no_retry_is_named() -> None:
    assert named(case_of(IMAGE, execution={"attempts": 1, "backoff_seconds": 2.0})) == {"execution.backoff_seconds"}


# -- clusters -------------------------------------------------------------------------------------------------------

OF_TRAININGS = "cluster.driver.gpu_resource"
OF_CLUSTER = [
    key for key in keys_of() if key.startswith("cluster.") and key != OF_TRAININGS and "cluster.prices." not in key
]
NEEDED = {
    "cluster.driver.mail_type": {"cluster.driver.mail_user": "ada"},
    "cluster.workers.gpu_resource": {"cluster.workers.gpus": 1},
    "cluster.inference_workers.gpu_resource": {"cluster.inference_workers.gpus": 1},
    "cluster.kubernetes.outside_ports": {"cluster.kubernetes.network_policy": True},
    "cluster.prices.currency": {"cluster.prices.cpu_hour": 1.0},
}
"""Key -> what it needs beside it, without which it is named."""


@pytest.mark.parametrize("key", OF_CLUSTER)
def test_a_key_of_a_cluster_is_named_where_nothing_reads_it(key: str) -> None:
    """Such keys are named on this machine and on the other kind of cluster, and not where they are read."""
    keys = {name.replace(".", "__"): value for name, value in {key: VALUES[key], **NEEDED.get(key, {})}.items()}
    assert key in named(case_of(IMAGE, **keys))
    for kind in ONLY_ON:
        read = key != "cluster.kind" or VALUES[key] == kind
        read &= all(other == kind or not _covers(rows, key) for other, rows in ONLY_ON.items())
        assert (key in named(case_of(IMAGE, cluster=kind, **keys))) != read, kind
    assert not wrong(case_of(IMAGE, **keys))


def _covers(keys: tuple[str, ...], key: str) -> bool:
    return any(key == each or key.startswith(f"{each}.") for each in keys)


@pytest.mark.parametrize("cluster", [None, *ONLY_ON])
def test_the_gpu_of_a_driver_is_named_in_every_run(cluster: str | None) -> None:
    """Only trainings have GPUs in the job that ``cluster.driver`` describes."""
    assert OF_TRAININGS in named(case_of(IMAGE, cluster=cluster, cluster__driver__gpu_resource="amd.com/gpu"))


@pytest.mark.parametrize("key", NEEDED)
def test_a_key_without_what_it_needs_is_named(key: str) -> None:
    for kind in ONLY_ON:
        assert key in named(case_of(IMAGE, cluster=kind, **{key.replace(".", "__"): VALUES[key]}))


@pytest.mark.parametrize("table", ["workers", "inference_workers"])
def test_a_limit_of_an_array_of_one_job_is_named(table: str) -> None:
    for count, told in ((1, True), (2, False)):
        keys = {f"cluster__{table}__count": count, f"cluster__{table}__array_limit": 1}
        assert (f"cluster.{table}.array_limit" in named(case_of(IMAGE, cluster="slurm", **keys))) == told


def test_workers_of_the_network_are_named_where_no_network_is_run() -> None:
    case = case_of(AFFINITIES, cluster="slurm", cluster__inference_workers__cpus=2)
    assert named(case) == {"cluster.inference_workers.cpus"}


def test_the_description_of_each_key_names_its_kind_of_cluster() -> None:
    """A key that only one kind reads says so in its description, and no other key does."""
    said = {"slurm": "(SLURM)", "kubernetes": "(Kubernetes)"}
    for key in OF_CLUSTER:
        kinds = {kind for kind, keys in ONLY_ON.items() if _covers(keys, key)}
        text = _description(key)
        if not key.startswith("cluster.kubernetes."):
            assert {kind for kind, mark in said.items() if mark in text} == kinds, key


def _description(key: str) -> str:
    """The description of a key of the table ``cluster``."""
    table: Any = ClusterTable
    *tables, leaf = key.split(".")[1:]
    for name in tables:
        (table,) = tables_of(table.model_fields[name])
    return table.model_fields[leaf].description or ""


# -- the messages ---------------------------------------------------------------------------------------------------


def test_a_contradiction_is_refused_with_value_rule_and_remedy() -> None:
    """The message holds the other key, and the override that takes the key back, which is then only named."""
    case = case_of(IMAGE, agglomeration__quantile=0.25)
    with pytest.raises(ConfigError) as caught:
        refuse(found_in(case))
    assert str(caught.value) == (
        "agglomeration.quantile is 0.25, which is not used with agglomeration.linkage: mean: set "
        "agglomeration.linkage: quantile, or leave agglomeration.quantile out (--set agglomeration.quantile=0.5)"
    )
    taken_back = found_in(case_of(IMAGE, agglomeration__quantile=0.5))
    refuse(taken_back)
    assert [str(each) for each in taken_back] == [
        "agglomeration.quantile is not used with agglomeration.linkage: mean; set agglomeration.linkage: quantile, or "
        "remove it"
    ]


@pytest.mark.parametrize("row", [row for row in ROWS if row.refused], ids=lambda row: row.keys[0])
def test_what_is_refused_can_be_taken_back_on_the_command_line(row: Any) -> None:
    """The override of each refusal is taken by the reader of run files, and ends the refusal."""
    (key,) = row.keys
    case = case_of(IMAGE, **{key.replace(".", "__"): VALUES[key]})
    (given,) = (each for each in given_keys(case.config) if each.key == key)
    refusals = [each.refusal(given) for each in found_in(case) if given in each.wrong]
    override = refusals[0].rpartition("(--set ")[2].rstrip(")")
    refuse(found_in(RunCase(parse_config(apply_overrides(IMAGE, [override])), "cpu")))


def test_two_contradictions_are_both_told() -> None:
    case = case_of(IMAGE, agglomeration__quantile=0.25, segmentation__min_size_threshold=0.2)
    with pytest.raises(ConfigError, match=r"(?s)- agglomeration\.quantile is .*- segmentation\.min_size_threshold is"):
        refuse(found_in(case))


def test_keys_of_one_row_are_one_line() -> None:
    """One key, several and many of them; a default among them says nothing."""
    of_workers = {"count": 3, "cpus": 2, "threads": 1}
    assert [str(each) for each in found_in(case_of(IMAGE, cluster__workers=of_workers))] == [
        "cluster.workers.count and cluster.workers.cpus are not used on this machine, but by `petaseg submit`; keep "
        "what you need there, or remove them"
    ]
    keys = ("cpus", "memory_gb", "walltime", "restarts", "mail_user", "queue", "account", "qos")
    many = case_of(IMAGE, cluster__driver={key: VALUES[f"cluster.driver.{key}"] for key in keys})
    assert " and 3 more keys are not used on this machine" in str(found_in(many)[0])


# -- the commands ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", [Wanted("run.yaml", image="i"), Wanted("run.yaml", affinities="a")])
def test_a_run_file_of_init_sets_nothing_in_vain(wanted: Wanted) -> None:
    """The run file of ``petaseg init`` is silent on every machine, since it spells out defaults alone."""
    config: RunConfig = parse_config(yaml.safe_load(text_of(wanted, None, 1)))
    for device in ("cpu", "cuda"):
        for cluster in (None, "slurm", "kubernetes"):
            assert not found_in(RunCase(config, "" if wanted.image is None else device, cluster))


def test_the_commands_refuse_and_name(tmp_path: Path) -> None:
    """``run --dry-run`` and ``plan`` name in a line what is in vain, and refuse what contradicts."""
    file = write_runs(tmp_path) / "affinities.yaml"
    given = ["--set", "execution.backoff_seconds=2", "--set", "execution.attempts=1"]
    for command in (["run", str(file), "--dry-run"], ["plan", str(file)]):
        result = CliRunner().invoke(app, [*command, *given])
        assert "execution.backoff_seconds is not used with execution.attempts: 1; raise" in result.output
        refused = CliRunner().invoke(app, [*command, "--set", "segmentation.min_size_threshold=0.2"])
        assert isinstance(refused.exception, ConfigError)
        assert "segmentation.min_size_threshold is 0.2, which is not used with segmentation.min_size: 0" in str(
            refused.exception
        )
