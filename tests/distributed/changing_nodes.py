"""Elastic runs on a cluster whose nodes go: a head that trains nothing and two nodes of one CPU.

One run loses a node without a word; another is told that a node will be taken away (a preemption notice), and then
loses it. Prints, for each, its history, how many workers it had in turn, and every checkpoint that was its last
(`python -m tests.distributed.changing_nodes STORE RUNS`).
"""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
import threading
import time
from typing import Any

import ray
from ray._raylet import GcsClient
from ray.cluster_utils import Cluster
from ray.core.generated.autoscaler_pb2 import DrainNodeReason

from posture.distributed.train import train
from posture.runs.prepare import prepare
from tests.support.small_run import CALM, SMALL_ACTION

NOTICE_SECONDS = 15
HELD_SECONDS = 4
"""That the first worker is held still once Ray was told, so that the run is not through before Ray has looked who is to
be told.
"""
LONG = SMALL_ACTION | CALM | {"scale.workers": [1, 2], "scale.global_batch": 2, "epochs": 6}


def main(store: str, runs: str) -> None:
    found = {}
    for name, disturb in (("lost", lose), ("told", take_away)):
        # each on a cluster of its own: what coordinates elastic runs looks for nodes every few seconds only, and would
        # count those of the run before
        cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "object_store_memory": 150_000_000, "include_dashboard": False},
        )
        nodes = [cluster.add_node(num_cpus=1, object_store_memory=150_000_000) for _ in range(2)]
        cluster.wait_for_nodes()
        ray.init(cluster.address, log_to_driver=False)
        found[name] = elastic(store, runs, name, functools.partial(disturb, cluster, nodes[1]))
        ray.shutdown()
        cluster.shutdown()
    print(json.dumps(found))


def lose(cluster: Cluster, node: Any, process: int) -> None:
    cluster.remove_node(node, allow_graceful=False)


def take_away(cluster: Cluster, node: Any, process: int) -> None:
    reason = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    accepted, why = GcsClient(address=cluster.address).drain_node(
        node.node_id, reason, "spot", int((time.time() + NOTICE_SECONDS) * 1000)
    )
    assert accepted, why
    os.kill(process, signal.SIGSTOP)
    time.sleep(HELD_SECONDS)
    os.kill(process, signal.SIGCONT)
    time.sleep(NOTICE_SECONDS - HELD_SECONDS)
    cluster.remove_node(node, allow_graceful=False)


def elastic(store: str, runs: str, name: str, disturb: Any) -> dict[str, Any]:
    """Train, and disturb the cluster once, in the second epoch; `disturb` gets the process of the first worker."""
    session = prepare("jobs/action.py:improved_paper", store, runs=runs, name=name, changes=LONG)
    devices: list[str] = []
    checkpoints: list[str] = []
    disturbing: list[threading.Thread] = []
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.02):
            last = session.folder.checkpoints().get("last", "")
            if last and last not in checkpoints:
                checkpoints.append(last)

    def on_progress(update: dict[str, Any]) -> None:
        if update["epoch"] >= 2 and not disturbing:
            disturbing.append(threading.Thread(target=disturb, args=(update["process"],)))
            disturbing[0].start()

    looking = threading.Thread(target=look)
    looking.start()
    outcome = train(
        session,
        on_progress=on_progress,
        on_record=lambda record: None,
        on_device=devices.append,
        asked_to_stop=lambda: False,
    )
    done.set()
    for thread in (looking, *disturbing):
        thread.join()
    return {
        "outcome": outcome,
        "devices": devices,
        "checkpoints": checkpoints,
        "history": session.folder.read_json("history.json"),
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
