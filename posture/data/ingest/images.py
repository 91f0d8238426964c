"""Images with boxes -> store: every image is decoded once, to check it, before anything is trained on it."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

from posture.data.decode.cut import Clip
from posture.data.decode.sandbox import Sandbox
from posture.data.ingest.clips import missing_files
from posture.data.ingest.engine import Progress, Returned, Spread, here, ingest, own_sandbox, twice
from posture.data.ingest.image_ledger import CheckedImage, ImageJob, ImageLedger, ImageOptions, ImageReport, ImageResult
from posture.data.ingest.ledger import refuse_outside, refuse_too_many
from posture.data.ingest.parquet_part import ParquetPart
from posture.data.labels.records import AnnotatedImages
from posture.data.store import schema
from posture.data.store.files import local_copy
from posture.data.store.tables import Store
from posture.errors import Unreadable

IMAGES_PER_TASK = 96
"""Three row groups: enough to hide what a task costs, few enough that a lost task is a small loss."""


def ingest_images(
    images: AnnotatedImages,
    store: Store,
    options: ImageOptions,
    *,
    spread: Spread = here,
    progress: Progress | None = None,
) -> ImageReport:
    """Add what is new in `images` to the store. `progress` counts images.

    Raises Busy if another ingest holds the store, InputError if a group would change sides or too many images were
    refused (the others are committed all the same).
    """
    kind = "missing_video" if images.layout in ("cvat", "ucf101_24") else "missing_picture"
    report = ImageReport(
        uuid.uuid4().hex[:12],
        images.root,
        images.layout,
        unlabelled=len(images.unlabelled),
        notes=images.notes,
        refused=missing_files(images.missing, kind),
    )
    how: dict[str, Any] = {"per_task": IMAGES_PER_TASK, "spread": spread, "progress": progress}
    ingest(ImageLedger, store, options, report, images, check_images, **how)
    refuse_outside(report, report.boxes_outside, report.boxes_drawn)
    refused = report.refused_pictures - report.duplicates
    refuse_too_many(report, refused, report.pictures, what="images", allowed=options.max_refused_share)
    return report


def check_images(jobs: list[ImageJob], *, store_uri: str, options: ImageOptions) -> Returned:
    """Decode the images and write the good ones as one Parquet file."""
    part = ParquetPart(store_uri, "images")
    with own_sandbox(options.limits) as sandbox:
        return [_check(job, sandbox, part, options) for job in jobs], part.close()


def _check(job: ImageJob, sandbox: Sandbox, part: ParquetPart, options: ImageOptions) -> ImageResult:
    decode = _decode_frames if job.frames else _decode_image
    result = ImageResult(job.content, job.size)
    try:
        with local_copy(job.uri) as path:
            rows, images = twice(lambda: decode(path, job, sandbox, options))
    except (Unreadable, OSError) as error:
        verdict = error.verdict if isinstance(error, Unreadable) else "unreadable"
        return replace(result, verdict=verdict, reason=str(error))
    for row in rows:
        part.write(row | {"bytes": len(row["pixels"])})
    return replace(result, images=images)


Decoded = tuple[list[dict[str, Any]], list[CheckedImage]]
"""Rows of the table `images`, and their report to the ledger."""


def _decode_image(path: str, job: ImageJob, sandbox: Sandbox, options: ImageOptions) -> Decoded:
    encoded = sandbox.image(path, job.content, limit_seconds=options.file_limit_seconds)
    row = {"image": job.content, "uri": job.uri, "height": encoded.height, "width": encoded.width}
    return [row | {"pixels": encoded.pixels}], [CheckedImage(job.content, encoded.height, encoded.width)]


def _decode_frames(path: str, job: ImageJob, sandbox: Sandbox, options: ImageOptions) -> Decoded:
    rows, images = [], []
    limit = options.file_limit_seconds + options.seconds_per_frame * len(job.frames)
    for message in sandbox.frames(path, job.frames, limit_seconds=limit):
        row = message.row if isinstance(message, Clip) else message
        image = schema.frame_id(job.content, row["frame"])
        if isinstance(message, Clip):
            held = {name: row[name] for name in ("height", "width", "decoder", "coded_height", "coded_width")}
            uri = f"{job.uri}#t={row['time']:.6f}"
            rows.append({"image": image, "uri": uri, "pixels": message.pixels, **held})
            coded = row["coded_height"], row["coded_width"]
            images.append(CheckedImage(image, row["height"], row["width"], row["time"], coded=coded))
        else:
            images.append(CheckedImage(image, 0, 0, past_end=row["frames"]))
    return rows, images
