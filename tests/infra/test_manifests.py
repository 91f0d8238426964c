"""The manifests are valid by the definitions of their kinds, confined and bounded, and use one image."""

import ipaddress
import re
import subprocess
from functools import cache

import jsonschema
import kubernetes_validate
import pytest
import yaml

from posture import __version__
from tests.infra.manifests import IMAGE, KUBERNETES, MANIFESTS, ROOT, TEXTS, pods, ray_clusters

SCHEMAS = ROOT.parent / "shared" / "schemas" / "kuberay"
CONFINED = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
RAY = [pair for pair in MANIFESTS if pair[1]["apiVersion"].startswith("ray.io/")]
OTHERS = [pair for pair in MANIFESTS if pair not in RAY]
NEEDS_SCHEMAS = pytest.mark.skipif(
    not SCHEMAS.exists(), reason=f"{SCHEMAS} has no definitions of KubeRay; its names are checked by a list here"
)
NAMES = {
    kind: set(names.split())
    for kind, names in {
        "RayJob": "activeDeadlineSeconds backoffLimit clusterSelector deletionStrategy entrypoint entrypointNumCpus "
        "entrypointNumGpus entrypointResources jobId managedBy metadata preRunningDeadlineSeconds rayClusterSpec "
        "runtimeEnvYAML shutdownAfterJobFinishes submissionMode submitterConfig submitterPodTemplate suspend "
        "ttlSecondsAfterFinished",
        "RayCluster": "authOptions autoscalerOptions enableInTreeAutoscaling gcsFaultToleranceOptions headGroupSpec "
        "headServiceAnnotations historyServerOptions managedBy networkPolicy rayVersion suspend tlsOptions "
        "upgradeStrategy workerGroupSpecs",
        "headGroupSpec": "enableIngress headService ingressOptions labels rayStartParams resources serviceType "
        "template",
        "workerGroupSpecs": "groupName idleTimeoutSeconds labels maxReplicas minReplicas numOfHosts priority "
        "rayStartParams replicas resources scaleStrategy suspend template",
        "autoscalerOptions": "args command env envFrom idleTimeoutSeconds image imagePullPolicy resources "
        "securityContext upscalingMode version volumeMounts",
    }.items()
}
"""Fields of KubeRay's kinds in ray.io/v1, outside of the pods."""


@cache
def definition(kind, version):
    """Return a validator of a kind by KubeRay's schema; like `kubectl apply`, it refuses unknown names."""
    resource = yaml.load((SCHEMAS / f"ray.io_{kind.lower()}s.yaml").read_text(), Loader=yaml.CSafeLoader)
    schema = next(found for found in resource["spec"]["versions"] if found["name"] == version)["schema"][
        "openAPIV3Schema"
    ]
    close(schema["properties"]["spec"])
    return jsonschema.Draft202012Validator(schema)


def close(schema):
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        schema.setdefault("additionalProperties", False)
    children = [*schema.get("properties", {}).values(), schema.get("items"), schema.get("additionalProperties")]
    for child in children:
        if isinstance(child, dict):
            close(child)


@NEEDS_SCHEMAS
@pytest.mark.parametrize("manifest", [pair[1] for pair in RAY], ids=[pair[0] for pair in RAY])
def test_kuberay_accepts(manifest):
    definition(manifest["kind"], manifest["apiVersion"].split("/")[1]).validate(manifest)


@NEEDS_SCHEMAS
def test_the_names_here_are_those_of_kuberay_s_definitions():
    spec = {
        kind: definition(kind, "v1").schema["properties"]["spec"]["properties"] for kind in ("RayCluster", "RayJob")
    }
    cluster = spec["RayCluster"]
    spec |= {part: cluster[part]["properties"] for part in ("headGroupSpec", "autoscalerOptions")}
    spec["workerGroupSpecs"] = cluster["workerGroupSpecs"]["items"]["properties"]
    assert {kind: set(properties) for kind, properties in spec.items()} == NAMES


@pytest.mark.parametrize("manifest", [pair[1] for pair in RAY], ids=[pair[0] for pair in RAY])
def test_manifests_for_kuberay_have_no_other_names(manifest):
    assert manifest["apiVersion"] == "ray.io/v1" and set(manifest["spec"]) <= NAMES[manifest["kind"]]
    cluster = manifest["spec"].get("rayClusterSpec", manifest["spec"])
    assert set(cluster) <= NAMES["RayCluster"] and set(cluster["headGroupSpec"]) <= NAMES["headGroupSpec"]
    assert set(cluster.get("autoscalerOptions", ())) <= NAMES["autoscalerOptions"]
    for group in cluster["workerGroupSpecs"]:
        assert {"groupName", "maxReplicas", "minReplicas", "template"} <= set(group) <= NAMES["workerGroupSpecs"]


