"""What a site asks of the pods of a run stands in their manifests, and what no cluster accepts is refused before."""

from __future__ import annotations

import copy
from typing import Any

import kubernetes_validate
import pytest

from pipeline.clusters.kubernetes import jobs
from pipeline.clusters.kubernetes import manifests as made
from pipeline.clusters.kubernetes.releases import fitted
from pipeline.config.kubernetes import QUEUE_LABEL
from pipeline.errors import ClusterError, ConfigError, ModelError, StorageError, WorkerEnvironmentError
from tests.clusters.kubernetes_tables import EVERYTHING, SITE, of_kind, rendered, site, submission, templates
from workflows.cli import main, status_of

NEWEST = kubernetes_validate.latest_version()


@pytest.mark.parametrize("release", ["1.29", "1.33", NEWEST])
def test_manifests_with_every_key_fit_the_schemas_of_releases(release: str) -> None:
    """With every key set, each manifest passes strict schemas; those before 1.29 refuse Kubernetes' own examples."""
    for document in rendered(EVERYTHING):
        kubernetes_validate.validate(document, release, strict=True)


# -- user, rights and claims ----------------------------------------------------------------------------------------


def test_pods_run_as_the_user_and_the_groups_of_the_run_file() -> None:
    for template in templates(rendered(EVERYTHING)):
        context = template["spec"]["securityContext"]
        assert (context["runAsUser"], context["runAsGroup"], context["fsGroup"]) == (2000, 3000, 3000)
        assert context["supplementalGroups"] == [4000, 5000]


def test_a_namespace_may_choose_user_and_group() -> None:
    """With null the manifest names no user, as OpenShift demands; the pods may still not be root."""
    for template in templates(rendered(site(user=None, group=None))):
        context = template["spec"]["securityContext"]
        assert not {"runAsUser", "runAsGroup", "fsGroup"} & set(context)
        assert context["runAsNonRoot"] is True


@pytest.mark.parametrize("table", [{"image": "petaseg", "claim": "data"}, EVERYTHING], ids=["bare", "everything"])
def test_every_pod_fits_the_restricted_profile(table: dict[str, Any]) -> None:
    """No key of the run file takes a pod out of the profile "restricted" of the Pod Security Standards."""
    kinds = {"emptyDir", "secret", "configMap", "persistentVolumeClaim"}
    for template in templates(rendered(table)):
        pod = template["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(pod)
        assert all(set(volume) - {"name"} <= kinds for volume in pod["volumes"])
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            **{"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True},
            "capabilities": {"drop": ["ALL"]},
        }
        assert "hostPort" not in str(container.get("ports"))


def test_root_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"cluster\.kubernetes\.user is 0: .*greater than or equal to 1"):
        submission(site(user=0))


def test_claims_are_mounted_where_the_run_file_says() -> None:
    """Each claim is one volume, mounted at every path that names it, with its folder and its rights."""
    for template in templates(rendered(EVERYTHING)):
        claims = {
            volume["name"]: volume["persistentVolumeClaim"]["claimName"]
            for volume in template["spec"]["volumes"]
            if "persistentVolumeClaim" in volume
        }
        assert sorted(claims.values()) == ["em-data", "lab", "raw"]
        found = [
            {**mount, "name": claims[mount["name"]]}
            for mount in template["spec"]["containers"][0]["volumeMounts"]
            if mount["name"] in claims
        ]
        assert found == [
            {"name": "em-data", "mountPath": "/data"},
            {"name": "raw", "mountPath": "/raw", "readOnly": True},
            {"name": "lab", "mountPath": "/lab/runs", "subPath": "ada/runs"},
            {"name": "lab", "mountPath": "/lab/models", "subPath": "models"},
        ]


def test_paths_on_claims_can_be_opened_and_others_not() -> None:
    """A run may read and write where a claim is mounted; any other folder is refused, and the message has those."""
    table = site(claims=SITE["claims"])
    assert rendered(table, affinities="/raw/a.zarr", run="/lab/runs/first")
    with pytest.raises(ConfigError, match=r"/lab/a\.zarr cannot be opened.*the claim raw is mounted at /raw.*s3://"):
        rendered(table, affinities="/lab/a.zarr")
    with pytest.raises(ConfigError, match=r"run_directory is /raw/run, where the claim raw.*read_only.*another folder"):
        rendered(table, run="/raw/run")
    alone = {"image": "petaseg", "kubernetes": {"claims": [{"claim": "lab", "path": "/lab"}]}}
    assert rendered(alone, affinities="/lab/a.zarr", run="/lab/run")
    with pytest.raises(ConfigError, match=r"/data/a\.zarr cannot be opened.*the claim lab is mounted at /lab"):
        rendered(alone, run="/lab/run")


