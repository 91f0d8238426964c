"""Optical flow of the clips that a store holds, computed once from their stored frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from posture.data.decode.optical_flow import BOUND, flow_of_clip
from posture.data.feed.clips import StoredArrays, clips_without_flow
from posture.data.feed.shards import Shard, cut_shards, read_shard
from posture.data.ingest.engine import Progress, Returned, Spread, here, ingest
from posture.data.ingest.ledger import Ledger
from posture.data.ingest.parquet_part import ParquetPart
from posture.data.store.tables import Store
from posture.errors import InputError

CLIPS_PER_TASK = 24


@dataclass(frozen=True)
class FlowOptions:
    method: str
    commit_after: int = 1024
    """Clips per commit."""
    commit_seconds: float = 60.0


@dataclass
class FlowReport:
    """Result of computing optical flow."""

    clips: int = 0
    """Clips in the store."""
    computed: int = 0
    bytes: int = 0
    """Bytes written."""
    seconds: float = 0.0


@dataclass(frozen=True)
class FlowJob:
    """Clips of one Parquet file, whose ids are `keys`."""

    shard: Shard
    keys: list[str]

    @property
    def size(self) -> int:
        return len(self.keys)

    steps = size


class FlowLedger(Ledger):
    """Flow that was computed and not yet committed."""

    table = "flows"

    def plan(self, source: str) -> list[FlowJob]:
        """Return the clips that have no flow by the method `source`. Raises InputError if the store has no clips."""
        store = self._store
        self._report.clips = store.sizes()["clips"][1]
        if not self._report.clips:
            raise InputError(
                f"{store.uri}: the store holds no clips yet; add some with: posture ingest FOOTAGE --store {store.uri}"
            )
        keys, shards = clips_without_flow(store, source)
        pieces = cut_shards(shards, CLIPS_PER_TASK)
        return [FlowJob(piece, [keys[index] for index in piece.indices]) for piece in pieces]

    def _record(self) -> None:
        self._report.computed += sum(part["rows"] for part in self._parts)
        self._report.bytes += sum(part["bytes"] for part in self._parts)


def add_flow(
    store: Store, options: FlowOptions, *, spread: Spread = here, progress: Progress | None = None
) -> FlowReport:
    """Add the flow of every clip that has none by that method. `progress` counts clips.

    Raises Busy if another ingest holds the store, InputError if the store has no clips or a file of clips cannot be
    read.
    """
    report = FlowReport()
    how: dict[str, Any] = {"per_task": CLIPS_PER_TASK, "spread": spread, "progress": progress}
    ingest(FlowLedger, store, options, report, options.method, write_flow, **how)
    return report


def write_flow(jobs: list[FlowJob], *, store_uri: str, options: FlowOptions) -> Returned:
    """Compute the flow of the clips and write it as one Parquet file. Raises InputError if clips cannot be read."""
    part = ParquetPart(store_uri, "flows", compress=True)
    for job in jobs:
        try:
            clips = StoredArrays(read_shard(store_uri, job.shard))
            for index, key in enumerate(job.keys):
                part.write(_flow_row(key, clips[index], options.method))
        except InputError:
            raise
        except (OSError, ValueError) as error:  # pyarrow's errors are of these kinds
            raise InputError(
                f"{store_uri}/clips/{job.shard.file}: its clips cannot be read ({str(error).splitlines()[0]}); "
                "ingest the footage into a new store"
            ) from None
    return jobs, part.close()


def _flow_row(clip: str, frames: np.ndarray, method: str) -> dict[str, Any]:
    flow = flow_of_clip(frames, method)
    size = dict(zip(("frames", "height", "width"), flow.shape[:3], strict=True))
    return {"clip": clip, "method": method, "bound": BOUND, **size, "vectors": flow.tobytes()}
