"""Start Ray nodes on this machine: `python -m tests.support.ray_nodes [CPUS OF EACH NODE]`, the head first.

The default is two nodes of one CPU. The program prints the address, then obeys one line at a time and prints when it is
done: `kill` the newest node, `add` one like it, `kill head`, `start` all nodes again at the same address.
"""

from __future__ import annotations

import sys
from typing import Any

from ray.cluster_utils import Cluster

MEMORY_BYTES = 150_000_000


def start(cpus: list[float], **head: Any) -> Cluster:
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": cpus[0], "object_store_memory": MEMORY_BYTES, "include_dashboard": False, **head},
    )
    for count in cpus[1:]:
        cluster.add_node(num_cpus=count, object_store_memory=MEMORY_BYTES)
    cluster.wait_for_nodes()
    return cluster


def main(cpus: list[float]) -> None:
    cluster = start(cpus)
    port = int(cluster.address.rpartition(":")[2])
    headless: list[Cluster] = []
    print(cluster.address, flush=True)
    for line in sys.stdin:
        said = "done"
        if line.strip() == "kill":
            cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)
            said = "killed"
        elif line.strip() == "add":
            cluster.add_node(num_cpus=cpus[-1], object_store_memory=MEMORY_BYTES)
        elif line.strip() == "kill head":
            cluster.remove_node(cluster.head_node, allow_graceful=False)
        elif line.strip() == "start":
            headless.append(cluster)
            cluster = start(cpus, gcs_server_port=port)
        print(said, flush=True)
    for one in (cluster, *headless):
        one.shutdown()


if __name__ == "__main__":
    main([float(count) for count in sys.argv[1:]] or [1.0, 1.0])
