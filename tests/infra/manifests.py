"""The YAML files of cluster/ and infra/, and the pods in them, for the tests here."""

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
KUBERNETES = [ROOT / "cluster" / "kuberay.yaml", *sorted((ROOT / "infra" / "kubernetes").glob("*.yaml"))]
TEXTS = [path for folder in ("cluster", "infra") for path in sorted((ROOT / folder).rglob("*")) if path.is_file()]
IMAGE = "registry.example.org/posture"


def documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.load_all(path.read_text(), Loader=yaml.CSafeLoader) if document]


MANIFESTS = [
    (f"{path.stem}-{document['kind']}-{document['metadata']['name']}", document)
    for path in KUBERNETES
    for document in documents(path)
]


def ray_clusters() -> list[tuple[str, dict[str, Any]]]:
    """(name of manifest, spec of a RayCluster) of each that stands in a manifest."""
    return [
        (name, document["spec"].get("rayClusterSpec", document["spec"]))
        for name, document in MANIFESTS
        if document["kind"].startswith("Ray")
    ]


def pods() -> list[tuple[str, dict[str, Any]]]:
    """(where it stands, spec) of every pod that the manifests lead to."""
    found = []
    for name, cluster in ray_clusters():
        groups = (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])
        found += [(f"{name}-{group.get('groupName', 'head')}", group["template"]["spec"]) for group in groups]
    for name, document in MANIFESTS:
        if document["kind"] == "RayJob":
            found.append((f"{name}-submitter", document["spec"]["submitterPodTemplate"]["spec"]))
        elif document["kind"] == "StatefulSet":
            found.append((name, document["spec"]["template"]["spec"]))
        elif document["kind"] == "CronJob":
            found.append((name, document["spec"]["jobTemplate"]["spec"]["template"]["spec"]))
    return found
