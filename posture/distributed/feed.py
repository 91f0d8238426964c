"""Footage and images from the store to training workers.

What fits is read once into Ray's object store, one object per Parquet file, spread over the nodes by plain tasks; a
worker maps the objects of its node without copying and takes any clip at any time, in our order. (A Ray Data execution
costs seconds before its first row and deals blocks, not clips.) What does not fit, each worker streams from the store
itself.
"""

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
"""Of the cluster's object store, for footage."""


@dataclass
class Feed:
    """How workers get the clips or images of an index: for each input, references to its shards in memory, or None to
    stream. Travels to workers whole.
    """

    index: Index
    shards: dict[str, list[Any]] | None

    def open(self) -> Any:
        """Return the clips or images, on a worker."""
        if self.shards is None:
            return self.index.streamed()
        return self.index.in_memory(lambda name, number: ray.get(self.shards[name][number]))


def feed(indices: Sequence[Index], *, mode: str, wait: bool = False) -> list[Feed]:
    """Feeds for several splits; `mode` is `data.feed`. Reading has begun when this returns, it need not have ended.

    `wait`: it has ended, and held no CPU, a few shards at a time. Then what is lost with a node is read again even
    while runs that wait for it hold every CPU; otherwise they would wait for each other.
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
