"""`posture ingest`: arguments, the estimate, the question, progress, and the report as tables."""

# what may be None here depends on other values
# pyright: reportAssignmentType=false

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from posture.data.decode.cut import Cut
from posture.data.decode.limits import DecodeLimits
from posture.data.ingest.clip_ledger import ClipReport, IngestOptions, estimate_bytes
from posture.data.ingest.image_ledger import ImageOptions, ImageReport
from posture.data.ingest.ledger import TooManyRefused
from posture.data.ingest.recheck import earlier_frames, recheck
from posture.data.ingest.reports import last_report
from posture.data.ingest.small_splits import small_splits
from posture.data.labels.athletes import mixed_actions
from posture.data.labels.images import LAYOUTS as IMAGE_LAYOUTS
from posture.data.labels.images import read_images
from posture.data.labels.layouts import choose_layout
from posture.data.labels.records import AnnotatedImages, LabelledVideos
from posture.data.labels.tracked_videos import read_tracked_footage
from posture.data.labels.videos import read_footage
from posture.data.store.schema import SPLITS, DecodeRecipe, crop_name
from posture.data.store.tables import Store
from posture.display import console
from posture.display.ranges import between
from posture.display.text import counted, duration, size
from posture.errors import InputError
from posture.runs.trained import TrainedModel, open_trained

command = App(name="ingest", help_epilogue="Example: posture ingest FOOTAGE --store STORE")


def parse_size(text: str) -> tuple[int, int]:
    """Return (height, width): `128x171` -> (128, 171). Raises InputError."""
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdigit() and 16 <= int(part) <= 2048 for part in parts):
        raise InputError(f"--size {text}: write height x width in pixels, for example 128x171")
    return int(parts[0]), int(parts[1])


@Parameter(name="*", group="Clips")
@dataclass(frozen=True)
class ClipArguments:
    """How clips are cut from videos.

    Parameters
    ----------
    size
        Height x width of stored frames in pixels. Store larger frames than the network takes, so that crops can vary.
    frames
        Frames per stored clip. Store more than the 16 of training, so that the start can vary.
    stride
        Store every n-th frame of the video.
    windows
        Clips per segment, spread evenly over it.
    fit
        How to handle another aspect ratio.
    jpeg
        JPEG quality of stored frames from 1 to 100: about a tenth of the size, slower to read. 0 stores raw frames.
    min_frames
        Minimum stored frames of a training clip.
    short
        Pad segments with fewer frames (training repeats their last frame), or refuse them.
    background
        Also cut clips of a class `background` from the gaps between an athlete's labels, in which every action must be
        labelled.
    crop
        Cut clips around the athlete, beside whole clips: along hand-drawn `boxes` that lie beside the videos, or along
        the boxes of a trained detector, `detector=RUN`.
    margin
        Margin around the athlete on each side of a cropped clip, as a share of the athlete's box.
    flow
        Afterwards compute the clips' missing optical flow, for two-stream models, with OpenCV's DIS or Farneback
        method. Without FOOTAGE, for the clips that the store holds.
    """

    size: str = "128x171"
    frames: Annotated[int, between(1, 1024)] = 32
    stride: Annotated[int, between(1, 1000)] = 2
    windows: Annotated[int, between(1, 1000)] = 1
    fit: Literal["stretch", "crop", "pad"] = "stretch"
    jpeg: Annotated[int, between(0, 100)] = 0
    min_frames: Annotated[int, between(1)] = 16
    short: Literal["pad", "refuse"] = "pad"
    background: bool = False
    crop: str | None = None
    margin: Annotated[float, between(0, 2)] = 0.2
    flow: Literal["dis", "farneback"] | None = None

    def __post_init__(self) -> None:
        parse_size(self.size)
        if self.min_frames > self.frames:
            raise InputError(f"--min-frames {self.min_frames}: must be at most --frames, which is {self.frames}")
        if self.crop is not None and self.fit != "stretch":
            raise InputError(
                f"--fit {self.fit}: clips of --crop have the aspect ratio of --size already; leave out --fit or --crop"
            )


