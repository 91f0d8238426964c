"""Ledger of an ingest of images with boxes: commits images, then boxes, then the rows of the files that are done.

Boxes are placed here, once the size of an image is known: labels never travel to the workers.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from posture.data.ingest.ledger import CommonOptions, IngestReport, LabelledLedger, file_row, other_labels
from posture.data.ingest.splits import refuse_two_sides
from posture.data.labels.place_boxes import count_outside, place_boxes, scale_boxes
from posture.data.labels.records import AnnotatedImage, AnnotatedImages, AnnotatedVideo, Label
from posture.data.store import schema
from posture.data.store.files import File
from posture.data.store.lease import Lease
from posture.data.store.tables import Store
from posture.errors import InputError, Unreadable

FRAMES_PER_JOB = 128
"""Frames of one video that a task holds in memory, and that are lost with it."""


@dataclass(frozen=True)
class ImageOptions(CommonOptions):
    boxes: Literal["clip", "refuse"] = "clip"
    """A box that leaves its image is cut off, or its image is refused."""
    test_share: float = field(default=0.3, kw_only=True)
    commit_after: int = field(default=2048, kw_only=True)
    seconds_per_frame: float = 1.0
    """Added to the time limit of a video for each frame that is decoded."""


@dataclass
class ImageReport(IngestReport):
    """Result of an ingest of images, as `posture ingest --report` shows it again."""

    pictures: int = 0
    """Images and frames that the labels name and that exist. Earlier versions gave this key its name."""
    added: int = 0
    boxes: int = 0
    """Boxes in the images added."""
    boxes_drawn: int = 0
    """Boxes in all readable images of the size that their labels are for."""
    boxes_outside: int = 0
    """Those of them with less than half of their area in their image."""
    clipped: int = 0
    """Boxes cut off at the edge of their image by more than rounding."""
    by_split: dict[str, int] = field(default_factory=lambda: dict.fromkeys(schema.SPLITS, 0))
    """Images added."""
    empty: dict[str, int] = field(default_factory=lambda: dict.fromkeys(schema.SPLITS, 0))
    """Those of them without a box."""
    refused_pictures: int = 0
    """Images refused."""
    duplicates: int = 0
    """Those of them with the content of another file."""
    notes: list[str] = field(default_factory=list)
    check_seconds: float = 0.0
    """Time from the first image sent out to the last commit."""


@dataclass(frozen=True)
class ImageJob:
    """One image to check, or frames of one video to decode."""

    uri: str
    content: str
    """Content hash of the file."""
    frames: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        return len(self.frames) or 1

    steps = size


@dataclass
class CheckedImage:
    """An image that a worker stored, or a frame after the end of its video."""

    image: str
    height: int
    width: int
    time: float = math.nan
    """Seconds; NaN for images that are no frames."""
    past_end: int | None = None
    """Number of frames in the video, if this frame is after its end."""
    coded: tuple[int, int] | None = None
    """Height and width of a frame before its pixel aspect ratio."""


@dataclass
class ImageResult:
    """Result of a job."""

    content: str
    steps: int
    """Images asked for."""
    verdict: str = "ok"
    reason: str = ""
    images: list[CheckedImage] = field(default_factory=list)


class ImageLedger(LabelledLedger):
    """Images that the store holds, and those that this ingest adds."""

    table, files, file_key, rows, row_key = "images", "pictures", "image", "boxes", "image"
    said = compared = ("group", "split", "boxes", "labels", "tubes", "ignored", "ignored_labels")

    def __init__(self, store: Store, options: ImageOptions, report: ImageReport, lease: Lease) -> None:
        super().__init__(store, options, report, lease)
        columns = ["image", "uri", "height", "width", "coded_height", "coded_width"]
        self._images = {row["image"]: row for row in store.read("images", columns=columns).to_pylist()}
        self._wanted: dict[str, AnnotatedImage] = {}
        """{image: what the labels say of it} of the images to be stored."""
        self._files: dict[str, File] = {}
        """{content hash: file}"""
        self._placed: dict[str, dict[str, Any]] = {}
        """{image: row of `boxes`} as the labels say now; without a split if the group is new."""
        self._standing: set[str] = set()
        """Those of them that had boxes before."""
        self._pieces: dict[str, tuple[int, list[ImageResult]]] = {}
        """{content hash: (number of jobs, results)} of videos, whose boxes wait until the whole video is good."""
        self._reported: set[tuple[str, str]] = set()

    def plan(self, images: AnnotatedImages) -> list[ImageJob]:
        """Return what must be decoded, and remove what is refused now. Raises InputError if a group would be in two
        splits.
        """
        self._report.pictures = len(images.images) + len(images.refused)
        for refusal in images.refused:
            self._refuse(refusal.file, refusal.verdict, refusal.reason)
        contents = self._contents(image.file for image in images.images)
        self._wanted = self._without_duplicates(images.images, contents)
        self._files = {contents[image.file.uri]: image.file for image in self._wanted.values()}
        self._refuse_two_sides()
        standing: list[str] = []
        missing: dict[str, list[int]] = {}
        for key, image in self._wanted.items():
            known = self._known(image.file)
            if known and schema.is_final(known):
                self._refuse(image.file, known["verdict"], known["reason"])
            elif key in self._images:
                standing.append(key)
            else:
                frames = missing.setdefault(contents[image.file.uri], [])
                frames += [] if image.frame is None else [image.frame]
        self._stand(standing)
        refused = {known["image"] for refusal in images.refused if (known := self._known(refusal.file))}
        self._retire({*contents.values(), *refused, *self._replaced(contents)})
        whole = {contents[self._wanted[image].file.uri] for image in standing} - set(missing)
        self._remember(file_row("image", self._files[content], content, "ok", "") for content in sorted(whole))
        return [job for content, frames in missing.items() for job in self._jobs(content, frames)]

    def _take(self, result: ImageResult) -> None:
        if result.content not in self._pieces:
            self._results.append(result)
            return
        jobs, pieces = self._pieces[result.content]
        pieces.append(result)
        if len(pieces) == jobs:
            last = next((piece for piece in pieces if piece.verdict != "ok"), result)
            steps, images = sum(piece.steps for piece in pieces), [image for piece in pieces for image in piece.images]
            self._results.append(replace(last, steps=steps, images=images))

    def _record(self) -> None:
        placed: list[dict[str, Any]] = []
        done = []
        for result in self._results:
            file = self._files[result.content]
            done.append(file_row("image", file, result.content, result.verdict, result.reason))
            if result.verdict != "ok":
                self._refuse(file, result.verdict, result.reason, images=result.steps)
                continue
            for image in result.images:
                if image.past_end is None:
                    placed += self._place(image)
                else:
                    reason = f"the video has {image.past_end}, counted from 0"
                    self._refuse(file, "frame_past_end", f"frame {self._wanted[image.image].frame}: {reason}")
        self._write(placed)
        self._remember(done)
        self.changed = self.changed or bool(self._results or self._parts)

    def _settle(self) -> dict[str, dict[str, Any]]:
        return self._placed

    def _kept(self, rows: dict[str, dict[str, Any]]) -> list[Label]:
        return [
            Label(0.0, None, label, row["group"], self._wanted[image].split)
            for image, row in rows.items()
            for label in sorted(set(row["labels"])) or [""]
        ]

    def _count(self, added: list[dict[str, Any]], corrected: set[str]) -> None:
        report = self._report
        report.check_seconds = self.spent
        report.unchanged = len(self._standing - self._new - corrected)
        for row in added:
            report.added += 1
            report.boxes += len(row["boxes"])
            report.by_split[row["split"]] += 1
            report.empty[row["split"]] += not row["boxes"] and not row["ignored"]
            for label in row["labels"]:
                report.classes.setdefault(label, dict.fromkeys(schema.SPLITS, 0))[row["split"]] += 1

    def _without_duplicates(self, images: list[AnnotatedImage], contents: dict[str, str]) -> dict[str, AnnotatedImage]:
        """Return one image per content, and refuse the others.

        The one kept is on the side that it has in the store. Otherwise it is the one that is held out, so that no test
        image is trained on; otherwise the one that is stored, otherwise the first.
        """
        order = {"test": 0, "val": 1}

        def keeps_its_side(image: AnnotatedImage, content: str) -> bool:
            held = self._rows.get(content)
            if image.group or held is None or held["group"] != content or held["split"] == "":
                return False
            return image.split in (None, held["split"]) or (image.split, held["split"]) == ("train", "val")

        def comes_later(image: AnnotatedImage) -> tuple[Any, ...]:
            file, content = image.file, contents[image.file.uri]
            return (
                not keeps_its_side(image, content),
                order.get(image.split or "", 2),
                (content, file.uri) not in self._done,
                file.relative,
                image.frame or 0,
            )

        first_with: dict[str, AnnotatedImage] = {}
        kept = {}
        for image in sorted(images, key=comes_later):
            file, content = image.file, contents[image.file.uri]
            if not content and file.bytes:
                self._refuse(file, "unreadable", "it is gone, or no regular file")
            elif not content:
                self._refuse(file, "empty", "the file has no bytes")
            elif content in self._forgotten:
                self._refuse(file, "forgotten", schema.VERDICTS["forgotten"])
            else:
                first = first_with.setdefault(content, image)
                if (first.file.uri, first.split) == (file.uri, image.split):
                    kept[content if image.frame is None else schema.frame_id(content, image.frame)] = image
                    continue
                side = f", which is in {first.split}" if first.split != image.split else ""
                reason = f"the same content as {first.file.relative}{side}{_other_boxes(first, image)}"
                self._refuse(file, "duplicate", reason)
        return kept

    def _refuse_two_sides(self) -> None:
        labelled = [
            AnnotatedVideo(image.file, (Label(0.0, None, "", image.group or key, image.split),))
            for key, image in self._wanted.items()
        ]
        try:
            refuse_two_sides(labelled, stored=self._groups)
        except InputError as error:  # if an image is its own group, name its file
            own = (image.file.relative for key, image in self._wanted.items() if not image.group and key in str(error))
            raise InputError(": ".join([*list(own)[:1], str(error)])) from None

    def _jobs(self, content: str, frames: list[int]) -> list[ImageJob]:
        uri = self._files[content].uri
        if not frames:
            return [ImageJob(uri, content)]
        pieces = [tuple(frames[at : at + FRAMES_PER_JOB]) for at in range(0, len(frames), FRAMES_PER_JOB)]
        self._pieces[content] = len(pieces), []
        return [ImageJob(uri, content, piece) for piece in pieces]

    def _place(self, checked: CheckedImage) -> list[dict[str, Any]]:
        """Return the row of `boxes` of a stored image in a list, or an empty list if the image is refused."""
        image, height, width = self._wanted[checked.image], checked.height, checked.width
        if image.size and image.size == checked.coded != (height, width):
            boxes = image.boxes if image.normalised else scale_boxes(image.boxes, image.size, (height, width))
            image = replace(image, boxes=boxes, size=(height, width))
        frame = "" if image.frame is None else f"frame {image.frame}: "
        drawn = scale_boxes(image.boxes, (1, 1), (height, width)) if image.normalised else image.boxes
        if image.size in (None, (height, width)):
            self._report.boxes_drawn += len(drawn)
            self._report.boxes_outside += count_outside(drawn, height, width)
        try:
            placed = place_boxes(image, height, width, self._options.boxes)
        except Unreadable as error:
            self._refuse(image.file, error.verdict, f"{frame}{error}")
            return []
        self._report.refused += [
            {"uri": image.file.uri, "verdict": "box_outside", "reason": f"{frame}{complaint}"}
            for complaint in placed.complaints
        ]
        self._report.clipped += placed.clipped
        group = image.group or checked.image
        row = {"image": checked.image, "group": group, "split": self._groups.get(group, ""), "time": checked.time}
        self._placed[checked.image] = row | placed.columns(image)
        return [self._placed[checked.image]]

    def _stand(self, images: list[str]) -> None:
        """Place the boxes of stored images as their labels say now."""
        for image in images:
            held = self._images[image]
            seconds = math.nan if self._wanted[image].frame is None else float(held["uri"].rpartition("#t=")[2])
            coded = held["coded_height"], held["coded_width"]
            self._place(
                CheckedImage(image, held["height"], held["width"], seconds, coded=coded if all(coded) else None)
            )
        self._standing = self._placed.keys() & self._rows.keys()
        self._write(self._placed.values())

    def _replaced(self, contents: dict[str, str]) -> set[str]:
        """Return contents whose every file has other content now: images that were drawn or exported anew."""
        places: dict[str, set[str]] = defaultdict(set)
        for image, uri in self._looked_at:
            places[image].add(uri)
        return {image for image, uris in places.items() if all((contents.get(uri) or image) != image for uri in uris)}

    def _retire(self, contents: Iterable[str]) -> None:
        """Remove the boxes of images of these contents that are refused now, and of frames that the labels of their
        video no longer name.
        """
        self._remove([key for key in self._rows if key not in self._placed and key.partition("-")[0] in contents])

    def _refuse(self, file: File, verdict: str, reason: str, *, images: int = 1) -> None:
        """Count refused images. A reason that holds for many frames of a video is reported once."""
        self._report.refused_pictures += images
        self._report.duplicates += images if verdict == "duplicate" else 0
        if (file.uri, reason) not in self._reported:
            self._reported.add((file.uri, reason))
            self._report.refused.append({"uri": file.uri, "verdict": verdict, "reason": reason})


def _other_boxes(first: AnnotatedImage, other: AnnotatedImage) -> str:
    """Return the end of the reason for a duplicate whose boxes differ from those of the image that is kept.

    Empty for videos, of which other frames may be labelled.
    """
    if first.frame is not None or (first.boxes, first.labels) == (other.boxes, other.labels):
        return ""
    counts = [
        ", ".join(f"{count} {label}" for label, count in sorted(Counter(image.labels).items())) or "nothing"
        for image in (first, other)
    ]
    return other_labels(*counts) or ", with other boxes"
