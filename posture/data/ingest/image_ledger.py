"""What a store holds of images with boxes, what an ingest is to add, and the commits that bring the two together. It
decodes nothing.

Commits come in batches, in the order images, boxes, pictures: a row in `pictures` means done. Killed anywhere, an
ingest decodes at most one batch again. Boxes are put into pixels here, once an image's size is known: labels never
travel to the workers. Images of new groups wait without a split until everything is decoded: the splits are drawn
over what was kept.
"""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NotRequired

import pyarrow as pa
from typing_extensions import TypedDict  # pydantic takes no other before Python 3.12

from posture.data.decode.limits import DecodeLimits
from posture.data.ingest.clip_ledger import ClipReport, other_labels
from posture.data.ingest.splits import assign_splits, refuse_two_sides, splits_drawn
from posture.data.labels.place_boxes import count_outside, place_boxes, scale_boxes
from posture.data.labels.records import AnnotatedImage, AnnotatedImages, AnnotatedVideo, Label
from posture.data.store import schema
from posture.data.store.checked import checked_json, checked_value
from posture.data.store.files import File, hash_file, local_copy
from posture.data.store.lease import Lease
from posture.data.store.tables import Store
from posture.errors import InputError, Unreadable

FRAMES_PER_JOB = 128
"""Of one video: what a task holds in memory, and what is lost with it."""


@dataclass(frozen=True)
class ImageOptions:
    boxes: Literal["clip", "refuse"] = "clip"
    """Of a box that leaves its image: cut it off, or refuse the image."""
    val_share: float = 0.2
    test_share: float = 0.3
    seed: int = 0
    file_limit_seconds: float = 120.0
    """Time for one image, or for opening one video."""
    seconds_per_frame: float = 1.0
    """And this much more for each frame that is taken."""
    limits: DecodeLimits = DecodeLimits()
    """Of pixels and memory, for one file."""
    commit_images: int = 2048
    commit_seconds: float = 60.0
    max_refused_share: float = 0.5
    """More refused images than this fails the ingest."""


@dataclass
class ImageReport:
    """What an ingest of images did, as `posture ingest --report` shows it again."""

    ingest: str
    footage: str
    layout: str
    pictures: int = 0
    """Stills and frames that the labels speak of, and that are there."""
    unchanged: int = 0
    added: int = 0
    relabelled: int = 0
    """Images whose boxes, group or split were corrected, without decoding."""
    retired: int = 0
    """Images that were replaced, or whose labels are gone or refused now."""
    boxes: int = 0
    """In the images added."""
    boxes_drawn: int = 0
    """In all images that could be read and have the size that their labels are for."""
    boxes_outside: int = 0
    """Of these, such as have less than half of their area in their image."""
    clipped: int = 0
    """Boxes that were cut off at their image's edge, by more than rounding."""
    by_split: dict[str, int] = field(default_factory=lambda: dict.fromkeys(schema.SPLITS, 0))
    """Images added."""
    empty: dict[str, int] = field(default_factory=lambda: dict.fromkeys(schema.SPLITS, 0))
    """Of these, such as show nothing."""
    classes: dict[str, dict[str, int]] = field(default_factory=dict)
    """Boxes added, by class and split."""
    refused_pictures: int = 0
    duplicates: int = 0
    """Of these."""
    splits: str = ""
    """How many groups of these images stand on each side, and what put them there."""
    waiting: int = 0
    """Images of other folders that wait for their split: their ingest was stopped."""
    refused: list[dict[str, str]] = field(default_factory=list)
    """{uri, verdict, reason} per refused image, video, label or box."""
    unlabelled: int = 0
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    check_seconds: float = 0.0
    """From the first image sent out to the last one committed."""


@dataclass(frozen=True)
class ImageJob:
    """One image to check, or frames of one video to decode, as it travels to a worker (JSON)."""

    uri: str
    content: str
    """The file's hash."""
    frames: tuple[int, ...] = ()

    @property
    def pictures(self) -> int:
        return len(self.frames) or 1


class CheckedImage(TypedDict):
    """An image that a worker stored, or a frame that it looked for in vain."""

    image: str
    height: int
    width: int
    time: float
    """Seconds; NaN for stills."""
    past_end: int | None
    """Of a frame past the end, how many its video has."""
    coded: NotRequired[list[int] | None]
    """Height and width of a frame before its pixel aspect ratio."""


class ImageResult(TypedDict):
    """What became of a job."""

    content: str
    asked: int
    """Pictures."""
    verdict: str
    reason: str
    pictures: list[CheckedImage]