@Parameter(name="*", group="Images")
@dataclass(frozen=True)
class ImageArguments:
    """How labelled images are read.

    Parameters
    ----------
    every
        Take every n-th annotated frame of a video.
    boxes
        Clip boxes at the edge of the image, or refuse the image.
    named_val
        If the layout names a val but no test: use it as the test split, or keep it as val.
    outside
        Read the `path` of a data.yaml even if it lies outside of FOOTAGE.
    """

    every: Annotated[int, between(1, 100_000)] = 8
    boxes: Literal["clip", "refuse"] = "clip"
    named_val: Literal["test", "val"] = "test"
    outside: bool = False


@Parameter(name="*", group="Splits")
@dataclass(frozen=True)
class SplitArguments:
    """How groups are divided among train, val and test.

    Parameters
    ----------
    split_number
        Which of the three official splits of UCF101 to use.
    val_share
        Share of the training groups of each class that becomes val, if the footage names no val.
    test_share
        Share of the groups of each class that becomes test, if the footage names no test; by default 0.2 for clips and
        0.3 for images.
    seed
        Seed for choosing the groups.
    """

    split_number: Annotated[int, between(1, 3)] = 1
    val_share: Annotated[float, between(0, 0.9)] = 0.2
    test_share: Annotated[float | None, between(0, 0.9)] = None
    seed: int = 0


@Parameter(name="*", group="Limits")
@dataclass(frozen=True)
class LimitArguments:
    """Limits for a single file.

    Parameters
    ----------
    file_limit
        Maximum seconds to decode one video or image.
    file_memory
        Maximum memory to decode one file, in GB (on Linux).
    max_pixels
        Maximum pixels (height x width) of an image or a frame.
    max_refused
        Fail if a larger share of the files is refused.
    """

    file_limit: Annotated[float, between(1, 86400)] = 120.0
    file_memory: Annotated[float, between(0.5, 1e6)] = 4.0
    max_pixels: Annotated[float, between(1, 1e10)] = 100e6
    max_refused: Annotated[float, between(0, 1)] = 0.5


@command.default
def ingest(
    footage: str | None = None,
    /,
    *,
    store: str,
    layout: Literal[
        "segments", "kinetics", "ucf101", "label-studio", "folders", "yolo", "coco", "voc", "cvat", "ucf101_24"
    ]
    | None = None,
    clips: ClipArguments = ClipArguments(),
    images: ImageArguments = ImageArguments(),
    splits: SplitArguments = SplitArguments(),
    limits: LimitArguments = LimitArguments(),
    yes: bool = False,
    report: bool = False,
    recheck: bool = False,
) -> None:
    """Decode footage, or images with boxes, into a store. Files that the store holds already are not decoded again.

    Parameters
    ----------
    footage
        Folder or s3:// prefix of the footage, or its file of labels (a segments CSV, data.yaml, COCO JSON ...).
    store
        Folder or s3:// prefix of the store.
    layout
        How labels are given; recognised by default.
    yes
        Do not ask before a long ingest.
    report
        Show the report of the last ingest again, and do nothing else.
    recheck
        First decode again the clips that an earlier version of Posture may have decoded wrongly. FOOTAGE may be left
        out.
    """
    if report:
        return show_report(store)
    if recheck:
        recheck_videos(store, limit_seconds=limits.file_limit)
        if footage is None and clips.flow is None:
            return None
    if footage is not None:
        if isinstance(_ingest(footage, store, layout, clips, images, splits, limits, yes=yes), ImageReport):
            return console.suggest(
                f"posture show {store}, then posture train jobs/detector.py:improved --store {store}"
            )
    elif clips.flow is None:
        raise InputError("ingest needs FOOTAGE: a folder, an s3:// prefix, or a file of labels")
    if clips.flow is not None:
        add_flow(store, clips.flow)
    recipe = "improved" if clips.flow is None else "two_stream"
    console.suggest(
        ("" if footage is None else f"posture show {store}, then ")
        + f"posture train jobs/action.py:{recipe} --store {store}"
    )