def test_two_claims_at_one_folder_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"two claims are mounted at /data.*cluster\.kubernetes\.claims a path"):
        rendered(site(claims=[{"claim": "lab", "path": "/data"}]))


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        *(
            ("path", path, "is no folder to mount a claim at")
            for path in ("lab", "/", "/a/../b", "/a:b", "/a b", "/a/")
        ),
        *(
            ("path", path, "choose another folder")
            for path in ("/tmp", "/petaseg/tls", "/etc/ssl", "/usr", "/opt/petaseg")
        ),
        *(("sub_path", path, "is no folder of a claim") for path in ("/a", "../a", "a/../b", "a//b", "$(HOME)", "")),
        *(("claim", name, "is no name of a resource") for name in ("Lab", "a_b", "-a", "")),
    ],
)
def test_a_claim_that_no_cluster_mounts_is_refused(key: str, value: str, words: str) -> None:
    """Wrong names and paths are refused when the run file is read, with the value and an example."""
    with pytest.raises(ConfigError, match=rf"cluster\.kubernetes\.claims\.0\.{key}.*{words}"):
        submission(site(claims=[{"claim": "lab", "path": "/lab", key: value}]))


def test_pods_have_the_service_account_of_the_site() -> None:
    """A given ServiceAccount is that of all pods, is not made, and gets the driver's rights; workers get no token."""
    documents = rendered(EVERYTHING)
    assert of_kind(documents, "ServiceAccount") == []
    (binding,) = of_kind(documents, "RoleBinding")
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "bucket-reader", "namespace": "em"}]
    pods = [template["spec"] for template in templates(documents)]
    assert {pod["serviceAccountName"] for pod in pods} == {"bucket-reader"}
    assert [pod["automountServiceAccountToken"] for pod in pods] == [True, *([False] * 4)]


def test_a_site_may_bind_the_role_itself() -> None:
    documents = rendered(site(service_account="petaseg", bind_role=False))
    assert not {"ServiceAccount", "Role", "RoleBinding"} & {document["kind"] for document in documents}
    with pytest.raises(ConfigError, match=r"bind_role is false.*service_account, which is left out; name"):
        rendered(site(bind_role=False))


# -- labels, queues, nodes and devices ------------------------------------------------------------------------------


def test_labels_and_annotations_are_on_all_resources_and_pods() -> None:
    documents = rendered(EVERYTHING)
    for head in [each["metadata"] for each in (*documents, *templates(documents))]:
        assert SITE["labels"].items() <= head["labels"].items()
        assert SITE["annotations"].items() <= head["annotations"].items()
        assert head["labels"]["app.kubernetes.io/name"] == "petaseg"


def test_labels_of_petaseg_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"labels has app\.kubernetes\.io/instance, by which petaseg finds.*another"):
        submission(site(labels={"app.kubernetes.io/instance": "x"}))


@pytest.mark.parametrize(
    "keys", [{"queue": "em"}, {"labels": {QUEUE_LABEL: "em"}}, {"queue": "em", "labels": {QUEUE_LABEL: "em"}}]
)
def test_a_queue_holds_the_job_back(keys: dict[str, Any]) -> None:
    """Job and Deployments are in the queue of Kueue; the Job waits for its admission; pods are left to Kueue."""
    documents = rendered(site(**keys))
    (job,) = of_kind(documents, "Job")
    assert job["spec"]["suspend"] is True
    assert {each["metadata"]["labels"][QUEUE_LABEL] for each in (job, *of_kind(documents, "Deployment"))} == {"em"}
    assert not any(QUEUE_LABEL in template["metadata"]["labels"] for template in templates(documents))


def test_without_a_queue_the_job_starts_at_once() -> None:
    (job,) = of_kind(rendered(site()), "Job")
    assert "suspend" not in job["spec"]


