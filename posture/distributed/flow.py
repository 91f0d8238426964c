"""Optical flow of a store's clips, computed once, somewhere on the cluster, from the frames that the store holds.

As with clips, workers write Parquet files beside the table (`data/ingest/parquet_part.py`) and this process alone commits them, a
batch at a time: killed anywhere, at most one batch is computed again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import ray

from posture.data.feed.clips import clips_without_flow
from posture.data.feed.shards import Shard
from posture.data.ingest.parquet_part import ROW_GROUP_CLIPS, write_flow
from posture.data.store.lease import Lease
from posture.data.store.tables import Store
from posture.distributed import cluster
from posture.errors import InputError

CLIPS_PER_TASK = 3 * ROW_GROUP_CLIPS
COMMIT_CLIPS = 1024
COMMIT_SECONDS = 60.0


@dataclass
class FlowReport:
    """What there was to compute, and what was."""

    clips: int
    """In the store."""
    computed: int = 0
    bytes: int = 0
    """Written."""
    seconds: float = 0.0


def compute_flow(store: Store, method: str, *, progress: Callable[[int, int, float], None] | None = None) -> FlowReport:
    """Add the flow by `method` of every clip that has none. `progress(clips done, clips to do, clips/s)` is called as
    results come.

    Raises Busy where another ingest holds the store, InputError where a file of clips cannot be read or there are no
    clips.
    """
    began = time.time()
    with Lease(store.uri) as lease:
        store.create_tables()
        store.remove_orphans("flows")
        report = FlowReport(store.sizes()["clips"][1])
        if not report.clips:
            raise InputError(
                f"{store.uri}: the store holds no clips yet; add some with: posture ingest FOOTAGE --store {store.uri}"
            )
        keys, shards = clips_without_flow(store, method)
        parts: list[dict[str, Any]] = []
        committed = time.time()

        def commit() -> None:
            lease.check()
            store.commit_files("flows", parts)
            report.computed += sum(part["rows"] for part in parts)
            report.bytes += sum(part["bytes"] for part in parts)
            parts.clear()

        done = 0
        for part in _computed(store.uri, keys, shards, method):
            parts.append(part)
            done += part["rows"]
            if progress:
                progress(done, len(keys), done / (time.time() - began))
            if sum(part["rows"] for part in parts) >= COMMIT_CLIPS or time.time() - committed > COMMIT_SECONDS:
                commit()
                committed = time.time()
        commit()
        store.remove_orphans("flows")
    report.seconds = time.time() - began
    return report


def _computed(store_uri: str, keys: list[str], shards: list[Shard], method: str) -> Any:
    """The files that tasks wrote, as they end; a few more tasks are under way than there are CPUs."""
    if not keys:
        return
    cluster.connect()
    pieces = [
        replace(shard, rows=shard.rows[at : at + CLIPS_PER_TASK], indices=shard.indices[at : at + CLIPS_PER_TASK])
        for shard in shards
        for at in range(0, len(shard.rows), CLIPS_PER_TASK)
    ]
    compute, at_once = _compute.options(resources=cluster.decoding()), 2 * cluster.decoding_cpus()
    waiting: list[Any] = []
    for piece in [*pieces, None]:
        if piece is not None:
            waiting.append(compute.remote(store_uri, piece, [keys[index] for index in piece.indices], method))
        while waiting and (piece is None or len(waiting) > at_once):
            (job,), waiting = ray.wait(waiting, num_returns=1)
            part = ray.get(job)
            if isinstance(part, str):
                raise InputError(part)
            yield part


@ray.remote(scheduling_strategy="SPREAD")
def _compute(store_uri: str, shard: Shard, keys: list[str], method: str) -> dict[str, Any] | str:
    """The file that was written, or why there is none."""
    import cv2

    cv2.setNumThreads(1)  # as many tasks as cores are enough
    try:
        return write_flow(store_uri, shard, keys, method)
    except InputError as error:
        return str(error)
    except (OSError, ValueError) as error:  # pyarrow's errors are of these kinds
        return f"{store_uri}/clips/{shard.file}: its clips cannot be read ({str(error).splitlines()[0]}); ingest the footage into a new store"