def last_report(store: Store) -> ClipReport | ImageReport | None:
    """The newest ingest, of footage or of images, that changed the store or refused something."""
    table = store.read("ingests")
    if not table.num_rows:
        return None
    return read_report(table.sort_by([("time", "descending")])["report"][0].as_py(), store)


class Refused(TypedDict):
    """A refused file, label or box in a report."""

    uri: str
    verdict: str
    reason: str


def read_report(text: str, store: Store) -> ClipReport | ImageReport:
    """A report as an ingest has stored it; fields that this version does not know are left out. Raises InputError if it
    is none.
    """
    content = _report(text, store)
    return checked_value(content, _where(store), ImageReport if "pictures" in content else ClipReport)


def read_refused(text: str, store: Store) -> list[Refused]:
    """What was refused, according to a report as an ingest has stored it. Raises InputError if it is none."""
    return _report(text, store)["refused"]


def _report(text: str, store: Store) -> dict[str, Any]:
    content = checked_json(text, _where(store), dict[str, Any])
    checked_value(content.get("refused", []), _where(store), list[Refused])
    return content


def _where(store: Store) -> str:
    return f"{store.uri}: the report of an ingest"


@dataclass
class _Video:
    """Frames come back a job at a time; their boxes wait until the whole video has proved good."""

    jobs: int
    outcomes: list[ImageResult] = field(default_factory=list)


