"""No text of a run file becomes a field, an item or a resource of a manifest on Kubernetes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings

from pipeline.clusters.base import Submission
from pipeline.clusters.kubernetes.cluster import KubernetesCluster
from pipeline.config.reading import parse_config, read_config
from pipeline.errors import ConfigError
from tests.clusters.test_hostile_texts import ATTACKS, HOSTILE

COMMON = (
    *("run_directory", "cluster.namespace", "cluster.image", "cluster.claim", "cluster.secrets"),
    *("cluster.image_pull_secret", "input.affinities", "evaluation.labels", "execution.scheduler", "inference.gpu"),
)
"""Keys that other clusters read, too, or that are in more than one place."""
ON_KUBERNETES = (
    *(f"cluster.kubernetes.{key}" for key in ("service_account", "labels", "annotations", "queue")),
    *(f"cluster.kubernetes.claims.{key}" for key in ("claim", "path", "sub_path")),
    *(
        f"cluster.{pod}.{key}"
        for pod in ("driver", "workers")
        for key in ("node_selector", "node_affinity", "priority_class", "runtime_class", "tolerations")
    ),
)
"""Keys that Kubernetes alone reads."""
SHAPES: dict[str, Callable[[str], Any]] = {
    "run_directory": lambda text: f"/data/{text}",
    "cluster.secrets": lambda text: [text],
    "cluster.kubernetes.labels": lambda text: {"node": text},
    "cluster.kubernetes.annotations": lambda text: {"node": text},
    "node_selector": lambda text: {"node": text},
    "node_affinity": lambda text: {"node": ["a", text]},
    "tolerations": lambda text: [{"key": "node", "value": text}],
}
"""Key, or its last word -> a value of it with a text."""
NAMES: dict[str, Callable[[str], Any]] = {
    "cluster.kubernetes.labels": lambda text: {text: "x1"},
    "cluster.kubernetes.annotations": lambda text: {text: "x1"},
    "cluster.workers.node_selector": lambda text: {text: "x1"},
    "cluster.workers.gpu_resource": lambda text: text,
}
"""Key whose text becomes the name of a field -> its value with this name."""


def submission(key: str, value: Any) -> Submission:
    """A run whose run file has this value of a key; ``ConfigError`` if it is refused. Lists of tables have one."""
    data: dict[str, Any] = {
        "run_directory": "/data/run",
        "input": {"affinities": "/data/a.zarr"},
        "cluster": {"image": "petaseg:1", "claim": "em", "driver": {}, "workers": {"gpus": 1}, "prices": {}},
    }
    data["cluster"]["kubernetes"] = {"claims": [{"claim": "lab", "path": "/lab"}]}
    *tables, leaf = key.split(".")
    place: Any = data
    for table in tables:
        place = place.setdefault(table, {})
        place = place[0] if isinstance(place, list) else place
    place[leaf] = value
    config = parse_config(data)
    return Submission(config.run_directory, config)


def resources(given_run: Submission) -> list[dict[str, Any]]:
    """What the API server reads; its ConfigMap holds the same run file."""
    documents = list(yaml.safe_load_all(KubernetesCluster().render(given_run)["manifests.yaml"]))
    (held,) = (document["data"]["run.yaml"] for document in documents if document["kind"] == "ConfigMap")
    assert read_config(held, "run.yaml") == given_run.config
    return documents


def bones(value: Any, text: str = "") -> Any:
    """A value without its texts: the keys of tables, the lengths of lists, and how often ``text`` is there as it is."""
    if isinstance(value, dict):
        return {key: bones(each, text) for key, each in value.items() if key != "run.yaml"}
    if isinstance(value, list):
        return [bones(each, text) for each in value]
    return text and value == text


def value_of(key: str, text: str) -> Any:
    """The value of a key with a text in it."""
    return SHAPES.get(key, SHAPES.get(key.rpartition(".")[2], str))(text)


@cache
def harmless_resources(key: str) -> list[dict[str, Any]]:
    """The resources with a harmless text in this key."""
    return resources(submission(key, value_of(key, HARMLESS.get(key, "harmless"))))


HARMLESS = {"cluster.kubernetes.claims.path": "/harmless", "execution.scheduler": "tcp://harmless:1"}


@pytest.mark.parametrize("key", [*COMMON, *ON_KUBERNETES])
@given(text=HOSTILE)
@settings(max_examples=30, deadline=None)
@example(text="harmless")
@example(text=ATTACKS[0])
@example(text="~nobody-of-this-name")
@example(text="a: {b: c}")
@example(text="&a *b !!python/object:os.system [x")
def test_manifests_hold_a_text_as_it_is_or_refuse_it(key: str, text: str) -> None:
    """The API server reads the same resources with the same fields as for a harmless text, in the same places."""
    try:
        found = resources(submission(key, value_of(key, text)))
    except ConfigError:
        return
    harmless = harmless_resources(key)
    assert bones(found) == bones(harmless)
    if key in ON_KUBERNETES and "True" not in str(bones(harmless, text)):  # a text that is there anyway, like 1
        assert bones(found, text) == bones(harmless, HARMLESS.get(key, "harmless"))


@pytest.mark.parametrize("key", NAMES)
@given(text=HOSTILE)
@settings(max_examples=30, deadline=None)
@example(text="$(HOME)")
@example(text="example.org/team")
def test_manifests_hold_a_name_as_it_is_or_refuse_it(key: str, text: str) -> None:
    """A key of a user's own table is one key in the manifests too."""
    try:
        found = resources(submission(key, NAMES[key](text)))
    except ConfigError:
        return
    plain = "a.com/harmless"
    harmless = [str(bones(each)) for each in resources(submission(key, NAMES[key](plain)))]
    if repr(text) not in str(harmless):  # a name that is there anyway, like kind
        assert [str(bones(each)).replace(repr(text), repr(plain)) for each in found] == harmless
