"""Images with boxes -> store: every image is decoded once, somewhere on the cluster, before anything is trained on
it.

Workers write Parquet files beside the `images` table (`data/ingest/image_part.py`); this process alone commits them
(`data/ingest/image_ledger.py`).
"""

from __future__ import annotations

import functools
import json
import math
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from posture.data.decode.check_image import EncodedImage
from posture.data.decode.cut import Clip
from posture.data.decode.sandbox import Sandbox, sandbox_with
from posture.data.ingest.image_ledger import CheckedImage, ImageJob, ImageLedger, ImageOptions, ImageReport, ImageResult
from posture.data.ingest.image_part import ImagePart
from posture.data.labels.records import AnnotatedImages
from posture.data.store import schema
from posture.data.store.files import local_copy
from posture.data.store.lease import Lease
from posture.data.store.tables import Store
from posture.distributed.ingest import TooManyRefused, refuse_outside
from posture.distributed.metrics import Throughput
from posture.errors import InputError, Unreadable

IMAGES_PER_TASK = 96
"""Three row groups: enough to hide what a task costs, few enough that a lost task is a small loss."""


def ingest_images(
    images: AnnotatedImages,
    store: Store,
    options: ImageOptions,
    *,
    progress: Callable[[int, int, float], None] | None = None,
) -> ImageReport:
    """Add what is new in `images` to the store. `progress(images done, images to do, images/s)` is called as
    results come.

    Raises Busy where another ingest holds the store, InputError where a group would change sides or too many images
    were refused (what was good is committed all the same).
    """
    begun = time.time()
    report = ImageReport(
        uuid.uuid4().hex[:12], images.root, images.layout, unlabelled=len(images.unlabelled), notes=images.notes
    )
    kind = "missing_video" if images.layout in ("cvat", "ucf101_24") else "missing_picture"
    report.refused += [
        {"uri": line.rpartition(": ")[2], "verdict": kind, "reason": f"named by {line.rpartition(': ')[0]}"}
        for line in images.missing
    ]
    with Lease(store.uri) as lease:
        store.create_tables()
        store.remove_orphans("images")
        ledger = ImageLedger(store, options, report, lease)
        jobs = ledger.plan(images)
        if jobs:
            checking = time.time()
            done, total, throughput = 0, sum(job.pictures for job in jobs), Throughput("decode", report.ingest)
            for outcomes, part in _checked(jobs, store, options, report.ingest):
                ledger.add(outcomes, part)
                done += sum(outcome["asked"] for outcome in outcomes)
                rate = done / (time.time() - checking)
                throughput.reached(done, rate)
                if progress:
                    progress(done, total, rate)
            ledger.commit()
            report.check_seconds = time.time() - checking
            store.remove_orphans("images")
        ledger.finish()
        report.seconds = time.time() - begun
        if ledger.changed:
            entry = {"ingest": report.ingest, "time": begun, "report": json.dumps(asdict(report))}
            store.append("ingests", pa.Table.from_pylist([entry], schema=schema.INGESTS))
    refuse_outside(report, report.boxes_outside, report.boxes_drawn)
    bad = report.refused_pictures - report.duplicates
    if bad > options.max_refused_share * report.pictures:
        raise TooManyRefused(
            report,
            f"{images.root}: {bad} of {report.pictures} images were refused, more than the allowed share of "
            f"{options.max_refused_share:g} (--max-refused); the others are stored",
        )
    return report