def ingest_footage(
    footage: str,
    store: str,
    layout: str | None,
    *,
    clips: Mapping[str, Any] | None = None,
    images: Mapping[str, Any] | None = None,
    splits: Mapping[str, Any] | None = None,
    limits: Mapping[str, Any] | None = None,
) -> ClipReport | ImageReport:
    """Ingest footage without asking, and print and return the report. The mappings have fields of `ClipArguments`,
    `ImageArguments`, `SplitArguments` and `LimitArguments`.

    Raises InputError, also for fields that do not exist.
    """
    given = {ClipArguments: clips, ImageArguments: images, SplitArguments: splits, LimitArguments: limits}
    try:
        arguments: list[Any] = [kind(**(values or {})) for kind, values in given.items()]
    except TypeError as error:
        raise InputError(f"ingest: {str(error).rpartition('() ')[2]}") from None
    report = _ingest(footage, store, layout, *arguments, yes=True)
    if arguments[0].flow is not None and isinstance(report, ClipReport):
        add_flow(store, arguments[0].flow)
    return report


def _ingest(
    footage: str,
    store: str,
    layout: Any,
    clips: ClipArguments,
    images: ImageArguments,
    splits: SplitArguments,
    limits: LimitArguments,
    *,
    yes: bool,
) -> ClipReport | ImageReport:
    if clips.crop is None and layout is None:
        layout = choose_layout(footage, clips=_names_clips(clips))
    if clips.crop is None and layout in IMAGE_LAYOUTS:
        return _ingest_images(footage, store, layout, images, splits, limits, yes=yes)
    return _ingest_clips(footage, store, layout, clips, splits, limits, yes=yes)


def _names_clips(clips: ClipArguments) -> bool:
    """Return True if an option that only clips have was given: the footage is then read as videos."""
    default = ClipArguments()
    chosen = (clips.fit, clips.windows, clips.jpeg, clips.background, clips.flow)
    return chosen != (default.fit, default.windows, default.jpeg, default.background, default.flow)


def _ingest_clips(
    footage: str,
    store: str,
    layout: str | None,
    clips: ClipArguments,
    splits: SplitArguments,
    limits: LimitArguments,
    *,
    yes: bool,
) -> ClipReport:
    crop, detector = read_crop(clips.crop, clips.margin)
    recipe = DecodeRecipe(
        *parse_size(clips.size), clips.frames, clips.stride, clips.windows, clips.fit, clips.jpeg, crop
    )
    options = IngestOptions(
        cut=Cut(recipe, clips.min_frames, clips.short, clips.background), **_shared(splits, limits, test_share=0.2)
    )
    how: dict[str, Any] = {"split_number": splits.split_number, "yes": yes, "detector": detector}
    return ask_and_ingest(footage, store, options, layout=layout, **how)


def _ingest_images(
    footage: str,
    store: str,
    layout: str,
    images: ImageArguments,
    splits: SplitArguments,
    limits: LimitArguments,
    *,
    yes: bool,
) -> ImageReport:
    found = read_images(
        footage,
        layout=layout,
        every=images.every,
        named_val=images.named_val,
        split_number=splits.split_number,
        outside=images.outside,
    )
    options = ImageOptions(images.boxes, **_shared(splits, limits, test_share=0.3))
    return ask_and_ingest_images(found, store, options, yes=yes)


def _shared(splits: SplitArguments, limits: LimitArguments, *, test_share: float) -> dict[str, Any]:
    """Return the options that clips and images have in common."""
    return {
        "val_share": splits.val_share,
        "test_share": test_share if splits.test_share is None else splits.test_share,
        "seed": splits.seed,
        "file_limit_seconds": limits.file_limit,
        "limits": DecodeLimits(pixels=int(limits.max_pixels), memory_bytes=int(limits.file_memory * 1e9)),
        "max_refused_share": limits.max_refused,
    }


