"""A cluster of a head without CPUs, a node that decodes and one that trains: ingests, computes flow, trains and scores
there, and prints which of the two nodes was ever seen at work by each (`python -m tests.distributed.decode_nodes
FOOTAGE FOLDER`).
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray._private.state import available_resources_per_node
from ray.cluster_utils import Cluster

from posture.data.decode.cut import Cut
from posture.data.ingest.clip_ledger import IngestOptions
from posture.data.labels.videos import read_footage
from posture.data.store.schema import DecodeRecipe
from posture.data.store.tables import Store
from posture.distributed import cluster
from posture.distributed.evaluate import predict
from posture.distributed.ingest import compute_flow, ingest
from posture.distributed.train import train
from posture.runs.figures import Views
from posture.runs.prepare import prepare
from tests.support.small_run import SMALL_ACTION

CHANGES = SMALL_ACTION | {"epochs": 2, "tracking.mode": "off"}


@contextmanager
def watched(names: dict[str, str], seen: set[str]) -> Iterator[None]:
    """Adds to `seen` the names of nodes that are not idle, ten times a second."""
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.1):
            free = available_resources_per_node()
            seen.update(name for node, name in names.items() if free.get(node, {}).get("CPU", 0.0) < 1.0)

    watcher = threading.Thread(target=look)
    watcher.start()
    yield
    ended.set()
    watcher.join()


def main(footage: str, folder: str) -> None:
    nodes = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "object_store_memory": 100_000_000, "include_dashboard": False},
    )
    names = {
        nodes.add_node(num_cpus=1, object_store_memory=150_000_000, resources=resources).node_id: name
        for name, resources in (("decodes", {"decode": 1}), ("trains", {}))
    }
    nodes.wait_for_nodes()
    ray.init(nodes.address, log_to_driver=False)
    store, seen = f"{folder}/store", {what: set() for what in ("ingest", "flow", "train", "score")}
    with watched(names, seen["ingest"]):
        ingest(read_footage(footage), Store(store, create=True), IngestOptions(cut=Cut(DecodeRecipe(32, 40, 20, 2, 2))))
    with watched(names, seen["flow"]):
        compute_flow(Store(store), "dis")
    session = prepare("jobs/action.py:improved", store, runs=f"{folder}/runs", name="placed", changes=CHANGES)
    began = threading.Event()
    with watched(names, seen["train"]):  # reading is over when training begins: so it is looked at from then on
        train(
            session,
            on_progress=lambda update: began.is_set() or (began.set(), seen["train"].clear()),
            on_record=lambda record: None,
            on_device=lambda name: None,
            asked_to_stop=lambda: False,
        )
    with watched(names, seen["score"]), session.folder.checkpoint("last") as checkpoint:
        predict(session.val, session.run, checkpoint, views=Views(), workers=1, batch=4)
    print(
        json.dumps(
            {what: sorted(found) for what, found in seen.items()}
            | {"sizes": cluster.sizes(), "clips": Store(store).sizes()["clips"][1]}
        )
    )
    ray.shutdown()
    nodes.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