class ImageLedger:
    """What the store holds of images, what this ingest adds, and the commits."""

    def __init__(self, store: Store, options: ImageOptions, report: ImageReport, lease: Lease) -> None:
        self._store, self._options, self._report, self._lease = store, options, report, lease
        self._pictures = {(row["image"], row["uri"]): row for row in store.read("pictures").to_pylist()}
        self._seen = {(row["uri"], row["bytes"], row["modified"]): row for row in self._pictures.values()}
        of_pixels = [name for name in schema.IMAGES.names if name not in ("pixels", "bytes", "decoder")]
        self._images = {row["image"]: row for row in store.read("images", columns=of_pixels).to_pylist()}
        self._boxes = {row["image"]: row for row in store.read("boxes").to_pylist()}
        self._wanted: dict[str, AnnotatedImage] = {}
        """By image, what is to be stored."""
        self._files: dict[str, File] = {}
        """By content."""
        self._groups = {row["group"]: row["split"] for row in store.read("groups").to_pylist()}
        self._placed: dict[str, dict[str, Any]] = {}
        """By image, the rows of `boxes` as the labels say them now; of a new group, without a split."""
        self._standing: set[str] = set()
        """Of these, the images that had boxes before."""
        self._new: set[str] = {image for image, row in self._boxes.items() if row["split"] == ""}
        """Of all images, those that come into a split by this ingest."""
        self._videos: dict[str, _Video] = {}
        self._told: set[tuple[str, str]] = set()
        self._ready: list[ImageResult] = []
        self._parts: list[dict[str, Any]] = []
        self._pending = 0
        self._last_commit = time.time()
        self.changed = False

    def plan(self, images: AnnotatedImages) -> list[ImageJob]:
        """List what must be decoded, and take back what is refused now. Raises InputError if a group would stand on two
        sides.
        """
        self._report.pictures = len(images.images) + len(images.refused)
        for refusal in images.refused:
            self._refuse(refusal.file, refusal.verdict, refusal.reason)
        contents = self._contents(images.images)
        self._wanted = self._without_duplicates(images.images, contents)
        self._files = {contents[picture.file.uri]: picture.file for picture in self._wanted.values()}
        self._refuse_two_sides()
        standing: list[str] = []
        missing: dict[str, list[int]] = {}
        for image, picture in self._wanted.items():
            known = self._known(picture.file)
            if known and schema.is_final(known):
                self._refuse(picture.file, known["verdict"], known["reason"])
            elif image in self._images:
                standing.append(image)
            else:
                missing.setdefault(contents[picture.file.uri], []).extend(
                    [] if picture.frame is None else [picture.frame]
                )
        self._stand(standing)
        refused = {known["image"] for refusal in images.refused if (known := self._known(refusal.file))}
        self._retire({*contents.values(), *refused, *self._replaced(contents)})
        whole = {contents[self._wanted[image].file.uri] for image in standing} - set(missing)
        self._remember([_image_row(self._files[content], content) for content in sorted(whole)])
        return [job for content, frames in missing.items() for job in self._jobs(content, frames)]

    def add(self, outcomes: list[ImageResult], part: dict[str, Any] | None) -> None:
        """Take what one task did with its jobs; commit when enough has come."""
        self._parts += [part] if part else []
        self._pending += sum(outcome["asked"] for outcome in outcomes)
        for outcome in outcomes:
            video = self._videos.get(outcome["content"])
            if video is None:
                self._ready.append(outcome)
                continue
            video.outcomes.append(outcome)
            if len(video.outcomes) == video.jobs:
                last = next((outcome for outcome in video.outcomes if outcome["verdict"] != "ok"), outcome)
                self._ready.append({
                    **last,
                    "asked": sum(outcome["asked"] for outcome in video.outcomes),
                    "pictures": [image for outcome in video.outcomes for image in outcome["pictures"]],
                })
        if (
            self._pending >= self._options.commit_images
            or time.time() - self._last_commit > self._options.commit_seconds
        ):
            self.commit()

    def commit(self) -> None:
        """Images, then boxes, then images: whoever reads in between sees less, never something wrong."""
        self._lease.check()
        self._store.commit_files("images", self._parts)
        placed: list[dict[str, Any]] = []
        done = []
        for outcome in self._ready:
            file = self._files[outcome["content"]]
            done.append(_image_row(file, outcome["content"], outcome["verdict"], outcome["reason"]))
            if outcome["verdict"] != "ok":
                self._refuse(file, outcome["verdict"], outcome["reason"], pictures=outcome["asked"])
                continue
            for image in outcome["pictures"]:
                if image["past_end"] is None:
                    placed += self._place(
                        image["image"], image["height"], image["width"], image["time"], image.get("coded")
                    )
                else:
                    frame = self._wanted[image["image"]].frame
                    self._refuse(
                        file, "frame_past_end", f"frame {frame}: the video has {image['past_end']}, counted from 0"
                    )
        self._write(placed)
        self._remember(done)
        self.changed = self.changed or bool(self._ready or self._parts)
        self._ready, self._parts, self._pending, self._last_commit = [], [], 0, time.time()

    def finish(self) -> None:
        """Commit what is left, draw the splits of new groups over what was kept, and bring `boxes` in line with the
        labels.

        The splits come first: killed after them, the next ingest goes on with the same.
        """
        self.commit()
        splits = self._assign_splits()
        # a group may have got its split in an ingest of another folder, before this one could end
        said = {
            image: row for image, row in self._boxes.items() if row["split"] == "" and row["group"] in splits
        } | self._placed
        said = {image: row | {"split": splits[row["group"]]} for image, row in said.items()}
        changed = [row for image, row in said.items() if not _same(self._boxes[image], row)]
        added = [row for image, row in said.items() if image in self._new]
        self._store.upsert("boxes", pa.Table.from_pylist(changed, schema=schema.BOXES), keys=["image"])
        self._boxes |= said
        relabelled = {row["image"] for row in changed} - self._new
        self._report.relabelled, self._report.unchanged = len(relabelled), len(self._standing - self._new - relabelled)
        self._report.waiting = sum(row["split"] == "" for row in self._boxes.values())
        self._count(added)
        self.changed = self.changed or bool(changed)

    def _known(self, file: File) -> dict[str, Any] | None:
        return self._seen.get((file.uri, file.bytes, file.modified))

    def _contents(self, images: Iterable[AnnotatedImage]) -> dict[str, str]:
        """Content hash of every file; empty where it cannot be read or holds nothing. Files that were seen before are
        not read.
        """
        files = {image.file.uri: image.file for image in images}
        contents = {file.uri: known["image"] if (known := self._known(file)) else "" for file in files.values()}
        unknown = [uri for uri, content in contents.items() if not content and files[uri].bytes]
        with ThreadPoolExecutor(max_workers=16) as pool:
            return contents | dict(zip(unknown, pool.map(_content, unknown), strict=True))

    def _without_duplicates(self, images: list[AnnotatedImage], contents: dict[str, str]) -> dict[str, AnnotatedImage]:
        """One image for each content: on the side that it has in the store; else the one that is held out, so that
        nothing is trained on that is tested; else what stands, else the first.
        """
        order = {"test": 0, "val": 1}
        stands = {place for place, row in self._pictures.items() if row["verdict"] == "ok"}
        forgotten = self._store.forgotten()

        def keeps_its_side(image: AnnotatedImage, content: str) -> bool:
            held = self._boxes.get(content)
            if image.group or held is None or held["group"] != content or held["split"] == "":
                return False
            return image.split in (None, held["split"]) or (image.split, held["split"]) == ("train", "val")

        def first_come(image: AnnotatedImage) -> tuple[Any, ...]:
            file, content = image.file, contents[image.file.uri]
            return (
                not keeps_its_side(image, content),
                order.get(image.split or "", 2),
                (content, file.uri) not in stands,
                file.relative,
                image.frame or 0,
            )

        first_with: dict[str, AnnotatedImage] = {}
        kept = {}
        for image in sorted(images, key=first_come):
            file, content = image.file, contents[image.file.uri]
            if not content:
                self._refuse(
                    file,
                    *(
                        ("unreadable", "it is gone, or no regular file")
                        if file.bytes
                        else ("empty", "the file has no bytes")
                    ),
                )
                continue
            if content in forgotten:
                self._refuse(file, "forgotten", schema.VERDICTS["forgotten"])
                continue
            first = first_with.setdefault(content, image)
            if (first.file.uri, first.split) == (file.uri, image.split):
                kept[content if image.frame is None else schema.frame_id(content, image.frame)] = image
            else:
                side = f", which is in {first.split}" if first.split != image.split else ""
                self._refuse(
                    file, "duplicate", f"the same content as {first.file.relative}{side}{_other_boxes(first, image)}"
                )
        return kept

    def _refuse_two_sides(self) -> None:
        labelled = [
            AnnotatedVideo(picture.file, (Label(0.0, None, "", picture.group or image, picture.split),))
            for image, picture in self._wanted.items()
        ]
        try:
            refuse_two_sides(labelled, stored=self._groups)
        except InputError as error:  # an image that is its own group has no name there
            files = (
                picture.file.relative
                for image, picture in self._wanted.items()
                if not picture.group and image in str(error)
            )
            raise InputError(": ".join([*list(files)[:1], str(error)])) from None

    def _assign_splits(self) -> dict[str, str]:
        """The split of every group of the store; new ones, of the images that were kept, are drawn and committed."""
        kept = [
            Label(0.0, None, label, row["group"], self._wanted[image].split)
            for image, row in self._placed.items()
            for label in sorted(set(row["labels"])) or [""]
        ]
        drawing = {
            "val_share": self._options.val_share,
            "test_share": self._options.test_share,
            "seed": self._options.seed,
        }
        splits = assign_splits(kept, stored=self._groups, **drawing)
        new = [{"group": group, "split": split} for group, split in sorted(splits.items()) if group not in self._groups]
        self._lease.check()
        self._store.append("groups", pa.Table.from_pylist(new, schema=schema.GROUPS))
        self._report.splits = splits_drawn(kept, splits, **drawing) if kept else ""
        return self._groups | splits

    def _jobs(self, content: str, frames: list[int]) -> list[ImageJob]:
        uri = self._files[content].uri
        if not frames:
            return [ImageJob(uri, content)]
        pieces = [tuple(frames[at : at + FRAMES_PER_JOB]) for at in range(0, len(frames), FRAMES_PER_JOB)]
        self._videos[content] = _Video(len(pieces))
        return [ImageJob(uri, content, piece) for piece in pieces]

    def _place(
        self, image: str, height: int, width: int, seconds: float, coded: list[int] | None = None
    ) -> list[dict[str, Any]]:
        """The image's row of `boxes`, with its split if its group has one; none if it is refused. Boxes may have been
        drawn on the size `coded`.
        """
        picture = self._wanted[image]
        if coded and picture.size == tuple(coded) != (height, width):
            boxes = picture.boxes if picture.normalised else scale_boxes(picture.boxes, picture.size, (height, width))
            picture = replace(picture, boxes=boxes, size=(height, width))
        frame = "" if picture.frame is None else f"frame {picture.frame}: "
        scale = (width, height, width, height) if picture.normalised else (1, 1, 1, 1)
        drawn = [tuple(side * of for side, of in zip(box, scale, strict=True)) for box in picture.boxes]
        if picture.size in (None, (height, width)):
            self._report.boxes_drawn += len(drawn)
            self._report.boxes_outside += count_outside(drawn, height, width)
        try:
            placed = place_boxes(picture, height, width, self._options.boxes)
        except Unreadable as error:
            self._refuse(picture.file, error.verdict, f"{frame}{error}")
            return []
        self._report.refused += [
            {"uri": picture.file.uri, "verdict": "box_outside", "reason": f"{frame}{complaint}"}
            for complaint in placed.complaints
        ]
        self._report.clipped += placed.clipped
        group = picture.group or image
        self._placed[image] = {
            "image": image,
            "group": group,
            "split": self._groups.get(group, ""),
            "time": seconds,
            **placed.columns(picture),
        }
        return [self._placed[image]]

    def _stand(self, images: list[str]) -> None:
        """Place the boxes of images that are stored as their labels say now."""
        for image in images:
            held = self._images[image]
            seconds = math.nan if self._wanted[image].frame is None else float(held["uri"].rpartition("#t=")[2])
            coded = (
                [held["coded_height"], held["coded_width"]] if held["coded_height"] and held["coded_width"] else None
            )
            self._place(image, held["height"], held["width"], seconds, coded)
        self._standing = self._placed.keys() & self._boxes.keys()
        self._write([row for image, row in self._placed.items() if image not in self._boxes])

    def _write(self, boxes: list[dict[str, Any]]) -> None:
        """Add rows of `boxes` that are not there yet."""
        self._store.append("boxes", pa.Table.from_pylist(boxes, schema=schema.BOXES))
        self._boxes |= {row["image"]: row for row in boxes}
        self._new |= {row["image"] for row in boxes}
        self.changed = self.changed or bool(boxes)

    def _count(self, added: list[dict[str, Any]]) -> None:
        """Count the images that have come into a split."""
        report = self._report
        for row in added:
            report.added += 1
            report.boxes += len(row["boxes"])
            report.by_split[row["split"]] += 1
            report.empty[row["split"]] += not row["boxes"] and not row["ignored"]
            for label in row["labels"]:
                report.classes.setdefault(label, dict.fromkeys(schema.SPLITS, 0))[row["split"]] += 1

    def _replaced(self, contents: dict[str, str]) -> set[str]:
        """Contents that every file which had them has lost to others: images that were drawn or exported anew."""
        places: dict[str, set[str]] = defaultdict(set)
        for image, uri in self._pictures:
            places[image].add(uri)
        return {image for image, uris in places.items() if all((contents.get(uri) or image) != image for uri in uris)}

    def _retire(self, contents: set[str]) -> None:
        """Take back the boxes of images of these contents that are refused now, and of frames that their video's
        labels no longer speak of.
        """
        retired = [image for image in self._boxes if image not in self._placed and image.partition("-")[0] in contents]
        self._store.delete("boxes", "image", retired)
        for image in retired:
            del self._boxes[image]
        self._report.retired = len(retired)
        self.changed = self.changed or bool(retired)

    def _remember(self, images: list[dict[str, Any]]) -> None:
        """Write the rows of `images` that the table does not hold as they are."""
        changed = [row for row in images if self._pictures.get(_place_of(row)) != row]
        known = [row for row in changed if _place_of(row) in self._pictures]
        self._store.upsert("pictures", pa.Table.from_pylist(known, schema=schema.PICTURES), keys=["image", "uri"])
        self._store.append(
            "pictures", pa.Table.from_pylist([row for row in changed if row not in known], schema=schema.PICTURES)
        )
        self._pictures |= {_place_of(row): row for row in changed}
        self.changed = self.changed or bool(changed)

    def _refuse(self, file: File, verdict: str, reason: str, *, pictures: int = 1) -> None:
        """Count refused images; a reason that holds for many frames of a video is told once."""
        self._report.refused_pictures += pictures
        self._report.duplicates += pictures if verdict == "duplicate" else 0
        if (file.uri, reason) not in self._told:
            self._told.add((file.uri, reason))
            self._report.refused.append({"uri": file.uri, "verdict": verdict, "reason": reason})