def test_two_queues_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"queue is a and the label kueue\.x-k8s\.io/queue-name is b; leave"):
        submission(site(queue="a", labels={QUEUE_LABEL: "b"}))


def test_driver_and_workers_go_to_the_nodes_of_the_run_file() -> None:
    """Selectors, affinity, tolerations, priority and runtime are those of each table."""
    driver, *workers = (template["spec"] for template in templates(rendered(EVERYTHING)))
    assert driver["priorityClassName"] == "high"
    assert {pod["priorityClassName"] for pod in workers} == {"low"}
    for pod in (driver, *workers):
        assert pod["nodeSelector"] == {"disk": "ssd"}
        assert pod["runtimeClassName"] == "nvidia"
        (term,) = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
        assert term == {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a", "b"]}]}
        assert pod["tolerations"][-2:] == [
            {"key": "dedicated", "operator": "Equal", "value": "em", "effect": "NoSchedule"},
            {
                **{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"},
                "tolerationSeconds": 30,
            },
        ]


@pytest.mark.parametrize(
    ("resource", "keys"),
    [
        ("nvidia.com/gpu", ["nvidia.com/gpu"]),
        ("amd.com/gpu", ["amd.com/gpu"]),
        ("nvidia.com/mig-1g.5gb", ["nvidia.com/gpu", "nvidia.com/mig-1g.5gb"]),
    ],
)
def test_a_gpu_is_the_resource_of_the_run_file(resource: str, keys: list[str]) -> None:
    """Workers with GPUs, and no others, request the GPU by its name and tolerate the usual taints of such nodes."""
    table = {**site(), "inference_workers": {"gpus": 1, "gpu_resource": resource}}
    deployments = of_kind(rendered(table), "Deployment")
    pods = {each["metadata"]["name"].split("-", 2)[2]: each["spec"]["template"]["spec"] for each in deployments}
    limits = pods["inference"]["containers"][0]["resources"]["limits"]
    assert limits[resource] == "1"
    assert len(limits) == 3
    assert [each["key"] for each in pods["inference"]["tolerations"]] == keys
    assert "tolerations" not in pods["general"]


def test_scratch_files_have_a_limit_that_the_node_knows() -> None:
    """/tmp has the size of the run file, which is requested too; by default neither is limited."""
    for template in templates(rendered(EVERYTHING)):
        amounts = template["spec"]["containers"][0]["resources"]
        assert amounts["requests"] == amounts["limits"]
        assert amounts["limits"]["ephemeral-storage"] == "20000000000"
        assert template["spec"]["volumes"][0] == {"name": "tmp", "emptyDir": {"sizeLimit": "20000000000"}}
    assert all("ephemeral-storage" not in str(template) for template in templates(rendered(site())))


def test_the_image_is_fetched_as_the_run_file_says() -> None:
    containers = [template["spec"]["containers"][0] for template in templates(rendered(EVERYTHING))]
    assert {container["imagePullPolicy"] for container in containers} == {"Always"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"key": "a", "operator": "Exists", "value": "b"}, "operator is Exists, which is any value; leave one"),
        ({"value": "b"}, "without a key is for every taint; write operator: Exists"),
        ({"key": "a", "value": "b", "toleration_seconds": 3}, "toleration_seconds is 3.*write effect: NoExecute"),
        ({"key": "a b", "operator": "Exists"}, '"a b" is no key of a label; write name or domain/name'),
    ],
)
def test_a_toleration_that_no_cluster_accepts_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=rf"cluster\.workers\.tolerations\.0.*{words}"):
        submission({**site(), "workers": {"tolerations": [given]}})


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("gpu_resource", "gpu", r'"gpu" is no name of a device; write vendor/name, like amd\.com/gpu'),
        ("node_selector", {"a": "x y"}, '"x y" is no value of a label'),
        ("node_selector", {"a/b/c": "x"}, '"a/b/c" is no key of a label'),
        ("priority_class", "High", '"High" is no name of a resource'),
        ("node_affinity", {"zone": []}, "at least 1 item"),
    ],
)
def test_a_name_that_no_cluster_accepts_is_refused(key: str, value: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        submission({**site(), "workers": {key: value}})


# -- the network ----------------------------------------------------------------------------------------------------


def test_a_network_policy_admits_the_pods_of_the_run_alone() -> None:
    """Pods of the run reach each other, names and the ports outside; nobody else reaches them."""
    documents = rendered(EVERYTHING)
    (policy,) = of_kind(documents, "NetworkPolicy")
    (job,) = of_kind(documents, "Job")
    run = {"matchLabels": {"app.kubernetes.io/instance": job["metadata"]["name"]}}
    assert all(run["matchLabels"].items() <= each["metadata"]["labels"].items() for each in templates(documents))
    names = {"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]}
    outside = {"ports": [{"protocol": "TCP", "port": port} for port in (443, 6443, 9000)]}
    assert policy["spec"] == {
        "podSelector": run,
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [{"podSelector": run}]}],
        "egress": [{"to": [{"podSelector": run}]}, names, outside],
    }


