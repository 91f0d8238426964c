"""Footage -> store: every file is probed, cut and decoded once, somewhere on the cluster, in a process that can be killed.

Workers write Parquet files beside the `clips` table (`data/part.py`); this process alone commits them (`data/ledger.py`).
"""

from __future__ import annotations

import functools
import json
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from posture.data import rows
from posture.data.annotations import Footage, Label
from posture.data.cutting import Clip
from posture.data.files import File, hash_file, local_copy
from posture.data.lease import Lease
from posture.data.ledger import IngestOptions, Job, Ledger, Report, video_row
from posture.data.part import Part
from posture.data.sandbox import Sandbox
from posture.data.store import Store
from posture.data.video import Unreadable
from posture.errors import InputError

CLIPS_PER_TASK = 24
"""Enough to hide what a task costs, few enough that a lost task is a small loss."""


def ingest(footage: Footage, store: Store, options: IngestOptions, *, progress: Callable[[int, int, int, float], None] | None = None) -> Report:
    """Add what is new in `footage` to the store. `progress(files done, files to do, clips, clips/s)` is called as results come.

    Raises Busy where another ingest holds the store, InputError where a group would change sides or too many files were refused
    (what was readable is committed all the same).
    """
    begun = time.time()
    report = Report(uuid.uuid4().hex[:12], footage.root, footage.layout, str(options.cut.recipe), files=len(footage.videos),
                    unlabelled=len(footage.unlabelled))
    report.refused += [{"uri": line.rpartition(": ")[2], "verdict": "missing_video", "reason": f"named by {line.rpartition(': ')[0]}"}
                       for line in footage.missing]
    with Lease(store.uri) as lease:
        store.create_tables()
        store.remove_orphans("clips")
        ledger = Ledger(store, options, report, lease)
        jobs = ledger.plan(footage)
        if jobs:
            decoding = time.time()
            done = 0
            for results, part in _decode(jobs, store, options, report.ingest, ledger.orphans):
                ledger.add(results, part)
                done += len(results)
                if progress:
                    progress(done, len(jobs), report.clips, report.clips / (time.time() - decoding))
            ledger.commit()
            report.decode_seconds = time.time() - decoding
            store.remove_orphans("clips")
        report.seconds = time.time() - begun
        if jobs or ledger.changed:
            entry = {"ingest": report.ingest, "time": begun, "report": json.dumps(asdict(report))}
            store.append("ingests", pa.Table.from_pylist([entry], schema=rows.INGESTS))
    refused = len(jobs) - report.decoded
    if refused > options.max_refused_share * len(jobs):
        raise TooManyRefused(report, f"{footage.root}: {refused} of {len(jobs)} files were refused, more than the allowed share of "
                                     f"{options.max_refused_share:g} (--max-refused); the others are stored")
    return report


class TooManyRefused(InputError):
    """The ingest finished, but most of its files were bad; carries the report."""

    def __init__(self, report: Report, message: str) -> None:
        super().__init__(message)
        self.report = report


def _decode(jobs: list[Job], store: Store, options: IngestOptions, ingest: str,
            orphans: frozenset[str]) -> Iterator[tuple[list[dict[str, Any]], dict[str, Any] | None]]:
    """Run the jobs on the cluster, tens of clips a task; yields (one result per file, the Parquet file written) as tasks end."""
    import ray

    from posture.distributed import cluster

    cluster.connect()
    clips = sum(len(job.labels) for job in jobs) * options.cut.recipe.windows
    blocks = min(len(jobs), max(int(2 * cluster.cpus()), round(clips / CLIPS_PER_TASK)))
    items = [{"jobs": json.dumps([asdict(job) for job in jobs[block::blocks]])} for block in range(blocks)]
    cut = functools.partial(cut_block, store_uri=store.uri, options=options, ingest=ingest, orphans=orphans)
    dataset = ray.data.from_items(items, override_num_blocks=blocks).map_batches(cut, batch_size=None)
    for batch in dataset.iter_batches(batch_size=None):
        for outcome in batch["outcome"]:
            content = json.loads(outcome)
            yield content["results"], content["part"]


_sandbox: Sandbox | None = None
"""This worker process's decoder, kept from task to task."""


def cut_block(batch: dict[str, Any], *, store_uri: str, options: IngestOptions, ingest: str, orphans: frozenset[str]) -> dict[str, Any]:
    """One task: cut every file of the block, write their clips as one Parquet file beside the table (not committed)."""
    global _sandbox
    _sandbox = _sandbox or Sandbox()
    outcomes = []
    for jobs in batch["jobs"]:
        part = Part(store_uri, f"part-{ingest}-{uuid.uuid4().hex}.parquet", compress=not options.cut.recipe.jpeg)
        results = []
        for job in json.loads(jobs):
            job = Job(**job | {"labels": tuple(Label(**label) for label in job["labels"])})
            results.append(_cut_one(job, _sandbox, part, options, orphans))
        outcomes.append(json.dumps({"results": results, "part": part.close()}))
    return {"outcome": outcomes}


def _cut_one(job: Job, sandbox: Sandbox, part: Part, options: IngestOptions, orphans: frozenset[str]) -> dict[str, Any]:
    """One file: {row, segments, refused}. Its clips are in `part` only if the whole file was good."""
    file = File(job.uri, job.uri, job.bytes, job.modified)
    result: dict[str, Any] = {"row": video_row(file, job.video), "segments": [], "refused": []}
    part.begin()
    try:
        with local_copy(job.uri) as path:
            result["row"]["video"] = job.video or hash_file(path)
            for message in sandbox.cut(path, result["row"]["video"], job.labels, options.cut, stored=[*job.stored, *orphans],
                                       limit_seconds=options.file_limit_seconds + options.seconds_per_label * len(job.labels)):
                if isinstance(message, Clip):
                    part.write(message)
                elif (kind := message.pop("kind")) == "stream":
                    result["row"] |= message
                else:
                    result["segments" if kind == "segment" else "refused"].append(message)
    except (Unreadable, OSError) as error:
        part.undo()
        verdict = error.verdict if isinstance(error, Unreadable) else "unreadable"
        result["row"] |= {"verdict": verdict, "reason": str(error)}
        result["segments"], result["refused"] = [], [{"verdict": verdict, "reason": str(error)}]
    result["refused"] = [{"uri": job.uri, **refusal} for refusal in result["refused"]]
    return result
