"""`posture ingest` as a person meets it: the estimate, the question, progress, and the table at the end."""

from __future__ import annotations

import sys
from collections import Counter

from posture import console
from posture.data.annotations import Footage, read_footage
from posture.data.ledger import IngestOptions, Report, estimate_bytes, last_report
from posture.data.store import Store
from posture.distributed.ingest import TooManyRefused, ingest
from posture.errors import InputError

ASK_ABOVE_BYTES = 5e9
ASK_ABOVE_FILES = 2_000


def ask_and_ingest(source: str, store_uri: str, options: IngestOptions, *, layout: str | None, split_number: int, yes: bool) -> Report:
    """Recognise the footage, say how much it will be, ask if that is a lot, ingest, and print the table."""
    footage = read_footage(source, layout=layout, split_number=split_number)
    segments = sum(len(video.labels) for video in footage.videos)
    store = Store(store_uri, create=True)
    console.out.print(f"{footage.root}: layout {footage.layout}, {len(footage.videos):,} files, {segments:,} segments; stored as {options.cut.recipe}, "
                      f"at most {console.size(estimate_bytes(footage, options.cut.recipe))} before compression")
    if not yes:
        _ask(footage, options)
    try:
        with console.progress("decoding") as advance:
            report = ingest(footage, store, options, progress=lambda done, files, clips, rate: advance(done, files, f"{clips:,} clips, {rate:.0f} clips/s"))
    except TooManyRefused as error:
        print_report(error.report)
        raise
    print_report(report)
    return report


def add_flow(store_uri: str, method: str) -> None:
    """Compute the flow that the store's clips lack, and print what that came to."""
    from posture.distributed.flow import compute_flow

    store = Store(store_uri)
    with console.progress("computing optical flow") as advance:
        report = compute_flow(store, method, progress=lambda done, total, rate: advance(done, total, f"{rate:.0f} clips/s"))
    rate = f"{report.computed / report.seconds:.1f}" if report.computed else "-"
    console.table("flow", "clips", "there already", "computed", "written", "clips/s", "took", rows=[
        (method, report.clips, report.clips - report.computed, report.computed, console.size(report.bytes), rate, console.duration(report.seconds))])


def _ask(footage: Footage, options: IngestOptions) -> None:
    if estimate_bytes(footage, options.cut.recipe) <= ASK_ABOVE_BYTES and len(footage.videos) <= ASK_ABOVE_FILES:
        return
    if not sys.stdin.isatty():
        raise InputError("this is a long ingest and nobody can be asked here; add --yes to go ahead, or --jpeg 90 or fewer --windows to store less")
    if input("This takes a while. Go ahead? [y/N] ").strip().lower() not in ("y", "yes"):
        raise InputError("nothing was ingested; --jpeg 90 or fewer --windows store less")


def show_report(store_uri: str) -> None:
    """Print the table of the store's last ingest again."""
    report = last_report(Store(store_uri))
    if report is None:
        raise InputError(f"{store_uri}: no ingest has changed this store yet")
    print_report(report)


def print_report(report: Report) -> None:
    rate = f"{report.clips_per_second:.1f}" if report.clips else "-"
    console.table("files", "unchanged", "decoded", "refused", "segments", "clips", "classes", "footage", "clips/s", "took", rows=[
        (report.files, report.unchanged, report.decoded, len(report.refused), report.segments, report.clips, len(report.classes),
         console.duration(report.footage_seconds), rate, console.duration(report.seconds))])
    if report.relabelled or report.retired:
        console.out.print(f"labels corrected: {report.relabelled:,} segments changed, {report.retired:,} removed")
    if report.unlabelled:
        console.out.print(f"{report.unlabelled:,} files without a label were left alone")
    if report.classes:
        console.out.print()
        console.table("class", "train", "val", "test", rows=[(name, *counts.values()) for name, counts in sorted(report.classes.items())])
    if report.refused:
        console.out.print()
        verdicts = Counter(item["verdict"] for item in report.refused)
        console.table("refused", "verdict", "reason", rows=[(item["uri"], item["verdict"], item["reason"]) for item in report.refused[:50]])
        console.out.print("; ".join(f"{verdict}: {count}" for verdict, count in verdicts.most_common()))
