"""The files for the Dask operator: their pods are valid and locked down. The operator itself is not run here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

from pipeline.clusters.tls import Tls

FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "dask-operator"


def load(file: str) -> dict[str, Any]:
    return yaml.safe_load((FOLDER / file).read_text())


def pods() -> list[dict[str, Any]]:
    spec = load("cluster.yaml")["spec"]
    return [spec["scheduler"]["spec"], spec["worker"]["spec"], load("driver.yaml")["spec"]["template"]["spec"]]


def test_scheduler_workers_and_driver_are_valid_and_have_no_rights() -> None:
    for pod in pods():
        head = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}}
        release = kubernetes_validate.latest_version()
        kubernetes_validate.validate({**head, "spec": pod}, release, strict=True)
        (container,) = pod["containers"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False
        locked = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
        assert container["securityContext"] == locked
        assert container["resources"]["requests"] == container["resources"]["limits"]
    kubernetes_validate.validate(load("driver.yaml"), kubernetes_validate.latest_version(), strict=True)


def test_the_service_is_one_for_the_scheduler() -> None:
    scheduler = load("cluster.yaml")["spec"]["scheduler"]
    head = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}}
    kubernetes_validate.validate(
        {**head, "spec": scheduler["service"]}, kubernetes_validate.latest_version(), strict=True
    )
    ports = {port["name"] for port in scheduler["spec"]["containers"][0]["ports"]}
    assert {port["targetPort"] for port in scheduler["service"]["ports"]} <= ports


def test_everybody_has_the_certificates_that_dask_asks_for() -> None:
    """Every pod gets certificates through variables that Dask knows; Dask ignores unknown ones silently."""
    known = Tls.at(Path("/petaseg/tls")).environment()
    for pod in pods():
        (container,) = pod["containers"]
        given = {entry["name"]: entry.get("value") for entry in container["env"]}
        theirs = {name: value for name, value in given.items() if name.startswith("DASK_DISTRIBUTED__COMM")}
        assert theirs.items() <= known.items()
        assert {"DASK_DISTRIBUTED__COMM__TLS__CA_FILE", "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION"} <= set(theirs)
        assert {"name": "tls", "mountPath": "/petaseg/tls", "readOnly": True} in container["volumeMounts"]