ASK_ABOVE_BYTES = 5e9
ASK_ABOVE_FILES = 2_000
ASK_ABOVE_IMAGES = 50_000
REFUSALS_SHOWN = 50


def read_crop(text: str | None, margin: float) -> tuple[str, TrainedModel | None]:
    """Return the decode recipe's crop for `--crop TEXT --margin MARGIN`, and the detector if TEXT names one.

    Raises InputError.
    """
    if text is None:
        return "", None
    source, sign, run = text.partition("=")
    if text == "boxes":
        return crop_name(margin), None
    if source == "detector" and sign and run:
        detector = open_trained(run, task="detection")
        return crop_name(margin, detector=detector.digest), detector
    raise InputError(
        f"--crop {text}: write boxes, for hand-drawn boxes, or detector=runs/NAME, for those of a trained detector"
    )


def ask_and_ingest(
    source: str,
    store_uri: str,
    options: IngestOptions,
    *,
    layout: str | None,
    split_number: int,
    yes: bool,
    detector: TrainedModel | None = None,
) -> ClipReport:
    """Read the labels, print an estimate, ask if the ingest is long, ingest, and print the report.

    `detector` finds the athletes if the recipe crops by a detector.
    """
    if options.cut.recipe.crop:
        footage = read_tracked_footage(source, layout=layout, split_number=split_number, drawn=detector is None)
    else:
        footage = read_footage(source, layout=layout, split_number=split_number)
        footage = replace(footage, notes=[*footage.notes, *mixed_actions(footage)])
    from posture.distributed.ingest import ingest as ingest_clips

    segments = sum(len(video.labels) for video in footage.videos)
    store = Store(store_uri, create=True)
    console.out.print(
        f"{footage.root}: layout {footage.layout}, {counted(len(footage.videos), 'file')}, "
        f"{counted(segments, 'segment')}; stored as {options.cut.recipe}, "
        f"at most {size(estimate_bytes(footage, options.cut.recipe))} before compression"
    )
    for note in footage.notes:
        console.out.print(note)
    if not yes:
        _ask(footage, options)
    try:
        with console.progress("finding athletes" if detector else "decoding") as advance:
            report = ingest_clips(
                footage,
                store,
                options,
                detector=detector,
                progress=lambda done, files, clips, rate: advance(
                    done, files, f"{counted(clips, 'clip')}, {rate:.0f} clips/s"
                ),
            )
    except TooManyRefused as error:
        print_report(error.report)
        raise
    print_report(report)
    _print_small_splits(store)
    return report


def ask_and_ingest_images(images: AnnotatedImages, store_uri: str, options: ImageOptions, *, yes: bool) -> ImageReport:
    """Print what was read, ask if the ingest is long, ingest, and print the report."""
    from posture.distributed.ingest import ingest_images

    store = Store(store_uri, create=True)
    files = {image.file.uri: max(0, image.file.bytes) for image in images.images}
    boxes = sum(len(image.boxes) for image in images.images)
    frames = sum(image.frame is not None for image in images.images)
    what = (
        f"{counted(frames, 'frame')} of {counted(len(files), 'video')}"
        if frames
        else f"{counted(len(files), 'image')}, {size(sum(files.values()))}"
    )
    classes = {label for image in images.images for label in image.labels}
    console.out.print(
        f"{images.root}: layout {images.layout}, {what}; {counted(boxes, 'box', 'boxes')} of "
        f"{counted(len(classes), 'class', 'classes')}"
    )
    for note in images.notes:
        console.out.print(note)
    if not yes and (len(images.images) > ASK_ABOVE_IMAGES or (not frames and sum(files.values()) > ASK_ABOVE_BYTES)):
        _ask_a_person("add --yes to go ahead")
    try:
        with console.progress("checking images") as advance:
            report = ingest_images(
                images,
                store,
                options,
                progress=lambda done, total, _, rate: advance(done, total, f"{rate:.0f} images/s"),
            )
    except TooManyRefused as error:
        print_image_report(error.report)
        raise
    print_image_report(report)
    _print_small_splits(store, images=True)
    if old := earlier_frames(store):
        console.out.print(
            f"an earlier version of Posture stored {counted(old, 'frame')} in {store.uri}, and may have stored other "
            "frames than asked; ingest their videos into a new store to correct them"
        )
    return report


