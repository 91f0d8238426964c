"""`posture ingest` as a person meets it: the estimate, the question, progress, and the table at the end."""

from __future__ import annotations

import sys
from collections import Counter

from posture.data.ingest.clip_ledger import ClipReport, IngestOptions, estimate_bytes
from posture.data.ingest.image_ledger import ImageOptions, ImageReport, last_report
from posture.data.ingest.recheck import earlier_frames, earlier_videos, recheck
from posture.data.ingest.small_splits import small_splits
from posture.data.labels.records import AnnotatedImages, LabelledVideos
from posture.data.labels.tracked_videos import read_tracked_footage
from posture.data.labels.videos import read_footage
from posture.data.store.schema import SPLITS, crop_name
from posture.data.store.tables import Store
from posture.display import console
from posture.display.text import counted
from posture.distributed.image_ingest import ingest_images
from posture.distributed.ingest import TooManyRefused, ingest
from posture.errors import InputError
from posture.runs.athlete_finder import AthleteDetector, open_detector

ASK_ABOVE_BYTES = 5e9
ASK_ABOVE_FILES = 2_000
ASK_ABOVE_IMAGES = 50_000
REFUSALS_SHOWN = 50


def read_crop(text: str | None, margin: float) -> tuple[str, AthleteDetector | None]:
    """What a decode recipe says of `--crop TEXT --margin MARGIN`, and the detector that it names, if it names one.
    Raises InputError.
    """
    if text is None:
        return "", None
    if not 0.0 <= margin <= 2.0:
        raise InputError(f"--margin {margin:g}: must be from 0 to 2, a share of the athlete's box on each side")
    source, sign, run = text.partition("=")
    if text == "boxes":
        return crop_name(margin), None
    if source == "detector" and sign and run:
        detector = open_detector(run)
        return crop_name(margin, detector=detector.digest), detector
    raise InputError(
        f"--crop {text}: cut along `boxes` that people drew, or along what a trained detector finds: detector=runs/NAME"
    )


def ask_and_ingest(
    source: str,
    store_uri: str,
    options: IngestOptions,
    *,
    layout: str | None,
    split_number: int,
    yes: bool,
    detector: AthleteDetector | None = None,
) -> ClipReport:
    """Recognise the footage, say how much it will be, ask if that is a lot, ingest, and print the table.

    `detector` finds athletes where the recipe's crop is by one.
    """
    if options.cut.recipe.crop:
        footage = read_tracked_footage(source, layout=layout, split_number=split_number, drawn=detector is None)
    else:
        footage = read_footage(source, layout=layout, split_number=split_number)
    segments = sum(len(video.labels) for video in footage.videos)
    store = Store(store_uri, create=True)
    console.out.print(
        f"{footage.root}: layout {footage.layout}, {counted(len(footage.videos), 'file')}, {counted(segments, 'segment')}; "
        f"stored as {options.cut.recipe}, "
        f"at most {console.size(estimate_bytes(footage, options.cut.recipe))} before compression"
    )
    for note in footage.notes:
        console.out.print(note)
    if not yes:
        _ask(footage, options)
    try:
        with console.progress("finding athletes" if detector else "decoding") as advance:
            report = ingest(
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
    """Say what there is, ask if that is a lot, ingest, and print the table."""
    store = Store(store_uri, create=True)
    files = {image.file.uri: max(0, image.file.bytes) for image in images.images}
    boxes = sum(len(image.boxes) for image in images.images)
    frames = sum(image.frame is not None for image in images.images)
    what = (
        f"{counted(frames, 'frame')} of {counted(len(files), 'video')}"
        if frames
        else f"{counted(len(files), 'image')}, {console.size(sum(files.values()))}"
    )
    classes = {label for image in images.images for label in image.labels}
    console.out.print(
        f"{images.root}: layout {images.layout}, {what}; {counted(boxes, 'box', 'boxes')} of {counted(len(classes), 'class', 'classes')}"
    )
    for note in images.notes:
        console.out.print(note)
    if not yes and (len(images.images) > ASK_ABOVE_IMAGES or (not frames and sum(files.values()) > ASK_ABOVE_BYTES)):
        _ask_a_person("add --yes to go ahead")
    try:
        with console.progress("checking images") as advance:
            report = ingest_images(
                images, store, options, progress=lambda done, total, rate: advance(done, total, f"{rate:.0f} images/s")
            )
    except TooManyRefused as error:
        print_image_report(error.report)
        raise
    print_image_report(report)
    _print_small_splits(store, pictures=True)
    if old := earlier_frames(store):
        console.out.print(
            f"{counted(old, 'frame')} in {store.uri} stored by an earlier version of Posture, which did not always give the frames asked for; "
            "take their videos into a new store to be sure of them"
        )
    return report


def add_flow(store_uri: str, method: str) -> None:
    """Compute the flow that the store's clips lack, and print what that came to."""
    from posture.distributed.flow import compute_flow

    store = Store(store_uri)
    with console.progress("computing optical flow") as advance:
        report = compute_flow(
            store, method, progress=lambda done, total, rate: advance(done, total, f"{rate:.0f} clips/s")
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
                console.size(report.bytes),
                rate,
                console.duration(report.seconds),
            )
        ],
    )


