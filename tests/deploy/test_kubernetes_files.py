"""The files of deploy/kubernetes are what ``petaseg submit`` would send; as a program, this writes them anew."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pipeline.clusters.base import Submission
from pipeline.clusters.kubernetes import manifests as made
from pipeline.config.reading import load_config

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "kubernetes"
HEAD = "# Made from run.yaml and pipeline/clusters/kubernetes/manifests.py; a test compares them.\n"
FILES = {
    "access.yaml": ("ServiceAccount", "Role", "RoleBinding"),
    "driver.yaml": ("Service", "Job"),
    "workers.yaml": ("Deployment",),
}
"""File -> the kinds in it. kustomize generates the ConfigMap and the Secret."""


def expected(file: str) -> str:
    config = load_config(FOLDER / "run.yaml")
    documents = made.manifests(Submission(config.run_directory, config), name="petaseg")
    return HEAD + made.to_yaml([document for document in documents if document["kind"] in FILES[file]])


@pytest.mark.parametrize("file", FILES)
def test_files_by_hand_do_what_the_command_does(file: str) -> None:
    """The files of deploy/kubernetes equal what ``petaseg submit`` would send for the same run file."""
    assert (FOLDER / file).read_text() == expected(file), (
        "write them anew: python -m tests.deploy.test_kubernetes_files"
    )


def test_kustomize_gets_every_file_and_every_name_that_the_pods_mount() -> None:
    kustomization = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
    assert set(kustomization["resources"]) == set(FILES)
    pod = next(d for d in yaml.safe_load_all((FOLDER / "driver.yaml").read_text()) if d["kind"] == "Job")
    volumes = {v["name"]: v for v in pod["spec"]["template"]["spec"]["volumes"]}
    assert kustomization["configMapGenerator"] == [{"name": volumes["run"]["configMap"]["name"], "files": ["run.yaml"]}]
    (secret,) = kustomization["secretGenerator"]
    assert secret["name"] == volumes["tls"]["secret"]["secretName"]
    assert {Path(file).name for file in secret["files"]} == {"ca.pem", "cert.pem", "key.pem"}
    assert kustomization["generatorOptions"] == {"disableNameSuffixHash": True}, "the pods name them without a suffix"


if __name__ == "__main__":
    for name in FILES:
        (FOLDER / name).write_text(expected(name))
