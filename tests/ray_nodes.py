"""Two Ray nodes of one CPU each on this machine, in a process of their own: prints the address, then kills the second node when a line comes."""

from __future__ import annotations

import sys

from ray.cluster_utils import Cluster

if __name__ == "__main__":
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 150_000_000, "include_dashboard": False})
    second = cluster.add_node(num_cpus=1, object_store_memory=150_000_000)
    cluster.wait_for_nodes()
    print(cluster.address, flush=True)
    for line in sys.stdin:
        if line.strip() == "kill":
            cluster.remove_node(second, allow_graceful=False)
            print("killed", flush=True)
    cluster.shutdown()