def recheck_videos(store_uri: str, *, limit_seconds: float) -> None:
    """Decode again what an earlier version may have decoded wrongly, and say which videos that were."""
    store = Store(store_uri)
    with console.progress("looking at videos") as advance:
        done = recheck(
            store,
            limit_seconds=limit_seconds,
            progress=lambda number, videos, clips: advance(number, videos, f"{clips:,} clips decoded again"),
        )
    if not done.videos:
        console.out.print(f"{store.uri}: no video that an earlier version of Posture decoded is left to look at")
        return
    console.out.print(
        f"{counted(done.videos, 'video')} decoded by an earlier version of Posture; {len(done.wrong):,} may have had wrong frames, "
        f"of which {counted(done.clips, 'clip')} decoded again"
    )
    if done.wrong:
        console.table("decoded again", "because", rows=[(item["uri"], item["reason"]) for item in done.wrong])
    for recipe, clips in sorted(done.removed.items()):
        console.out.print(
            f"{counted(clips, 'clip')} cut along athletes ({recipe}) removed, since the store does not keep where they were; make them "
            f"again with: posture ingest FOOTAGE --store {store_uri} --crop ..."
        )
    if done.flows:
        console.out.print(
            f"the optical flow of {counted(done.flows, 'clip')} removed; compute it again with: "
            f"posture ingest --store {store_uri} --flow METHOD"
        )
    _print_refused(done.refused)


def _say_what_is_earlier(store: Store) -> None:
    if videos := earlier_videos(store):
        console.out.print(
            f"{counted(len(videos), 'video')} in {store.uri} decoded by an earlier version of Posture, whose frames were not always those asked "
            f"for; to look at them, and decode again what may be wrong: posture ingest --store {store.uri} --recheck"
        )


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
    """Print the table of the store's last ingest again."""
    store = Store(store_uri)
    report = last_report(store)
    if report is None:
        raise InputError(f"{store_uri}: no ingest has changed this store yet")
    if isinstance(report, ImageReport):
        print_image_report(report)
    else:
        print_report(report)
    _print_small_splits(store, pictures=isinstance(report, ImageReport), title="the store now:")


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
                console.duration(report.footage_seconds),
                rate,
                console.duration(report.seconds),
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
                console.duration(report.seconds),
            )
        ],
    )
    if report.relabelled or report.retired:
        console.out.print(
            f"labels corrected: {counted(report.relabelled, 'image')} changed, {counted(report.retired, 'image')} removed"
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
            f"{counted(report.waiting, what)} of other footage without a split yet, since the ingest was stopped: run it again to finish it"
        )


def _print_small_splits(store: Store, *, pictures: bool = False, title: str = "") -> None:
    """Of all that the store holds, not of what was added alone; below `title` if one is given."""
    table, columns, what = ("boxes", "labels", "images") if pictures else ("segments", "label", "segments")
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
