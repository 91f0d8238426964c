"""Footage -> store: every file is probed, cut and decoded once, somewhere on the cluster, in a process that can be
killed.

Workers write Parquet files beside the `clips` table (`data/ingest/parquet_part.py`); this process alone commits them
(`data/ingest/clip_ledger.py`).
"""

from __future__ import annotations

import functools
import json
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from posture.data.decode.cut import Clip
from posture.data.decode.sandbox import Sandbox, sandbox_with
from posture.data.decode.tracks import link, tubes_from_json, tubes_to_json
from posture.data.ingest.clip_ledger import ClipJob, ClipLedger, ClipReport, IngestOptions, video_row
from posture.data.ingest.drawn_boxes import boxes_outside
from posture.data.ingest.parquet_part import Part
from posture.data.labels.place_boxes import MAX_OUTSIDE
from posture.data.labels.records import Label, LabelledVideos, Tube
from posture.data.store import schema
from posture.data.store.files import File, hash_file, local_copy
from posture.data.store.lease import Lease
from posture.data.store.tables import Store
from posture.distributed.metrics import Throughput
from posture.errors import InputError, Unreadable

if TYPE_CHECKING:
    from posture.runs.athlete_finder import AthleteDetector, Finder

CLIPS_PER_TASK = 24
"""Enough to hide what a task costs, few enough that a lost task is a small loss."""
GPU_SHARE = 0.25
"""Of a GPU for each task that finds athletes, where the cluster has one: decoding beside it keeps one task from filling
it.
"""


def ingest(
    footage: LabelledVideos,
    store: Store,
    options: IngestOptions,
    *,
    detector: AthleteDetector | None = None,
    local: bool = False,
    progress: Callable[[int, int, int, float], None] | None = None,
) -> ClipReport:
    """Add what is new in `footage` to the store. `progress(files done, files to do, clips, clips/s)` is called as
    results come.

    `detector` finds the athletes, where the recipe's crop names one; `local` cuts in this process, without Ray, where
    none is needed.

    Raises Busy where another ingest holds the store, InputError where a group would change sides or too many files were
    refused (what was readable is committed all the same).
    """
    begun = time.time()
    report = ClipReport(
        uuid.uuid4().hex[:12],
        footage.root,
        footage.layout,
        str(options.cut.recipe),
        files=len(footage.videos),
        unlabelled=len(footage.unlabelled),
    )
    report.refused += [
        {"uri": line.rpartition(": ")[2], "verdict": "missing_video", "reason": f"named by {line.rpartition(': ')[0]}"}
        for line in footage.missing
    ] + footage.refused
    with Lease(store.uri) as lease:
        store.create_tables()
        store.remove_orphans("clips")
        ledger = ClipLedger(store, options, report, lease)
        jobs = ledger.plan(footage)
        if jobs:
            decoding = time.time()
            done, throughput = 0, Throughput("decode", report.ingest)
            decode = (
                _decode_here(jobs, store, options, report.ingest, ledger.orphans)
                if local and detector is None
                else _decode(jobs, store, options, report.ingest, ledger.orphans, detector)
            )
            for results, part in decode:
                ledger.add(results, part)
                done += len(results)
                rate = report.clips / (time.time() - decoding)
                throughput.reached(report.clips, rate)
                if progress:
                    progress(done, len(jobs), report.clips, rate)
            ledger.commit()
            report.decode_seconds = time.time() - decoding
            store.remove_orphans("clips")
        ledger.finish()
        report.seconds = time.time() - begun
        if jobs or ledger.changed:
            entry = {"ingest": report.ingest, "time": begun, "report": json.dumps(asdict(report))}
            store.append("ingests", pa.Table.from_pylist([entry], schema=schema.INGESTS))
    outside, drawn = (
        boxes_outside(footage.videos, store) if options.cut.recipe.crop and not options.cut.recipe.searched else (0, 0)
    )
    refuse_outside(report, outside, drawn)
    refused = len(jobs) - report.decoded
    if refused > options.max_refused_share * len(jobs):
        raise TooManyRefused(
            report,
            f"{footage.root}: {refused} of {len(jobs)} files were refused, more than the allowed share of "
            f"{options.max_refused_share:g} (--max-refused); the others are stored",
        )
    return report


class TooManyRefused(InputError):
    """The ingest finished, but most of its files were bad; carries the report."""

    def __init__(self, report: ClipReport, message: str) -> None:
        super().__init__(message)
        self.report = report


