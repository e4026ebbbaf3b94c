"""Trainings on Kubernetes: their manifests, and a real API server with its controllers and scheduler."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from pipeline.clusters.base import DRIVER_RECORD, DriverJob, LoneJob, lone_jobs
from pipeline.clusters.kubernetes.cluster import KubernetesCluster
from pipeline.clusters.kubernetes.releases import fitted
from pipeline.clusters.kubernetes.training import training_manifests
from pipeline.config.reading import parse_config
from pipeline.errors import ClusterError, ConfigError
from pipeline.training.config import TrainConfig
from pipeline.training.submission import lone_job, submit
from pipeline.training.trainer import train
from tests.clusters.kubernetes_tables import EVERYTHING, SITE, of_kind
from tests.deploy.kubernetes import LIMIT_SECONDS, Lab
from tests.training.trainings import MINI, stored_cubes

CLUSTER = KubernetesCluster()
RELEASE = kubernetes_validate.latest_version()
BARE = {"image": "petaseg", "claim": "em-data"}
FULL = {key: value for key, value in EVERYTHING.items() if "workers" not in key}
VOLUME = {"image": "/data/image.zarr", "labels": "/data/labels.zarr"}


def config_of(cluster: dict[str, Any] = BARE, **changes: Any) -> TrainConfig:
    data = {"output": "/data/model", "name": "mini", "volumes": [VOLUME], "validation": VOLUME, "device": "cpu"}
    return parse_config({**data, "cluster": cluster, **changes}, TrainConfig)


def job_of(cluster: dict[str, Any] = BARE, **changes: Any) -> LoneJob:
    return lone_job(config_of(cluster, **changes))


def rendered(cluster: dict[str, Any] = BARE, **changes: Any) -> list[dict[str, Any]]:
    """The resources of a training, as ``--dry-run`` prints them."""
    return list(yaml.safe_load_all(CLUSTER.render_lone(job_of(cluster, **changes))["manifests.yaml"]))


def pod(documents: list[dict[str, Any]]) -> dict[str, Any]:
    (job,) = of_kind(documents, "Job")
    return job["spec"]["template"]["spec"]


# -- manifests ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cluster", [BARE, FULL], ids=["bare", "full"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_every_manifest_fits_the_schemas_of_a_recent_release(cluster: dict[str, Any], device: str) -> None:
    documents = rendered(cluster, device=device)
    assert [document["kind"] for document in documents] == [*(["NetworkPolicy"] if cluster is FULL else []), "Job"]
    for document in documents:
        kubernetes_validate.validate(document, RELEASE, strict=True)


def test_a_training_asks_for_what_it_uses() -> None:
    """GPUs by ``devices``, cores by all its processes, and the memory of ``cluster.driver``; requests are limits."""
    driver = {"memory_gb": 64.0, "scratch_gb": 20.0}
    given = {"device": "cuda", "devices": 4, "threads": 2, "loaders": 3}
    asked = pod(rendered({**BARE, "driver": driver}, **given))["containers"][0]["resources"]
    amounts = {"cpu": "20", "memory": "64000000000", "nvidia.com/gpu": "4", "ephemeral-storage": "20000000000"}
    assert asked == {"requests": amounts, "limits": amounts}
    assert set(pod(rendered(devices=2))["containers"][0]["resources"]["limits"]) == {"cpu", "memory"}


def test_a_training_runs_on_the_nodes_of_its_gpus() -> None:
    """The device has the name that the file gives it, and its nodes' usual taints are tolerated."""
    found = pod(rendered({**BARE, "driver": {"gpu_resource": "amd.com/gpu"}}, device="cuda"))
    assert found["containers"][0]["resources"]["limits"]["amd.com/gpu"] == "1"
    assert [toleration["key"] for toleration in found["tolerations"]] == ["amd.com/gpu"]
    assert "tolerations" not in pod(rendered())


def test_a_training_is_started_again_like_a_driver() -> None:
    """Disruptions do not count, and no restart follows an error that none can mend."""
    (job,) = rendered({**BARE, "driver": {"restarts": 7}})
    assert job["spec"]["backoffLimit"] == 7
    disrupted, final = job["spec"]["podFailurePolicy"]["rules"]
    assert disrupted["action"] == "Ignore"
    (container,) = pod([job])["containers"]
    status = next(each["value"] for each in container["env"] if each["name"] == "PETASEG_FINAL_STATUS")
    values = {"containerName": container["name"], "operator": "In", "values": [2, int(status)]}
    assert final == {"action": "FailJob", "onExitCodes": values}
    assert pod([job])["restartPolicy"] == "Never"
    assert container["args"] == ["-m", "workflows.cli", "train", "/data/model/cluster/training.yaml"]
    assert "podFailurePolicy" not in fitted([job], (1, 25))[0]["spec"]


