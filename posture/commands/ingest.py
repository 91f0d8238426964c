"""`posture ingest`: arguments, the estimate, the question, progress, and the report as tables."""

# what may be None here depends on other values
# pyright: reportAssignmentType=false

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from cyclopts import App

from posture.data.ingest.arguments import ClipArguments, ImageArguments, IngestArguments, LimitArguments, SplitArguments
from posture.data.ingest.clip_ledger import ClipReport, IngestOptions, estimate_bytes
from posture.data.ingest.image_ledger import ImageOptions, ImageReport
from posture.data.ingest.ledger import TooManyRefused
from posture.data.ingest.print_report import print_refused, print_report, print_small_splits
from posture.data.ingest.recheck import earlier_frames, recheck
from posture.data.ingest.reports import last_report
from posture.data.labels.athletes import mixed_actions
from posture.data.labels.images import LAYOUTS as IMAGE_LAYOUTS
from posture.data.labels.images import read_images
from posture.data.labels.layouts import choose_layout
from posture.data.labels.records import AnnotatedImages, LabelledVideos
from posture.data.labels.tracked_videos import read_tracked_footage
from posture.data.labels.videos import read_footage, read_with_unlabelled
from posture.data.store.schema import crop_name
from posture.data.store.tables import Store
from posture.display import console
from posture.display.text import counted, duration, size
from posture.errors import InputError
from posture.runs.trained import TrainedModel, open_trained

command = App(name="ingest", help_epilogue="Example: posture ingest FOOTAGE --store STORE")


DEFAULTS = IngestArguments()


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
    arguments: IngestArguments = DEFAULTS,
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
    flow = arguments.clips.flow
    if recheck:
        recheck_videos(store, limit_seconds=arguments.limits.file_limit)
        if footage is None and flow is None:
            return None
    if footage is not None:
        if isinstance(_ingest(footage, store, layout, arguments, yes=yes), ImageReport):
            return console.suggest(
                f"posture show {store}, then posture train jobs/detector.py:improved --store {store}"
            )
    elif flow is None:
        raise InputError("ingest needs FOOTAGE: a folder, an s3:// prefix, or a file of labels")
    if flow is not None:
        add_flow(store, flow)
    recipe = "improved" if flow is None else "two_stream"
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
        arguments = IngestArguments(*(kind(**(values or {})) for kind, values in given.items()))
    except TypeError as error:
        raise InputError(f"ingest: {str(error).rpartition('() ')[2]}") from None
    report = _ingest(footage, store, layout, arguments, yes=True)
    if arguments.clips.flow is not None and isinstance(report, ClipReport):
        add_flow(store, arguments.clips.flow)
    return report


def _ingest(
    footage: str, store: str, layout: Any, arguments: IngestArguments, *, yes: bool
) -> ClipReport | ImageReport:
    clips, images, split_number = arguments.clips, arguments.images, arguments.splits.split_number
    if clips.crop is None and layout is None:
        layout = choose_layout(footage, clips=clips.only_for_videos)
    if clips.crop is None and layout in IMAGE_LAYOUTS:
        found = read_images(
            footage,
            layout=layout,
            every=images.every,
            named_val=images.named_val,
            split_number=split_number,
            outside=images.outside,
        )
        return ask_and_ingest_images(found, store, arguments.image_options(), yes=yes)
    crop, detector = read_crop(clips.crop, clips.margin)
    options = arguments.clip_options(crop=crop)
    return ask_and_ingest(footage, store, options, layout=layout, split_number=split_number, yes=yes, detector=detector)


ASK_ABOVE_BYTES = 5e9
ASK_ABOVE_FILES = 2_000
ASK_ABOVE_IMAGES = 50_000


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
        read = read_with_unlabelled if options.cut.unlabelled else read_footage
        footage = read(source, layout=layout, split_number=split_number)
        footage = replace(footage, notes=[*footage.notes, *mixed_actions(footage)])
    from posture.distributed.ingest import ingest as ingest_clips

    segments = sum(len(video.labels) for video in footage.videos)
    store = Store(store_uri, create=True)
    console.out.print(
        f"{footage.root}: layout {footage.layout}, {counted(len(footage.videos), 'file')}, "
        f"{counted(segments, 'segment')}; stored as {options.cut.recipe}, "
        f"at most {size(estimate_bytes(footage, options.cut))} before compression"
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
    print_small_splits(store)
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
        print_report(error.report)
        raise
    print_report(report)
    print_small_splits(store, images=True)
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
    figures = {
        "flow": method,
        "clips": report.clips,
        "there already": report.clips - report.computed,
        "computed": report.computed,
        "written": size(report.bytes),
        "clips/s": f"{report.computed / report.seconds:.1f}" if report.computed else "-",
        "took": duration(report.seconds),
    }
    console.table(*figures, rows=[tuple(figures.values())])


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
    print_refused(done.refused)


def _ask(footage: LabelledVideos, options: IngestOptions) -> None:
    if estimate_bytes(footage, options.cut) <= ASK_ABOVE_BYTES and len(footage.videos) <= ASK_ABOVE_FILES:
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
    print_report(report)
    print_small_splits(store, images=isinstance(report, ImageReport), title="the store now:")
