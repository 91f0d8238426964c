"""Feed clips and images from the store to training workers.

Footage that fits is read once into Ray's object store, one object per Parquet file, by plain tasks spread over the
nodes. A worker maps the objects of its node without copying, and reads clips in any order. (Ray Data takes seconds
before its first row, and deals out blocks instead of clips.) Footage that does not fit is streamed from the store by
each worker.
"""

# what may be None here depends on other values
# pyright: reportOptionalSubscript=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import ray

from posture.data.feed.shards import Index, Shard, read_shard
from posture.distributed import cluster
from posture.distributed.resources import READER_CPUS

OBJECT_STORE_SHARE = 0.6
"""Share of the cluster's object store that footage may fill."""


@dataclass
class Feed:
    """The clips or images of an index, for workers: for each input, references to its shards in the object store, or
    None to stream. It can be sent to workers.
    """

    index: Index
    shards: dict[str, list[Any]] | None

    def open(self) -> Any:
        """Return the clips or images, on a worker."""
        if self.shards is None:
            return self.index.streamed()
        return self.index.in_memory(lambda name, number: ray.get(self.shards[name][number]))


def feed(indices: Sequence[Index], *, mode: str, wait: bool = False) -> list[Feed]:
    """Return feeds for several splits; `mode` is `data.feed`. Reading goes on after this returns, unless `wait`.

    With `wait`, a few shards at a time are read by tasks that hold no CPU. Shards that are lost with a node can then be
    read again while runs hold every CPU; otherwise the runs and the reading would wait for each other.
    """
    needed = sum(index.bytes for index in indices)
    fits = needed <= OBJECT_STORE_SHARE * ray.cluster_resources().get("object_store_memory", 0.0)
    if mode == "stream" or (mode == "auto" and not fits):
        return [Feed(index, None) for index in indices]
    task = _read.options(resources=cluster.decoding(), num_cpus=0.0 if wait else READER_CPUS)
    if not wait:
        return [
            Feed(
                index,
                {
                    name: [task.remote(index.store_uri, shard) for shard in index.shards_of(name)]
                    for name in index.inputs
                },
            )
            for index in indices
        ]
    at_once, reading = max(1, int(cluster.decoding_cpus())), []

    def read(index: Index, shard: Shard) -> Any:
        if len(reading) >= at_once:
            ray.wait(reading, num_returns=len(reading) - at_once + 1, fetch_local=False)
        reading.append(task.remote(index.store_uri, shard))
        return reading[-1]

    feeds = [
        Feed(index, {name: [read(index, shard) for shard in index.shards_of(name)] for name in index.inputs})
        for index in indices
    ]
    ray.wait(reading, num_returns=max(1, len(reading)), fetch_local=False)
    return feeds


@ray.remote(scheduling_strategy="SPREAD")
def _read(store_uri: str, shard: Shard) -> pa.Table:
    return read_shard(store_uri, shard)