def _image_row(file: File, content: str, verdict: str = "ok", reason: str = "") -> dict[str, Any]:
    return {
        "image": content,
        "uri": file.uri,
        "bytes": file.bytes,
        "modified": file.modified,
        "verdict": verdict,
        "reason": reason,
        "reader": None if verdict == "ok" else schema.READER,
    }


def _other_boxes(first: AnnotatedImage, other: AnnotatedImage) -> str:
    """What is added to the reason of a duplicate that is labelled in another way than the image that is kept; of
    videos, other frames may be.
    """
    if first.frame is not None or (first.boxes, first.labels) == (other.boxes, other.labels):
        return ""
    counts = [
        ", ".join(f"{count} {label}" for label, count in sorted(Counter(image.labels).items())) or "nothing"
        for image in (first, other)
    ]
    return other_labels(*counts) or ", with other boxes"


def _place_of(row: dict[str, Any]) -> tuple[str, str]:
    return row["image"], row["uri"]


def _same(old: dict[str, Any], new: dict[str, Any]) -> bool:
    return all(
        (old[name] or []) == (new[name] or [])
        for name in ("group", "split", "boxes", "labels", "tubes", "ignored", "ignored_labels")
    )


def _content(uri: str) -> str:
    try:
        with local_copy(uri) as path:
            return hash_file(path)
    except OSError:
        return ""