def add_flow(store_uri: str, method: str) -> None:
    """Compute the missing optical flow of the store's clips, and print a report."""
    from posture.distributed.ingest import compute_flow

    store = Store(store_uri)
    with console.progress("computing optical flow") as advance:
        report = compute_flow(
            store, method, progress=lambda done, total, _, rate: advance(done, total, f"{rate:.0f} clips/s")
        )
    rate = f"{report.computed / report.seconds:.1f}" if report.computed else "-"
    console.table(
        "flow",
        "clips",
        "there already",
        "computed",
        "written",
        "clips/s",
        "took",
        rows=[
            (
                method,
                report.clips,
                report.clips - report.computed,
                report.computed,
                size(report.bytes),
                rate,
                duration(report.seconds),
            )
        ],
    )


def recheck_videos(store_uri: str, *, limit_seconds: float) -> None:
    """Decode again the clips that an earlier version may have decoded wrongly, and list their videos."""
    store = Store(store_uri)
    with console.progress("checking videos") as advance:
        done = recheck(
            store,
            limit_seconds=limit_seconds,
            progress=lambda number, videos, clips: advance(number, videos, f"{clips:,} clips decoded again"),
        )
    if not done.videos:
        console.out.print(f"{store.uri}: no video that an earlier version of Posture decoded is left to check")
        return
    console.out.print(
        f"{counted(done.videos, 'video')} decoded by an earlier version of Posture; "
        f"{len(done.wrong):,} may have had wrong frames, of which {counted(done.clips, 'clip')} decoded again"
    )
    if done.wrong:
        console.table("decoded again", "because", rows=[(item["uri"], item["reason"]) for item in done.wrong])
    for recipe, clips in sorted(done.removed.items()):
        console.out.print(
            f"{counted(clips, 'clip')} cut along athletes ({recipe}) removed, since the store does not keep the boxes; "
            f"make them again with: posture ingest FOOTAGE --store {store_uri} --crop ..."
        )
    if done.flows:
        console.out.print(
            f"the optical flow of {counted(done.flows, 'clip')} removed; compute it again with: "
            f"posture ingest --store {store_uri} --flow METHOD"
        )
    _print_refused(done.refused)


def _ask(footage: LabelledVideos, options: IngestOptions) -> None:
    if estimate_bytes(footage, options.cut.recipe) <= ASK_ABOVE_BYTES and len(footage.videos) <= ASK_ABOVE_FILES:
        return
    _ask_a_person("add --yes to go ahead, or --jpeg 90 or fewer --windows to store less")


def _ask_a_person(hint: str) -> None:
    if not sys.stdin.isatty():
        raise InputError(f"this is a long ingest, and there is no terminal to ask at; {hint}")
    if input("This takes a while. Go ahead? [y/N] ").strip().lower() not in ("y", "yes"):
        raise InputError(f"nothing was ingested; {hint}")


def show_report(store_uri: str) -> None:
    """Print the report of the store's last ingest again."""
    store = Store(store_uri)
    report = last_report(store)
    if report is None:
        raise InputError(f"{store_uri}: no ingest has changed this store yet")
    if isinstance(report, ImageReport):
        print_image_report(report)
    else:
        print_report(report)
    _print_small_splits(store, images=isinstance(report, ImageReport), title="the store now:")