def test_a_training_has_no_rights_and_no_certificates() -> None:
    """Its pod fits the profile "restricted" and has no token; loaders pass patches through memory of its own."""
    for found in (pod(rendered()), pod(rendered(FULL))):
        assert found["automountServiceAccountToken"] is False
        assert found["securityContext"]["runAsNonRoot"] is True
        (container,) = found["containers"]
        locked = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
        assert container["securityContext"] == locked
        assert not [volume for volume in found["volumes"] if "secret" in volume]
        shared = {volume["name"]: volume.get("emptyDir") for volume in found["volumes"]}
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        assert shared[mounts["/dev/shm"]] == {"medium": "Memory"}
    assert "serviceAccountName" not in pod(rendered())


def test_a_training_has_what_a_site_asks_for() -> None:
    """Account, user, claims, labels, queue, image and Secrets are those of the training file."""
    policy, job = rendered(FULL)
    found, (container,) = pod([job]), pod([job])["containers"]
    assert found["serviceAccountName"] == "bucket-reader"
    assert (found["securityContext"]["runAsUser"], found["securityContext"]["fsGroup"]) == (2000, 3000)
    assert (found["imagePullSecrets"], found["priorityClassName"]) == ([{"name": "registry"}], "high")
    assert container["envFrom"] == [{"secretRef": {"name": "object-store"}}]
    assert {"/data", "/raw", "/lab/runs"} < {mount["mountPath"] for mount in container["volumeMounts"]}
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "em-queue"
    assert job["spec"]["suspend"] is True
    for head in (policy["metadata"], job["metadata"], job["spec"]["template"]["metadata"]):
        assert head["labels"]["example.org/team"] == "em"
        assert head["annotations"].items() >= SITE["annotations"].items()
    selected = policy["spec"]["podSelector"]["matchLabels"]
    assert selected.items() <= job["spec"]["template"]["metadata"]["labels"].items()
    assert [list(each) for each in policy["spec"]["ingress"]] == [["from"]], "nobody else reaches it"