def _checked(
    jobs: list[ImageJob], store: Store, options: ImageOptions, ingest: str
) -> Iterator[tuple[list[ImageResult], dict[str, Any] | None]]:
    """Run the jobs on the cluster, tens of images a task; yields (an outcome per job, the Parquet file written) as
    tasks end.

    Raises InputError where one could not write into the store.
    """
    import ray

    from posture.distributed import cluster

    cluster.connect()
    blocks = min(
        len(jobs), max(int(2 * cluster.decoding_cpus()), round(sum(job.pictures for job in jobs) / IMAGES_PER_TASK))
    )
    items = [{"jobs": json.dumps([asdict(job) for job in jobs[block::blocks]])} for block in range(blocks)]
    check = functools.partial(check_block, store_uri=store.uri, options=options, ingest=ingest)
    dataset = ray.data.from_items(items, override_num_blocks=blocks).map_batches(
        check, batch_size=None, resources=cluster.decoding()
    )
    for batch in dataset.iter_batches(batch_size=None):
        for outcome in map(json.loads, batch["outcome"]):
            if "stopped" in outcome:
                raise InputError(outcome["stopped"])
            yield outcome["outcomes"], outcome["part"]


def check_block(batch: dict[str, Any], *, store_uri: str, options: ImageOptions, ingest: str) -> dict[str, Any]:
    """One task: decode every image of the block, write the good ones as one Parquet file beside the table (not
    committed).
    """
    sandbox = sandbox_with(options.limits)
    done = []
    for jobs in batch["jobs"]:
        part = ImagePart(store_uri, ingest)
        try:
            outcomes = [_check_one(ImageJob(**job), sandbox, part, options) for job in json.loads(jobs)]
            done.append(json.dumps({"outcomes": outcomes, "part": part.close()}))
        except InputError as error:
            done.append(json.dumps({"stopped": str(error)}))
    return {"outcome": done}


def _check_one(job: ImageJob, sandbox: Sandbox, part: ImagePart, options: ImageOptions) -> ImageResult:
    """One job. A file whose decoder died gets a second try: it may not have been the file's fault."""
    outcome: ImageResult = {
        "content": job.content,
        "asked": job.pictures,
        "verdict": "ok",
        "reason": "",
        "pictures": [],
    }
    take = _take_frames if job.frames else _take_still
    try:
        with local_copy(job.uri) as path:
            try:
                outcome["pictures"] = take(path, job, sandbox, part, options)
            except Unreadable as error:
                if error.verdict != "crashed":
                    raise
                outcome["pictures"] = take(path, job, sandbox, part, options)
    except (Unreadable, OSError) as error:
        outcome |= {"verdict": error.verdict if isinstance(error, Unreadable) else "unreadable", "reason": str(error)}
    return outcome


def _take_still(
    path: str, job: ImageJob, sandbox: Sandbox, part: ImagePart, options: ImageOptions
) -> list[CheckedImage]:
    encoded = sandbox.image(path, job.content, limit_seconds=options.file_limit_seconds)
    part.write(job.content, job.uri, encoded)
    return [
        {"image": job.content, "height": encoded.height, "width": encoded.width, "time": math.nan, "past_end": None}
    ]


def _take_frames(
    path: str, job: ImageJob, sandbox: Sandbox, part: ImagePart, options: ImageOptions
) -> list[CheckedImage]:
    """Frames are written only when all have decoded."""
    frames, taken = [], []
    for message in sandbox.frames(
        path, job.frames, limit_seconds=options.file_limit_seconds + options.seconds_per_frame * len(job.frames)
    ):
        row = message.row if isinstance(message, Clip) else message
        image = schema.frame_id(job.content, row["frame"])
        if isinstance(message, Clip):
            of_frame = {name: row[name] for name in ("decoder", "coded_height", "coded_width")}
            frames.append((
                image,
                f"{job.uri}#t={row['time']:.6f}",
                EncodedImage(message.pixels, row["height"], row["width"]),
                of_frame,
            ))
            taken.append({
                "image": image,
                "height": row["height"],
                "width": row["width"],
                "time": row["time"],
                "past_end": None,
                "coded": [row["coded_height"], row["coded_width"]],
            })
        else:
            taken.append({"image": image, "height": 0, "width": 0, "time": math.nan, "past_end": row["frames"]})
    for *frame, of_frame in frames:
        part.write(*frame, **of_frame)
    return taken