@pytest.mark.parametrize(("where", "pod"), pods(), ids=[where for where, _ in pods()])
def test_kubernetes_accepts_the_pods(where, pod):
    manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": where.lower()}, "spec": pod}
    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


@NEEDS_SCHEMAS
def test_a_name_that_kuberay_does_not_know_is_refused():
    head = {"template": {"spec": {"containers": [{"name": "ray", "imgae": "x"}]}}}
    manifest = {"apiVersion": "ray.io/v1", "kind": "RayCluster", "spec": {"headGroupSpec": head}}
    with pytest.raises(jsonschema.ValidationError, match="imgae"):
        definition("RayCluster", "v1").validate(manifest)


@pytest.mark.parametrize("manifest", [pair[1] for pair in OTHERS], ids=[pair[0] for pair in OTHERS])
def test_kubernetes_accepts(manifest):
    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


def test_everything_stands_in_one_namespace():
    assert {document["metadata"].get("namespace", document["metadata"]["name"]) for _, document in MANIFESTS} == {
        "posture"
    }


@pytest.mark.parametrize(("where", "pod"), pods(), ids=[where for where, _ in pods()])
def test_pods_are_confined_and_bounded(where, pod):
    """Pods keep the rules of the namespace's level `restricted`, and all have limits."""
    person = pod["securityContext"]
    assert person["runAsNonRoot"] and person["runAsUser"] > 0 and person["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not any(pod.get(name) for name in ("hostNetwork", "hostPID", "hostIPC"))
    assert not any("hostPath" in volume for volume in pod.get("volumes", []))
    for container in pod["containers"]:
        assert container["securityContext"] == CONFINED
        assert {mount["mountPath"] for mount in container["volumeMounts"]} >= {"/tmp"}
        limits, requests = container["resources"]["limits"], container["resources"]["requests"]
        assert (
            set(limits) == set(requests)
            and {"cpu", "memory", "ephemeral-storage"} <= set(limits)
            and limits["memory"] == requests["memory"]
        )
    assert pod["automountServiceAccountToken"] is False
    mounted = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
    assert all(volume["emptyDir"]["sizeLimit"] for volume in pod["volumes"] if "emptyDir" in volume)
    assert not any("projected" in volume for volume in pod["volumes"] if volume["name"] in mounted), (
        "a container with jobs has the account's token"
    )


def test_the_autoscaler_is_confined_and_bounded_too():
    (options,) = [
        cluster["autoscalerOptions"] for _, cluster in ray_clusters() if cluster.get("enableInTreeAutoscaling")
    ]
    assert options["securityContext"] == CONFINED
    assert options["resources"]["limits"] and options["resources"]["requests"]


def test_the_autoscaler_alone_has_the_account_s_token():
    """The token is where Kubernetes mounts it, with the files that its client reads beside it."""
    (cluster,) = [cluster for _, cluster in ray_clusters() if cluster.get("enableInTreeAutoscaling")]
    mounts = {mount["mountPath"]: mount for mount in cluster["autoscalerOptions"]["volumeMounts"]}
    mount = mounts["/var/run/secrets/kubernetes.io/serviceaccount"]
    volumes = {volume["name"]: volume for volume in cluster["headGroupSpec"]["template"]["spec"]["volumes"]}
    assert (
        mount["readOnly"]
        and set(mounts) == {"/tmp", mount["mountPath"]}
        and set(volumes) >= {entry["name"] for entry in mounts.values()}
    )
    kinds = {kind: source[kind] for source in volumes[mount["name"]]["projected"]["sources"] for kind in source}
    assert kinds["serviceAccountToken"]["path"] == "token" and kinds["configMap"]["items"][0]["path"] == "ca.crt"
    assert kinds["downwardAPI"]["items"][0]["path"] == "namespace"


def amount(text):
    """Kubernetes' numbers: 250m, 12Gi, 8."""
    units = {"m": 1e-3, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
    unit = next((unit for unit in units if text.endswith(unit)), "")
    return float(text.removesuffix(unit)) * units.get(unit, 1)


def test_the_quota_holds_the_largest_cluster_a_job_and_a_night_s_pass():
    (hard,) = [document["spec"]["hard"] for _, document in MANIFESTS if document["kind"] == "ResourceQuota"]
    counts = {"decode": None, "gpu": None}
    total = {}
    for where, pod in pods():
        replicas = 1
        for name, cluster in ray_clusters():
            for group in cluster["workerGroupSpecs"]:
                if where == f"{name}-{group['groupName']}":
                    replicas = counts[group["groupName"]] = group["maxReplicas"]
        total["pods"] = total.get("pods", 0) + replicas
        for container in pod["containers"]:
            for kind in ("requests", "limits"):
                for resource, text in container["resources"][kind].items():
                    total[f"{kind}.{resource}"] = total.get(f"{kind}.{resource}", 0) + replicas * amount(text)
    assert all(counts.values()) and total["requests.nvidia.com/gpu"] >= 8
    for resource, needed in total.items():
        if not resource.startswith("limits.nvidia"):  # a quota has requests of such resources alone
            assert needed <= amount(hard[resource]) <= 1.5 * needed, f"{resource}: {needed:g} are needed"
    assert hard["services.loadbalancers"] == hard["services.nodeports"] == "0"


def test_one_image_and_its_tag_is_the_version():
    """And a digest, which no one can move as a tag can be."""
    named = {container["image"] for _, pod in pods() for container in pod["containers"]}
    assert {re.sub(r"@sha256:[0-9a-f]{64}$", "", image) for image in named} == {
        f"{IMAGE}:{__version__}",
        "postgres:17.6-bookworm",
    }
    assert all("@sha256:" in image for image in named)
    for path in TEXTS:
        assert set(re.findall(rf"{re.escape(IMAGE)}:([^\s@]+)", path.read_text())) <= {__version__}, path


def test_what_is_left_to_fill_in_is_named(tmp_path):
    check = ["sh", str(ROOT / "infra" / "check.sh")]
    done = subprocess.run(check, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and "fill in these lines" in done.stderr
    for left in (
        "cluster/kuberay.yaml:",
        "postgres.yaml:",
        "cidr: 192.0.2.1/32",
        "cidr: 198.51.100.0/24",
        "cidr: 203.0.113.0/24",
    ):
        assert left in done.stdout
    filled = []
    for path in KUBERNETES:
        text = re.sub(r"sha256:0{64}", f"sha256:{'ab' * 32}", path.read_text()).replace(
            "registry.example.org", "registry.lab.net"
        )
        filled.append(tmp_path / path.name)
        filled[-1].write_text(re.sub(r"cidr: (192\.0\.2|198\.51\.100|203\.0\.113)\.", "cidr: 10.1.2.", text))
    done = subprocess.run([*check, *map(str, filled)], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    filled[0].write_text(filled[0].read_text().replace(f"@sha256:{'ab' * 32}", ""))  # a tag alone
    assert subprocess.run([*check, *map(str, filled)], capture_output=True, timeout=60, check=False).returncode == 1


@pytest.mark.parametrize(("name", "cluster"), ray_clusters(), ids=[name for name, _ in ray_clusters()])
def test_ray_asks_for_a_token_and_is_the_image_s(name, cluster):
    assert cluster["authOptions"] == {"mode": "token"}
    assert f"ray=={cluster['rayVersion']} " in (ROOT / "infra" / "requirements.txt").read_text()


@pytest.mark.parametrize(("name", "cluster"), ray_clusters(), ids=[name for name, _ in ray_clusters()])
def test_the_autoscaler_s_own_reading_sends_work_where_it_belongs(name, cluster):
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

    kinds = _derive_autoscaling_config_from_ray_cr({
        "metadata": {"name": "posture", "namespace": "posture"},
        "spec": cluster,
    })["available_node_types"]
    resources = {
        name: {key: value for key, value in kind["resources"].items() if key != "memory"}
        for name, kind in kinds.items()
    }
    assert kinds["gpu"]["min_workers"] and kinds["decode"]["min_workers"], (
        "a run looks at the nodes that are there when it begins"
    )
    assert resources["headgroup"] == {"CPU": 0, "driver": 8}
    assert resources["gpu"] == {"CPU": 8, "GPU": 1}
    assert resources["decode"] == {"CPU": 16, "decode": 16}


def test_no_manifest_holds_a_secret():
    secret = re.compile(r"KEY|SECRET|TOKEN|PASSWORD")
    for _, pod in pods():
        for container in pod["containers"]:
            assert all(
                "value" not in variable for variable in container.get("env", []) if secret.search(variable["name"])
            )
    for _, document in MANIFESTS:
        if document["kind"] == "Secret":
            assert set(document["stringData"].values()) == {""} and "data" not in document


def test_no_file_holds_a_secret():
    shapes = {
        "AWS key": r"\bA(KIA|SIA)[0-9A-Z]{16}\b",
        "private key": r"BEGIN [A-Z ]*PRIVATE KEY",
        "40 hexadecimal digits": r"(?<!sha256:)\b[0-9a-f]{40,}\b",
        "password in an address": r"://[^/\s:@]+:[^/\s@]+@",
        "an assignment": r"(?i)\b\w*(password|secret|token|api_key)\w*\s*[=:]\s*[\"']?[A-Za-z0-9+/_-]{16,}\b",
    }
    for path in TEXTS:
        for what, shape in shapes.items():
            found = re.search(shape, path.read_text())
            assert not found, f"{path.relative_to(ROOT)} holds what looks like {what}: {found.group()}"


def test_the_secrets_that_pods_read_are_those_that_are_described():
    described = {
        (document["metadata"]["name"], key)
        for _, document in MANIFESTS
        if document["kind"] == "Secret"
        for key in document["stringData"]
    }
    token = {("posture", "auth_token")}  # KubeRay makes it, named like the cluster
    for where, pod in pods():
        for container in pod["containers"]:
            sources = [variable["valueFrom"] for variable in container.get("env", []) if "valueFrom" in variable]
            keys = [source["secretKeyRef"] for source in sources if "secretKeyRef" in source]
            assert {(key["name"], key["key"]) for key in keys} <= described | token, where
            assert {source["secretRef"]["name"] for source in container.get("envFrom", [])} <= {
                name for name, _ in described
            }, where


POLICIES = {
    document["metadata"]["name"]: document["spec"] for _, document in MANIFESTS if document["kind"] == "NetworkPolicy"
}


def test_nothing_may_talk_unless_it_is_named():
    assert POLICIES["deny-all"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_a_dashboard_on_all_addresses_is_behind_the_policy():
    """Ray's ports are open to Ray's own pods; the dashboard besides to those that hand in jobs and to the operator."""
    for path in TEXTS:
        if "0.0.0.0" in path.read_text().replace("0.0.0.0/0", ""):
            assert path.suffix == ".yaml" and "namespace: posture" in path.read_text(), (
                f"{path.relative_to(ROOT)} opens a port that no policy guards"
            )
    nodes = {"ray.io/is-ray-node": "yes"}
    allowed = {}
    for rule in [*POLICIES["ray"]["ingress"], *POLICIES["dashboard"]["ingress"]]:
        for port in [entry["port"] for entry in rule.get("ports", [{"port": "all"}])]:
            allowed.setdefault(port, []).extend(rule["from"])
    assert allowed.pop("all") == [{"podSelector": {"matchLabels": nodes}}]
    assert allowed.pop(8265) == [
        {"podSelector": {"matchLabels": {"app.kubernetes.io/component": "submitter"}}},
        {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kuberay-system"}},
            "podSelector": {"matchLabels": {"app.kubernetes.io/name": "kuberay-operator"}},
        },
    ]
    assert set(allowed) == {8080, 44217, 44227} and all(
        "namespaceSelector" in source for sources in allowed.values() for source in sources
    )


def test_only_named_addresses_can_be_reached():
    """Machine metadata is none of them, and no block is larger than a company's. The API server is for the head, whose
    pod has the autoscaler.
    """
    ports = {}
    for name, policy in POLICIES.items():
        for rule in policy.get("egress", []):
            for target in rule["to"]:
                if "ipBlock" in target:
                    network = ipaddress.ip_network(target["ipBlock"]["cidr"])
                    assert network.prefixlen >= 16 and not network.overlaps(ipaddress.ip_network("169.254.0.0/16"))
                    ports.setdefault(name, set()).update(port["port"] for port in rule["ports"])
    assert ports == {"ray": {443}, "autoscaler": {443, 6443}}
    assert POLICIES["autoscaler"]["podSelector"]["matchLabels"] == {"ray.io/node-type": "head"}
    assert all(
        "namespaceSelector" not in source or source["namespaceSelector"].get("matchLabels")
        for policy in POLICIES.values()
        for rule in (*policy.get("ingress", []), *policy.get("egress", []))
        for source in rule.get("from", rule.get("to", []))
    )


def test_submitters_carry_the_label_that_lets_them_in():
    templates = [document["spec"]["submitterPodTemplate"] for _, document in MANIFESTS if document["kind"] == "RayJob"]
    templates += [
        document["spec"]["jobTemplate"]["spec"]["template"]
        for _, document in MANIFESTS
        if document["kind"] == "CronJob"
    ]
    assert len(templates) == 2 and all(
        template["metadata"]["labels"] == {"app.kubernetes.io/component": "submitter"} for template in templates
    )
