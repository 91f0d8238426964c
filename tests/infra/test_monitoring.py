"""Prometheus' configuration and the Grafana dashboard: what they name is there."""

import json
import re
from pathlib import Path

import pytest
import ray
import yaml

from posture.distributed.metrics import METRICS
from tests.infra.manifests import MANIFESTS, ROOT, ray_clusters

MONITORING = ROOT / "infra" / "monitoring"
DASHBOARD = json.loads((MONITORING / "grafana-dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]
QUERIES += [variable["query"]["query"] for variable in DASHBOARD["templating"]["list"] if variable["type"] == "query"]
OURS = {
    "ray_posture_clips_total": {"run", "stage"},
    "ray_posture_clips_per_second": {"run", "stage"},
    "ray_posture_data_wait_share": {"run"},
    "ray_posture_epoch": {"run"},
    "ray_posture_validation": {"run", "metric"},
    "ray_posture_trials": {"search", "state"},
}
"""Our metrics as Ray publishes them, and their labels."""
NAMED = {name for query in QUERIES for name in re.findall(r"\b(?:ray|autoscaler)_\w+", query)}


@pytest.fixture(scope="module")
def of_ray():
    """The source of Ray's own dashboards, which query what Ray publishes."""
    return "".join(
        path.read_text()
        for path in (Path(ray.__file__).parent / "dashboard" / "modules" / "metrics" / "dashboards").glob("*.py")
    )


def test_every_metric_is_ours_or_ray_s(of_ray):
    assert {name for name in NAMED - set(OURS) if not re.search(rf"\b{name}\b", of_ray)} == set()


def test_ours_are_those_that_are_emitted():
    assert {f"ray_{name}": set(labels) for name, (_, labels) in METRICS.items()} == OURS


def test_all_of_ours_are_shown_and_told():
    told = dict(
        re.findall(r"^\| `(ray_posture_\w+)` \| (.+?) \|", (ROOT / "infra" / "README.md").read_text(), re.MULTILINE)
    )
    assert set(OURS) <= NAMED and set(told) == set(OURS)
    assert {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in told.items()} == OURS


@pytest.mark.parametrize("query", QUERIES)
def test_labels_of_ours_exist(query):
    for name in set(re.findall(r"\bray_posture_\w+", query)):
        grouped = {label.strip() for labels in re.findall(r"by \((.*?)\)", query) for label in labels.split(",")}
        selected = set(re.findall(r"(\w+)=~?\"", query)) | set(re.findall(r"label_values\(\w+, (\w+)\)", query))
        assert grouped | selected <= OURS[name]
    assert query.count("(") == query.count(")") and query.count("{") == query.count("}")


def test_what_matters_is_shown():
    shown = {
        "clips/s": "ray_posture_clips_per_second",
        "GPU use": "ray_node_gpus_utilization",
        "waiting for data": "ray_posture_data_wait_share",
        "spilled bytes": 'ray_object_store_memory{Location="SPILLED"}',
        "trials": "ray_posture_trials",
        "epochs": "ray_posture_epoch",
        "preemptions": "autoscaler_recently_failed_nodes",
    }
    assert {what for what, metric in shown.items() if not any(metric in query for query in QUERIES)} == set()


def test_panels_do_not_overlap():
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells)) and max(x for x, _ in cells) < 24


def test_prometheus_asks_the_dashboard_with_the_token():
    (job,) = yaml.safe_load((MONITORING / "prometheus.yml").read_text())["scrape_configs"]
    (discovery,) = job["http_sd_configs"]
    path = discovery["url"].removeprefix("http://127.0.0.1:8265")
    assert (
        f'"{path}"'
        in (Path(ray.__file__).parent / "dashboard" / "modules" / "reporter" / "reporter_head.py").read_text()
    )
    assert discovery["authorization"] == {"credentials_file": "/etc/prometheus/ray_auth_token"}


def test_prometheus_in_kubernetes_finds_the_ports_that_pods_name_and_the_policy_opens():
    (job,) = yaml.safe_load((MONITORING / "prometheus-kubernetes.yml").read_text())["scrape_configs"]
    kept = re.compile(job["relabel_configs"][0]["regex"])
    policy = next(document["spec"] for name, document in MANIFESTS if name == "network-policy-NetworkPolicy-ray")
    opened = {entry["port"] for rule in policy["ingress"] for entry in rule.get("ports", [])}
    for _, cluster in ray_clusters():
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
            ports = {
                port["name"]: port["containerPort"] for port in group["template"]["spec"]["containers"][0]["ports"]
            }
            scraped = {number for name, number in ports.items() if kept.fullmatch(name)}
            assert 8080 in scraped and scraped <= opened and group["rayStartParams"]["metrics-export-port"] == "8080"
