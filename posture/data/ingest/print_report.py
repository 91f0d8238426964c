"""Reports of ingests, as they are printed."""

from __future__ import annotations

from collections import Counter
from typing import Any

from posture.data.ingest.clip_ledger import ClipReport
from posture.data.ingest.image_ledger import ImageReport
from posture.data.ingest.small_splits import small_splits
from posture.data.store.schema import SPLITS
from posture.data.store.tables import Store
from posture.display import console
from posture.display.text import counted, duration

REFUSALS_SHOWN = 50


def print_report(report: ClipReport | ImageReport) -> None:
    """Print the report of an ingest."""
    images = isinstance(report, ImageReport)
    figures, what = (_image_figures(report), "image") if images else (_clip_figures(report), "segment")
    console.table(*figures, rows=[tuple(figures.values())])
    if report.relabelled or report.retired:
        console.out.print(f"labels corrected: {counted(report.relabelled, what)} changed, {report.retired:,} removed")
    if images and report.clipped:
        console.out.print(f"{counted(report.clipped, 'box', 'boxes')} cut off at the edge of the image")
    if report.unlabelled:
        console.out.print(f"{counted(report.unlabelled, 'file')} without a label left alone")
    if report.added if images else report.classes:
        counts = sorted(report.classes.items())
        counts += [("images", report.by_split), ("images without a box", report.empty)] if images else []
        rows = [(name, *(split[side] for side in SPLITS)) for name, split in counts]
        console.out.print()
        console.table("boxes of class" if images else "class", *SPLITS, rows=rows)
    if report.splits:
        console.out.print(report.splits)
    if report.waiting:
        console.out.print(
            f"{counted(report.waiting, what)} of other footage without a split yet, since their ingest was stopped; "
            "run it again to complete it"
        )
    if notes := [] if images else report.notes:
        console.out.print()
        console.table("odd", "note", rows=[(item["uri"], item["note"]) for item in notes[:REFUSALS_SHOWN]])
        if len(notes) > REFUSALS_SHOWN:
            console.out.print(f"{len(notes) - REFUSALS_SHOWN:,} more are odd")
    print_refused(report.refused)


def _clip_figures(report: ClipReport) -> dict[str, Any]:
    return {
        "files": report.files,
        "unchanged": report.unchanged,
        "decoded": report.decoded,
        "refused": len(report.refused),
        "segments": report.segments,
        "clips": report.clips,
        "classes": len(report.classes),
        "footage": duration(report.footage_seconds),
        "clips/s": f"{report.clips_per_second:.1f}" if report.clips else "-",
        "took": duration(report.seconds),
    }


def _image_figures(report: ImageReport) -> dict[str, Any]:
    timed = report.check_seconds and report.added
    return {
        "images": report.pictures,
        "unchanged": report.unchanged,
        "added": report.added,
        "refused": report.refused_pictures,
        "boxes": report.boxes,
        "classes": len(report.classes),
        "images/s": f"{report.added / report.check_seconds:.0f}" if timed else "-",
        "took": duration(report.seconds),
    }


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
        rows = [(item["uri"], item["verdict"], item["reason"]) for item in refused[:REFUSALS_SHOWN]]
        console.table("refused", "verdict", "reason", rows=rows)
        console.out.print("; ".join(f"{verdict}: {count}" for verdict, count in verdicts.most_common()))
