"""Videos -> clips in the store: every video is probed, cut and decoded once, in a process that can be killed."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

from posture.data.decode.cut import Clip
from posture.data.decode.sandbox import Sandbox
from posture.data.decode.tracks import as_shown, link
from posture.data.ingest.clip_ledger import ClipJob, ClipLedger, ClipReport, ClipResult, IngestOptions, video_row
from posture.data.ingest.engine import Progress, Returned, Spread, here, ingest, own_sandbox, twice
from posture.data.ingest.ledger import refuse_outside, refuse_too_many
from posture.data.ingest.parquet_part import ParquetPart
from posture.data.labels.place_boxes import count_outside
from posture.data.labels.records import AnnotatedVideo, LabelledVideos, Tube
from posture.data.store import schema
from posture.data.store.files import File, hash_file, local_copy
from posture.data.store.tables import Store
from posture.errors import Unreadable

CLIPS_PER_TASK = 24
"""Enough to hide what a task costs, few enough that a lost task is a small loss."""
Finder = Callable[[np.ndarray], list[tuple[np.ndarray, np.ndarray]]]
"""Detector of athletes: boxes (D, 4) and scores (D,) per uint8 frame (n, h, w, 3). `size`: longest useful side."""


def ingest_clips(
    footage: LabelledVideos,
    store: Store,
    options: IngestOptions,
    *,
    spread: Spread = here,
    open_finder: Callable[[], Finder] | None = None,
    progress: Progress | None = None,
) -> ClipReport:
    """Add what is new in `footage` to the store. `progress` counts files and clips.

    `open_finder` is called in each task, if the recipe crops clips around the athletes that a detector finds.
    Raises Busy if another ingest holds the store, InputError if a group would change sides or too many files were
    refused (the others are committed all the same).
    """
    recipe = options.cut.recipe
    report = ClipReport(
        uuid.uuid4().hex[:12],
        footage.root,
        footage.layout,
        str(recipe),
        files=len(footage.videos),
        unlabelled=len(footage.unlabelled),
        refused=missing_files(footage.missing, "missing_video") + footage.refused,
    )
    work = functools.partial(cut_files, open_finder=open_finder)
    how: dict[str, Any] = {"per_task": CLIPS_PER_TASK / recipe.windows, "spread": spread, "progress": progress}
    jobs = ingest(ClipLedger, store, options, report, footage, work, **how)
    if recipe.crop and not recipe.searched:
        refuse_outside(report, *boxes_outside(footage.videos, store))
    refused = len(jobs) - report.decoded
    refuse_too_many(report, refused, len(jobs), what="files", allowed=options.max_refused_share)
    return report


def missing_files(missing: Iterable[str], verdict: str) -> list[dict[str, str]]:
    """Return the refusals of labels whose file is missing, each given as `where: file`."""
    named = (line.rpartition(": ") for line in missing)
    return [{"uri": uri, "verdict": verdict, "reason": f"named by {where}"} for where, _, uri in named]


def boxes_outside(videos: Iterable[AnnotatedVideo], store: Store) -> tuple[int, int]:
    """Return how many drawn boxes lie outside their video or were drawn on another size, and how many there are.

    Videos that are not stored are left out.
    """
    columns = ["uri", "height", "width", "coded_height", "coded_width"]
    rows = store.read("videos", columns=columns, where=pc.field("verdict") == "ok").to_pylist()
    sizes = {uri: ((height, width), coded) for uri, height, width, *coded in (row.values() for row in rows)}
    outside = drawn = 0
    for video in videos:
        if video.file.uri not in sizes:
            continue
        shown, coded = sizes[video.file.uri]
        for tube in (as_shown(tube, tuple(coded), shown) for tube in video.tubes or ()):
            drawn += len(tube.boxes)
            fits = tube.size in (None, shown)
            outside += count_outside(list(tube.boxes.values()), *shown) if fits else len(tube.boxes)
    return outside, drawn


def cut_files(
    jobs: list[ClipJob],
    *,
    store_uri: str,
    options: IngestOptions,
    orphans: frozenset[str],
    open_finder: Callable[[], Finder] | None = None,
) -> Returned:
    """Cut the videos and write their clips as one Parquet file, without those that `orphans` names as stored."""
    finder = open_finder() if open_finder else None
    part = ParquetPart(store_uri, "clips", compress=not options.cut.recipe.jpeg)
    with own_sandbox(options.limits) as sandbox:
        cutter = _Cutter(sandbox, part, options, orphans, finder)
        return [cutter.cut(job) for job in jobs], part.close()


@dataclass
class _Cutter:
    """Decoder, and the file that clips are written to."""

    sandbox: Sandbox
    part: ParquetPart
    options: IngestOptions
    orphans: frozenset[str]
    finder: Any

    def cut(self, job: ClipJob) -> ClipResult:
        """Cut one video. Its clips are in the part only if the whole video is good."""
        row = video_row(File(job.uri, job.uri, job.bytes, job.modified), job.video)
        written: set[str] = set()
        self.part.begin()
        try:
            return twice(lambda: self._try(job, row, written))
        except (Unreadable, OSError) as error:
            self.part.undo()
            verdict = error.verdict if isinstance(error, Unreadable) else "unreadable"
            row |= {"verdict": verdict, "reason": str(error), "reader": schema.READER}
            return ClipResult(row, [], [{"uri": job.uri, "verdict": verdict, "reason": str(error)}], [])

    def _try(self, job: ClipJob, row: dict[str, Any], written: set[str]) -> ClipResult:
        """Complete the `row` and put the clips into the part, without those `written` by an earlier try.

        Raises Unreadable, OSError.
        """
        result = ClipResult(row, [], [], [])
        options = self.options
        with local_copy(job.uri) as path:
            row["video"] = job.video or hash_file(path)
            asked = {
                "stored": [*job.stored, *job.empty, *self.orphans],
                "limit_seconds": options.file_limit_seconds + options.seconds_per_label * len(job.labels),
            }
            what = path, row["video"], job.labels, options.cut
            tubes = job.tubes
            if self.finder:
                frames = self.sandbox.search(*what, **asked, longest=self.finder.size)
                # drawn tubes tell which of the found ones is the labelled athlete's
                tubes = [*find_tubes(frames, self.finder, stride=options.cut.recipe.stride), *job.tubes]
            for message in self.sandbox.cut(*what, **asked, tubes=tubes):
                if isinstance(message, Clip):
                    if message.row["clip"] not in written:
                        self.part.write(message.row | {"pixels": message.pixels})
                        written.add(message.row["clip"])
                elif (kind := message.pop("kind")) == "stream":
                    row |= message
                elif kind == "refused":
                    result.refused.append({"uri": job.uri, **message})
                elif kind == "note":
                    result.notes.append({"uri": job.uri, "note": message["note"]})
                elif message["segment"] not in job.empty:
                    result.segments.append(message)
        return result


def find_tubes(messages: Iterable[dict[str, Any] | Clip], find: Finder, *, stride: int) -> list[Tube]:
    """Return the tracks of the athletes that `find` sees in the frames that `Sandbox.search` yields.

    Tracks are in pixels of the video, named by their segment, best first.
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