def print_report(report: ClipReport) -> None:
    rate = f"{report.clips_per_second:.1f}" if report.clips else "-"
    console.table(
        "files",
        "unchanged",
        "decoded",
        "refused",
        "segments",
        "clips",
        "classes",
        "footage",
        "clips/s",
        "took",
        rows=[
            (
                report.files,
                report.unchanged,
                report.decoded,
                len(report.refused),
                report.segments,
                report.clips,
                len(report.classes),
                duration(report.footage_seconds),
                rate,
                duration(report.seconds),
            )
        ],
    )
    if report.relabelled or report.retired:
        console.out.print(
            f"labels corrected: {counted(report.relabelled, 'segment')} changed, {report.retired:,} removed"
        )
    if report.unlabelled:
        console.out.print(f"{counted(report.unlabelled, 'file')} without a label left alone")
    if report.classes:
        console.out.print()
        console.table(
            "class",
            "train",
            "val",
            "test",
            rows=[(name, *counts.values()) for name, counts in sorted(report.classes.items())],
        )
    _print_splits(report, "segment")
    if report.notes:
        console.out.print()
        console.table("odd", "note", rows=[(item["uri"], item["note"]) for item in report.notes[:REFUSALS_SHOWN]])
        if len(report.notes) > REFUSALS_SHOWN:
            console.out.print(f"{len(report.notes) - REFUSALS_SHOWN:,} more are odd")
    _print_refused(report.refused)


def print_image_report(report: ImageReport) -> None:
    rate = f"{report.added / report.check_seconds:.0f}" if report.check_seconds and report.added else "-"
    console.table(
        "images",
        "unchanged",
        "added",
        "refused",
        "boxes",
        "classes",
        "images/s",
        "took",
        rows=[
            (
                report.pictures,
                report.unchanged,
                report.added,
                report.refused_pictures,
                report.boxes,
                len(report.classes),
                rate,
                duration(report.seconds),
            )
        ],
    )
    if report.relabelled or report.retired:
        console.out.print(
            f"labels corrected: {counted(report.relabelled, 'image')} changed, "
            f"{counted(report.retired, 'image')} removed"
        )
    if report.clipped:
        console.out.print(f"{counted(report.clipped, 'box', 'boxes')} cut off at the edge of the image")
    if report.unlabelled:
        console.out.print(f"{counted(report.unlabelled, 'file')} without a label left alone")
    if report.added:
        console.out.print()
        counts = [*sorted(report.classes.items()), ("images", report.by_split), ("images without a box", report.empty)]
        console.table(
            "boxes of class", *SPLITS, rows=[(name, *(split[side] for side in SPLITS)) for name, split in counts]
        )
    _print_splits(report, "image")
    _print_refused(report.refused)


def _print_splits(report: ClipReport | ImageReport, what: str) -> None:
    if report.splits:
        console.out.print(report.splits)
    if report.waiting:
        console.out.print(
            f"{counted(report.waiting, what)} of other footage without a split yet, since their ingest was stopped; "
            "run it again to complete it"
        )


def _print_small_splits(store: Store, *, images: bool = False, title: str = "") -> None:
    """Print which splits of the whole store are small, below `title` if one is given."""
    table, columns, what = ("boxes", "labels", "images") if images else ("segments", "label", "segments")
    sentences = small_splits(store.read(table, columns=["split", "group", columns]), what)
    for sentence in ([title] if title and sentences else []) + list(sentences):
        console.out.print(sentence)


def _print_refused(refused: list[dict[str, str]]) -> None:
    if refused:
        console.out.print()
        verdicts = Counter(item["verdict"] for item in refused)
        console.table(
            "refused",
            "verdict",
            "reason",
            rows=[(item["uri"], item["verdict"], item["reason"]) for item in refused[:REFUSALS_SHOWN]],
        )
        console.out.print("; ".join(f"{verdict}: {count}" for verdict, count in verdicts.most_common()))
