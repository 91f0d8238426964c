"""Reports of ingests, as they are printed."""

from __future__ import annotations

from collections import Counter

from posture.data.ingest.clip_ledger import ClipReport
from posture.data.ingest.image_ledger import ImageReport
from posture.data.ingest.small_splits import small_splits
from posture.data.store.schema import SPLITS
from posture.data.store.tables import Store
from posture.display import console
from posture.display.text import counted, duration

REFUSALS_SHOWN = 50


def print_clip_report(report: ClipReport) -> None:
    """Print the report of an ingest of videos."""
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
    print_refused(report.refused)


def print_image_report(report: ImageReport) -> None:
    """Print the report of an ingest of images."""
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
    print_refused(report.refused)


def _print_splits(report: ClipReport | ImageReport, what: str) -> None:
    if report.splits:
        console.out.print(report.splits)
    if report.waiting:
        console.out.print(
            f"{counted(report.waiting, what)} of other footage without a split yet, since their ingest was stopped; "
            "run it again to complete it"
        )


def print_small_splits(store: Store, *, images: bool = False, title: str = "") -> None:
    """Print which splits of the whole store are small, below `title` if one is given."""
    table, columns, what = ("boxes", "labels", "images") if images else ("segments", "label", "segments")
    sentences = small_splits(store.read(table, columns=["split", "group", columns]), what)
    for sentence in ([title] if title and sentences else []) + list(sentences):
        console.out.print(sentence)


def print_refused(refused: list[dict[str, str]]) -> None:
    """Print what was refused and why, and how often each verdict was given."""
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