@pytest.mark.parametrize(
    ("cluster", "changes", "words"),
    [
        ({"claim": "em-data"}, {}, r"cluster\.image is not set.*Dockerfile"),
        ({"image": "petaseg"}, {}, r"/data/model.*name the claim that holds the data in cluster\.claim"),
        (BARE, {"output": "/home/ada/model"}, r"/home/ada/model cannot be opened in a pod.*put the data there"),
        (BARE, {"start_from": "/home/ada/old"}, r"^/home/ada/old cannot be opened in a pod"),
        (BARE, {"volumes": [{**VOLUME, "mask": "/home/m.zarr"}]}, r"^/home/m\.zarr cannot be opened in a pod"),
        (FULL, {"output": "/raw/model"}, r"output is /raw/model, where the claim raw is mounted with read_only"),
    ],
)
def test_what_a_pod_cannot_open_is_refused_before_anything_is_written(
    cluster: dict[str, Any], changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        CLUSTER.render_lone(job_of(cluster, **changes))


def test_a_training_that_is_refused_leaves_no_folder(tmp_path: Path) -> None:
    """The file is written to the output folder only when the job is sound."""
    config = config_of(output=str(tmp_path / "model"))
    with pytest.raises(ConfigError, match="cannot be opened in a pod"):
        submit(lone_job(config), config, CLUSTER, "")
    assert not (tmp_path / "model").exists()


def test_buckets_and_bundled_models_need_no_claim() -> None:
    volume = {"image": "s3://b/image.zarr", "labels": "gs://b/labels.zarr"}
    given = {"volumes": [volume], "validation": volume, "start_from": "fib25-tiny"}
    assert rendered(**given) == rendered(**{**given, "volumes": [volume, volume]})


def test_a_cluster_without_trainings_says_where_they_run() -> None:
    class Paper:
        name = "paper"

    with pytest.raises(ConfigError, match=r"cannot be submitted to paper yet; submit it to slurm or kubernetes"):
        lone_jobs(Paper())  # type: ignore[arg-type]
    assert lone_jobs(CLUSTER) is CLUSTER


# -- on a real control plane ----------------------------------------------------------------------------------------


def write_training(lab: Lab, **changes: Any) -> dict[str, Any]:
    """Write ``train.yaml`` and its volumes, with the paths that pods see; returns the file's keys."""
    used, held_back = stored_cubes(lab.data, [0, 0, 0], [16, 32, 32]), stored_cubes(lab.data, [16, 0, 0], [24, 32, 32])
    where = {"image": "petaseg:test", "namespace": lab.namespace, "claim": "data"}
    data = {
        **{"name": "mini", "output": "/data/model", "volumes": [used], "validation": held_back, "arguments": MINI},
        **{"patch_shape": [8, 16, 16], "overlap": [2, 4, 4], "steps": 150, "warmup_steps": 2, "validate_every": 5},
        **{"device": "cpu", "pictures": False, "precision": "float32", "choose_threshold": False},
        **{"cluster": {"kind": "kubernetes", **where, "driver": {"memory_gb": 2.0, "restarts": 3}}, **changes},
    }
    inside = yaml.safe_dump(data).replace(str(lab.data), "/data")
    (lab.data / "train.yaml").write_text(inside)
    return data


def record(lab: Lab) -> DriverJob:
    """The training that was submitted."""
    return DriverJob.decode((lab.data / "model" / DRIVER_RECORD).read_bytes())


def validations(lab: Lab) -> int:
    """Validations so far."""
    log = lab.data / "model" / "log.jsonl"
    return log.read_text().count("\n") if log.exists() else 0


@pytest.mark.slow
def test_a_training_goes_on_in_a_new_pod_from_its_last_checkpoint(lab: Lab) -> None:
    """A training that is killed, and then cancelled, goes on; its weights are those of one that never stopped."""
    data = write_training(lab)
    said = lab.petaseg("submit", "/data/train.yaml")
    job = record(lab)
    assert f"submitted to kubernetes as {job.id}" in said
    again = lab.plane.login(lab.data, "python", "-P", "-m", "workflows.cli", "submit", "/data/train.yaml")
    assert "is alive; look at it with `petaseg logs" in again.stderr
    lab.plane.wait(lambda: validations(lab) > 0, "no validation", LIMIT_SECONDS)
    (first,) = lab.pods("training")
    done = validations(lab)
    lab.kill(first)
    lab.plane.wait(lambda: bool(lab.pods("training").keys() - {first}), "no other pod", LIMIT_SECONDS)
    state = CLUSTER.state(job)
    assert (state.phase, state.restarts) == ("running", 1)
    assert "the training ended with status 137" in state.reason
    lab.plane.wait(lambda: validations(lab) > done, "it does not go on", LIMIT_SECONDS)
    assert list(CLUSTER.logs(job, workers=True)) == []
    lab.petaseg("cancel", "/data/train.yaml")
    assert (CLUSTER.state(job).phase, lab.all_pods()) == ("unknown", [])
    lab.petaseg("submit", "/data/train.yaml")
    lab.plane.wait(lambda: CLUSTER.state(job).phase == "finished", "not finished", LIMIT_SECONDS)
    assert "next: petaseg init" in lab.petaseg("logs", "/data/train.yaml")
    train(parse_config({**data, "output": str(lab.data / "here")}, TrainConfig))
    weights = [(lab.data / place / "weights.safetensors").read_bytes() for place in ("model", "here")]
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_a_training_on_a_gpu_goes_to_its_node_and_its_last_words_are_told(lab: Lab) -> None:
    """The pod waits for a node with GPUs; there is none behind its name, which the training says as it ends."""
    write_training(lab, device="cuda", devices=2)
    file = lab.data / "train.yaml"
    driver = {"memory_gb": 2.0, "restarts": 0, "gpu_resource": "amd.com/gpu"}
    keys = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump({**keys, "cluster": {**keys["cluster"], "driver": driver}}))
    lab.petaseg("submit", "/data/train.yaml")
    job = record(lab)
    lab.plane.wait(lambda: "Insufficient amd.com/gpu" in CLUSTER.state(job).reason, "it does not wait", LIMIT_SECONDS)
    lab.plane.add_node("trainer", {"amd.com/gpu": "2"})
    try:
        lab.plane.wait(lambda: CLUSTER.state(job).phase == "failed", "it has not failed", LIMIT_SECONDS)
        assert {each.spec.node_name for each in lab.all_pods("training")} == {"trainer"}
        assert "the training ended with status 78" in CLUSTER.state(job).reason
    finally:
        lab.plane.remove_node("trainer")


def test_a_job_that_lives_without_its_record_is_found(lab: Lab) -> None:
    """Who deletes the record of a training that is alive is told the commands that show and end it."""
    job = LoneJob(
        **{"url": "/data/model", "file": "/data/model/cluster/training.yaml", "places": ("/data/model",)},
        command=("-c", "import time; time.sleep(600)"),
        cluster=config_of({**BARE, "namespace": lab.namespace, "claim": "data"}).cluster,
        cpus=1,
    )
    submitted = CLUSTER.submit_lone(job)
    with pytest.raises(
        ClusterError, match=r"trains into /data/model already; .*petaseg logs /data/model/cluster/training\.yaml`"
    ):
        CLUSTER.submit_lone(job)
    assert training_manifests(job)[0]["metadata"]["name"] == submitted.id
    CLUSTER.cancel(submitted)
    assert CLUSTER.state(submitted).phase == "unknown"