def refuse_outside(report: Any, outside: int, drawn: int) -> None:
    """Raise TooManyRefused, with the report, if too many of the boxes that were `drawn` lie outside of their images."""
    if outside > MAX_OUTSIDE * drawn:
        raise TooManyRefused(
            report,
            f"{report.footage}: {outside:,} of {drawn:,} boxes lie outside of their images or belong to another size, more than "
            f"{100 * MAX_OUTSIDE:.0f} %: these are other images than the boxes were drawn on; what fits is stored",
        )


def _decode(
    jobs: list[ClipJob],
    store: Store,
    options: IngestOptions,
    ingest: str,
    orphans: frozenset[str],
    detector: AthleteDetector | None,
) -> Iterator[tuple[list[dict[str, Any]], dict[str, Any] | None]]:
    """Run the jobs on the cluster, tens of clips a task; yields (one result per file, the Parquet file written) as
    tasks end.
    """
    import ray

    from posture.distributed import cluster

    cluster.connect()
    clips = sum(len(job.labels) for job in jobs) * options.cut.recipe.windows
    blocks = min(len(jobs), max(int(2 * cluster.decoding_cpus()), round(clips / CLIPS_PER_TASK)))
    items = [{"jobs": json.dumps([_packed(job) for job in jobs[block::blocks]])} for block in range(blocks)]
    shared = None if detector is None else {"digest": detector.digest, "detector": ray.put(detector)}
    cut = functools.partial(
        cut_block, store_uri=store.uri, options=options, ingest=ingest, orphans=orphans, shared=shared
    )
    place: dict[str, Any] = {"resources": cluster.decoding()}
    if detector is not None and cluster.gpus():
        place = {"num_gpus": GPU_SHARE}
    dataset = ray.data.from_items(items, override_num_blocks=blocks).map_batches(cut, batch_size=None, **place)
    for batch in dataset.iter_batches(batch_size=None):
        yield from _opened(batch)


def _decode_here(
    jobs: list[ClipJob], store: Store, options: IngestOptions, ingest: str, orphans: frozenset[str]
) -> Iterator[tuple[list[dict[str, Any]], dict[str, Any] | None]]:
    """The same in this process, one file after the other."""
    for first in range(0, len(jobs), CLIPS_PER_TASK):
        block = {"jobs": [json.dumps([_packed(job) for job in jobs[first : first + CLIPS_PER_TASK]])]}
        yield from _opened(cut_block(block, store_uri=store.uri, options=options, ingest=ingest, orphans=orphans))


def _opened(batch: dict[str, Any]) -> Iterator[tuple[list[dict[str, Any]], dict[str, Any] | None]]:
    """What tasks came to. Raises InputError where one could not write into the store."""
    for outcome in map(json.loads, batch["outcome"]):
        if "stopped" in outcome:
            raise InputError(outcome["stopped"])
        yield outcome["results"], outcome["part"]


_finders: dict[str, Finder] = {}
"""This worker process's detector, by its digest."""


