"""The page on timelines of long videos: figures over overlap in time, class by class, labels and answers as strips."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from posture.data.store.files import write_bytes
from posture.display import html
from posture.display.charts import Chart, ChartLine, ticks
from posture.display.colours import UNSURE as GREY
from posture.display.colours import class_colours
from posture.display.text import counted, decimal
from posture.predict.answers import UNSURE, ActionSegment
from posture.predict.timeline_metrics import JudgedTimeline
from posture.runs.folder import RunFolder
from posture.runs.reports.common import list_facts, over_videos

STRIPS = 24
"""Maximum number of videos whose labels and answers are drawn."""
ROW, PAIR = 16, 38
"""Distances of rows, and of athletes, in a strip; in pixels."""
AT_HALF = 2
"""Index of tIoU 0.5."""


TRACKS = {"idf1": "IDF1", "hota": "HOTA"}
"""Keys and names of the figures of tracks."""


def write_untrimmed_page(
    path: Path, *, name: str, metrics: Mapping[str, Any], timelines: Sequence[JudgedTimeline], facts: Mapping[str, Any]
) -> None:
    """Write the page of `posture.predict.untrimmed.judge_untrimmed` on the run `name`; `facts` are {name: value}."""
    f1 = {row["video"]: row["f1"][AT_HALF] for row in (metrics["segments"] or {"by_video": []})["by_video"]}
    facts_of = {row["video"]: row for row in metrics["videos"]}
    ranked = sorted(timelines, key=lambda line: 2.0 if (value := f1.get(line.video)) is None else value)
    colours = dict(zip(metrics["classes"], class_colours(metrics["classes"]), strict=True)) | {UNSURE: GREY}
    page = html.render(
        "untrimmed.html",
        name=name,
        subtitle=[counted(metrics["count"], "video"), *([metrics["protocol"]] if "protocol" in metrics else [])],
        metrics=metrics,
        verdict=verdict(metrics),
        notes=metrics["notes"],
        tiles=_tiles(metrics),
        parts=_parts(metrics),
        colours=list(colours.items()),
        strips=[_strip(line, facts_of[line.video], f1.get(line.video), colours) for line in ranked[:STRIPS]],
        left_out=max(0, len(ranked) - STRIPS),
        facts=list_facts(facts, {}, ()),
    )
    html.write(path, page)


def write_untrimmed(
    folder: RunFolder, metrics: Mapping[str, Any], timelines: Sequence[JudgedTimeline], *, facts: Mapping[str, Any]
) -> str:
    """Write metrics.json, timelines.json (labels and answers of each video) and report.html into the run's
    evaluation/`metrics["name"]`. Return the path of the page.
    """
    name = metrics["name"]
    report = folder.path("evaluation", name, "report.html")
    with tempfile.TemporaryDirectory(prefix="posture-report-") as place:
        page = Path(place, "report.html")
        write_untrimmed_page(page, name=folder.name, metrics=metrics, timelines=timelines, facts=facts)
        write_bytes(report, page.read_bytes())
    compared = [
        {"video": line.video, "labels": list(map(vars, line.truths)), "answers": list(map(vars, line.found))}
        for line in timelines
    ]
    folder.write_json(f"evaluation/{name}/timelines.json", compared)
    folder.write_json(f"evaluation/{name}/metrics.json", metrics)
    return report


def verdict(metrics: Mapping[str, Any]) -> str:
    """Return the result in a sentence."""
    found = metrics["segments"]
    videos = counted(metrics["count"], "video")
    if found is None:
        return f"{counted(metrics['events']['count'], 'point event')} in {videos}."
    return (
        f"{counted(found['answers'], 'answer')} for {counted(found['count'], 'label')} in {videos}: F1 "
        f"{decimal(found['f1'][AT_HALF])} at tIoU 0.5 ({over_videos(found['intervals']['f1'][AT_HALF])})."
    )


def _tiles(metrics: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    tiles = []
    if found := metrics["segments"]:
        tiles += [
            ("F1 at tIoU 0.5", decimal(found["f1"][AT_HALF]), over_videos(found["intervals"]["f1"][AT_HALF])),
            ("mAP at tIoU 0.5", decimal(found["map"][AT_HALF]), over_videos(found["intervals"]["map"][AT_HALF])),
            ("mAP at tIoU 0.3 to 0.7", decimal(found["mean_map"]), over_videos(found["intervals"]["mean_map"])),
        ]
    if found := metrics["events"]:
        tiles += [
            (f"mAP within {frames} frames", decimal(value), over_videos(told))
            for frames, value, told in zip(found["tolerance"], found["map"], found["intervals"]["map"], strict=True)
        ]
    if found := metrics["tracks"]:
        tiles += [(text, decimal(found[key]), over_videos(found["intervals"][key])) for key, text in TRACKS.items()]
    return tiles


def _parts(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the sections on segments and on point events, those that there are."""
    kinds = (
        (
            "segments",
            "tiou",
            "Segments",
            "least overlap in time (tIoU)",
            "Answers over the overlap that they must have.",
        ),
        ("events", "tolerance", "Point events", "frames", "Answers over the distance that they may have."),
    )
    parts = []
    for key, levels, title, axis, text in kinds:
        if not (found := metrics[key]):
            continue
        values = found[levels]
        shown = [place for place in (0, AT_HALF, len(values) - 1) if place < len(values)]
        lines = [
            ChartLine(label, [(x, y) for x, y in zip(values, found[figure], strict=True) if y is not None], look)
            for figure, label, look in (("f1", "F1", "first"), ("map", "mAP", "second"))
        ]
        x_ticks = ticks(min(values), max(values)) if key == "segments" else ticks(0, max(values), whole=True)
        parts.append({
            "title": title,
            "text": text,
            "chart": Chart(title, axis, "", x_ticks, ticks(0, 1), lines, width=360, height=250),
            "levels": [f"{values[place]:g}" for place in dict.fromkeys(shown)],
            "places": list(dict.fromkeys(shown)),
            "classes": found["per_class"],
        })
    return parts


def _strip(
    line: JudgedTimeline, facts: Mapping[str, Any], f1: float | None, colours: Mapping[str, str]
) -> dict[str, Any]:
    """Return the drawing of one video: for each athlete a row of labels and a row of answers."""
    scale = 1000 / max(facts["seconds"], 1e-6)
    labelled = {part.track for part in line.truths}
    others = {part.track for part in line.found} - labelled
    tracks = [*sorted(labelled), *sorted(others, reverse=True)]

    def box(part: ActionSegment, row: int) -> tuple[float, int, float, str, str]:
        text = f"{part.label}, {part.start:.2f} to {part.end:.2f} s" + (f", {part.confidence:.0%}" if row else "")
        width = max((part.end - part.start) * scale, 1.0)
        y = tracks.index(part.track) * PAIR + row * ROW
        return round(part.start * scale, 2), y, round(width, 2), colours.get(part.label, GREY), text

    return {
        "origin": html.origin(line.video),
        "seconds": facts["seconds"],
        "failure": facts["failure"],
        "f1": f1,
        "athletes": len(tracks),
        "height": max(1, len(tracks)) * PAIR,
        "parts": [box(part, 0) for part in line.truths] + [box(part, 1) for part in line.found],
    }
