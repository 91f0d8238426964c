"""Measure Ray's own overhead: many logical nodes on this machine, and many blocks that do nothing.

`python -m cluster.ray_overhead`. Nodes have one CPU each, the head has none. The driver's and Ray's CPU time for each
block is bookkeeping, which depends little on the machine. Blocks per second are those of one machine that plays all
nodes; a real cluster does better.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

OBJECT_STORE_BYTES = 100_000_000
CONTROL = ("gcs_server", "raylet")
"""Ray's own processes: one gcs_server for the cluster, one raylet for each node."""
START_SECONDS = 180
"""Time limit for a node to start. Many start side by side on few cores; Ray's own limit is 30."""
SET = ("RAY_raylet_start_wait_time_s", "RAY_ADDRESS")
"""Environment variables that a measurement sets and restores."""


def measure(nodes: list[int], blocks: list[int]) -> Iterator[dict[str, Any]]:
    """Yield a row for each number of nodes, way of running, and number of blocks: {"nodes", "way", "blocks", "seconds",
    "driver_ms", "control_ms"}.

    The last two are the CPU time for each block of this process and of Ray's own processes. `nodes` must ascend,
    because nodes are only added.
    """
    import ray
    from ray.cluster_utils import Cluster

    from posture.distributed.cluster import connect

    before, cluster = {name: os.environ.get(name) for name in SET}, None
    try:
        os.environ[SET[0]] = str(START_SECONDS)
        cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False},
        )
        os.environ[SET[1]] = cluster.address
        connect()
        there = 0
        for count in nodes:
            for _ in range(count - there):
                cluster.add_node(num_cpus=1, object_store_memory=OBJECT_STORE_BYTES)
            there = count
            cluster.wait_for_nodes()
            for way, run in (("tasks", _tasks), ("Ray Data", _dataset)):
                run(4 * count)  # starts a worker on each node, untimed
                for number in blocks:
                    yield {"nodes": count, "way": way, "blocks": number, **_cost(run, number)}
    finally:
        ray.shutdown()
        if cluster is not None:
            cluster.shutdown()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _cost(run: Callable[[int], None], number: int) -> dict[str, float]:
    began, driver, control = time.perf_counter(), time.process_time(), _control_seconds()
    run(number)
    seconds, driver = time.perf_counter() - began, time.process_time() - driver
    # a process of an earlier cluster may end meanwhile; its seconds so far would count as negative
    spent = sum(now - control[process] for process, now in _control_seconds().items() if process in control)
    return {"seconds": seconds, "driver_ms": 1000 * driver / number, "control_ms": 1000 * spent / number}


def _control_seconds() -> dict[Any, float]:
    """Return the CPU time that each of Ray's own processes has used so far, by process."""
    import psutil

    seconds: dict[Any, float] = {}
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.name() in CONTROL:
                seconds[process] = sum(process.cpu_times()[:2])
    return seconds


def _tasks(number: int) -> None:
    """Run `number` plain tasks, as reading a store into memory does."""
    import ray

    nothing = ray.remote(num_cpus=1, scheduling_strategy="SPREAD")(_nothing)
    ray.get([nothing.remote(place) for place in range(number)])


def _dataset(number: int) -> None:
    """Send `number` blocks through a dataset, as ingest and streamed footage do."""
    import ray

    dataset = ray.data.from_items(
        [{"place": place} for place in range(number)], override_num_blocks=number
    ).map_batches(_nothing, batch_size=None)
    assert sum(len(batch["place"]) for batch in dataset.iter_batches(batch_size=None)) == number


def _nothing(block: Any) -> Any:
    return block


HEADER = """\
| nodes | blocks by | blocks | blocks/s | driver, CPU ms a block | Ray's processes, CPU ms a block |
|---:|---|---:|---:|---:|---:|"""


def line(row: dict[str, Any]) -> str:
    """Return a row as Markdown, to go below `HEADER`."""
    return (
        f"| {row['nodes']} | {row['way']} | {row['blocks']:,} | {row['blocks'] / row['seconds']:,.0f} | "
        f"{row['driver_ms']:.2f} | {row['control_ms']:.2f} |"
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m cluster.ray_overhead", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--nodes",
        type=int,
        nargs="+",
        default=[1, 4, 8],
        help="ascending numbers of logical nodes; each takes about 300 MB",
    )
    parser.add_argument("--blocks", type=int, nargs="+", default=[200, 1000], help="tiny blocks")
    parser.add_argument("--json", type=Path, help="also write every number here")
    given = parser.parse_args(arguments)
    if given.nodes != sorted(set(given.nodes)) or min(given.nodes + given.blocks) < 1:
        parser.error("--nodes must ascend, and all numbers must be at least 1")
    rows = []
    print(HEADER)
    for row in measure(given.nodes, given.blocks):
        rows.append(row)
        print(line(row), flush=True)
    if given.json:
        given.json.write_text(json.dumps({"cpus": os.cpu_count(), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