def cut_block(
    batch: dict[str, Any],
    *,
    store_uri: str,
    options: IngestOptions,
    ingest: str,
    orphans: frozenset[str],
    shared: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """One task: cut every file of the block, write their clips as one Parquet file beside the table (not committed).

    `shared` is the detector that finds the athletes: its digest, and where Ray keeps it.
    """
    sandbox = sandbox_with(options.limits)
    finder = None if shared is None else _finder(**shared)
    outcomes = []
    for jobs in batch["jobs"]:
        part = Part(store_uri, f"part-{ingest}-{uuid.uuid4().hex}.parquet", compress=not options.cut.recipe.jpeg)
        try:
            results = [_cut_one(_unpacked(job), sandbox, part, options, orphans, finder) for job in json.loads(jobs)]
            outcomes.append(json.dumps({"results": results, "part": part.close()}))
        except InputError as error:
            outcomes.append(json.dumps({"stopped": str(error)}))
    return {"outcome": outcomes}


def _finder(digest: str, detector: Any) -> Finder:
    """The detector, read once in the life of a worker process."""
    import ray

    from posture.runs.athlete_finder import Finder

    if digest not in _finders:
        _finders.clear()
        _finders[digest] = Finder(ray.get(detector))
    return _finders[digest]


def _packed(job: ClipJob) -> dict[str, Any]:
    """A job as JSON takes it."""
    return asdict(replace(job, tubes=())) | {"tubes": tubes_to_json(job.tubes)}


def _unpacked(job: dict[str, Any]) -> ClipJob:
    return ClipJob(
        **job | {"labels": tuple(Label(**label) for label in job["labels"]), "tubes": tubes_from_json(job["tubes"])}
    )


def _cut_one(
    job: ClipJob, sandbox: Sandbox, part: Part, options: IngestOptions, orphans: frozenset[str], finder: Finder | None
) -> dict[str, Any]:
    """One file: {row, segments, refused, notes}. Its clips are in `part` only if the whole file was good.

    A file whose decoder died gets a second try: if it was not the file's fault, it is stored all the same.
    """
    row = video_row(File(job.uri, job.uri, job.bytes, job.modified), job.video)
    written: set[str] = set()
    part.begin()
    try:
        try:
            segments, refused, notes = _try_to_cut(job, row, sandbox, part, options, orphans, finder, written)
        except Unreadable as error:
            if error.verdict != "crashed":
                raise
            segments, refused, notes = _try_to_cut(job, row, sandbox, part, options, orphans, finder, written)
    except (Unreadable, OSError) as error:
        part.undo()
        verdict = error.verdict if isinstance(error, Unreadable) else "unreadable"
        row |= {"verdict": verdict, "reason": str(error), "reader": schema.READER}
        segments, refused, notes = [], [{"verdict": verdict, "reason": str(error)}], []
    return {
        "row": row,
        "segments": segments,
        "refused": [{"uri": job.uri, **refusal} for refusal in refused],
        "notes": [{"uri": job.uri, "note": note} for note in notes],
    }


def _try_to_cut(
    job: ClipJob,
    row: dict[str, Any],
    sandbox: Sandbox,
    part: Part,
    options: IngestOptions,
    orphans: frozenset[str],
    finder: Finder | None,
    written: set[str],
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[str]]:
    """Complete the file's `row` and put its clips into `part`, all but those `written` before, which grow. Returns
    segments, refusals and notes.

    Raises Unreadable, OSError.
    """
    segments, refused, notes = [], [], []
    with local_copy(job.uri) as path:
        row["video"] = job.video or hash_file(path)
        asked = {
            "stored": [*job.stored, *job.empty, *orphans],
            "limit_seconds": options.file_limit_seconds + options.seconds_per_label * len(job.labels),
        }
        file_and_cut = path, row["video"], job.labels, options.cut
        tubes = (
            job.tubes
            if finder is None
            else find_tubes(
                sandbox.search(*file_and_cut, **asked, longest=finder.size), finder, stride=options.cut.recipe.stride
            )
        )
        for message in sandbox.cut(*file_and_cut, **asked, tubes=tubes):
            if isinstance(message, Clip):
                if message.row["clip"] not in written:
                    part.write(message)
                    written.add(message.row["clip"])
            elif (kind := message.pop("kind")) == "stream":
                row |= message
            elif kind == "refused":
                refused.append(message)
            elif kind == "note":
                notes.append(message["note"])
            elif message["segment"] not in job.empty:
                segments.append(message)
    return segments, refused, notes


def find_tubes(
    messages: Iterable[dict[str, Any] | Clip],
    find: Callable[[np.ndarray], list[tuple[np.ndarray, np.ndarray]]],
    *,
    stride: int,
) -> list[Tube]:
    """The athletes' tubes in the segments whose frames `Sandbox.search` gives, in pixels of the video, named by their
    segment, best first.

    `find` gives boxes (D, 4) and scores (D,) for each of uint8 frames (n, h, w, 3).
    """
    full: dict[str, Any] = {}
    found: dict[str, dict[int, tuple[np.ndarray, np.ndarray]]] = {}
    for message in messages:
        if not isinstance(message, Clip):
            full = message
            continue
        row = message.row
        frames = np.frombuffer(message.pixels, np.uint8).reshape(-1, row["height"], row["width"], 3)
        enlarged = np.array([full["width"] / row["width"], full["height"] / row["height"]] * 2)
        of_segment = found.setdefault(row["segment"], {})
        for number, (boxes, scores) in zip(row["numbers"], find(frames), strict=True):
            of_segment[number] = boxes * enlarged, scores
    return [tube for segment, by_frame in found.items() for tube in link(by_frame, name=segment, stride=stride)]