def test_a_network_policy_leaves_metrics_and_dashboards_open() -> None:
    """Ports that the run file opens for others can be reached from outside; those on loopback are nobody's business."""
    execution = {"metrics": "0.0.0.0:9095", "dashboard": "127.0.0.1:8787"}
    (policy,) = of_kind(rendered(site(network_policy=True), execution=execution), "NetworkPolicy")
    assert policy["spec"]["ingress"][1:] == [{"ports": [{"protocol": "TCP", "port": 9095}]}]
    execution = {"dashboard": "0.0.0.0:8787"}
    (policy,) = of_kind(rendered(site(network_policy=True), execution=execution), "NetworkPolicy")
    assert [each["port"] for each in policy["spec"]["ingress"][1]["ports"]] == [8787, 8788, 8789, 8790]


def test_without_ports_outside_a_policy_opens_none() -> None:
    (policy,) = of_kind(rendered(site(network_policy=True, outside_ports=[])), "NetworkPolicy")
    assert len(policy["spec"]["egress"]) == 2, "a rule without ports would open all"
    assert of_kind(rendered(site()), "NetworkPolicy") == []


# -- which ends of a driver count -----------------------------------------------------------------------------------


def test_disruptions_do_not_count_and_hopeless_drivers_are_not_started_again() -> None:
    (job,) = of_kind(rendered(site()), "Job")
    ignored, final = job["spec"]["podFailurePolicy"]["rules"]
    assert ignored == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    container = job["spec"]["template"]["spec"]["containers"][0]
    status = {each["name"]: each.get("value") for each in container["env"]}["PETASEG_FINAL_STATUS"]
    values = {"containerName": container["name"], "operator": "In", "values": [2, int(str(status))]}
    assert final == {"action": "FailJob", "onExitCodes": values}
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never", "Kubernetes allows the policy only with it"


def test_a_driver_tells_hopeless_errors_by_its_exit_status(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the cluster asks for it, a wrong run file has a status of its own; at a terminal every error has 1."""
    errors = (ConfigError(), ModelError(), WorkerEnvironmentError(), StorageError(), ClusterError())
    assert {status_of(error) for error in errors} == {1}
    monkeypatch.setenv(jobs.FINAL, str(jobs.FINAL_STATUS))
    assert [status_of(error) for error in errors] == [78, 78, 1, 1, 1]
    monkeypatch.setattr("workflows.cli.STOPPED", {})  # leave the signals of this process alone
    monkeypatch.setattr("sys.argv", ["petaseg", "run", "/nowhere/run.yaml"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 78


def test_an_old_server_gets_a_job_that_it_knows() -> None:
    """Before 1.26 the rules for failed pods are left out, and nothing else; later servers get everything."""
    documents = made.manifests(submission(site()))
    before = copy.deepcopy(documents)
    assert fitted(documents, (1, 26)) == fitted(documents, (1, 40)) == fitted(documents, (2, 0)) == documents
    *others, job = fitted(documents, (1, 25))
    assert others == documents[:-1]
    assert set(documents[-1]["spec"]) - set(job["spec"]) == {"podFailurePolicy"}
    assert documents == before, "the given manifests stay as they are"


def test_a_server_that_cannot_hold_a_job_back_is_refused_for_a_queue() -> None:
    documents = made.manifests(submission(site(queue="em")))
    with pytest.raises(
        ClusterError, match=r"has release 1\.20.*cluster\.kubernetes\.queue needs release 1\.22.*leave it"
    ):
        fitted(documents, (1, 20))
    assert fitted(documents, (1, 22))[-1]["spec"]["suspend"] is True
