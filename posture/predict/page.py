"""The page of an answer: the video beside a clickable timeline with a lane for each athlete, and a table."""

from __future__ import annotations

import base64
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

import numpy as np

from posture.data.decode.cut import BACKGROUND
from posture.data.store.files import join, write_bytes
from posture.display import colours, html
from posture.display.text import counted, listed
from posture.predict.answers import UNSURE, WHOLE_FRAME, ActionSegment, Lane, Prediction, Track
from posture.predict.keyframes import visits

PAGE = "timeline.html"
MAX_COLUMNS = 8192
"""Maximum values of a lane's curves. A lane is about 700 pixels wide, so that the page can zoom in 12 times."""
LIKELIEST = 3
"""Number of classes whose curves are drawn at each time; the others are too low to be seen."""
MOST_NAMED = 4
"""Number of actions that a sentence names."""


def write_page(
    prediction: Prediction, folder: str, *, video: str | None, span: tuple[float, float] | None = None
) -> str:
    """Write `timeline.html` into a folder or an `s3://` prefix, and return its path.

    `video` is the path of the MP4 relative to `folder`, None if there is none. `span` is the part of the video that was
    predicted, in seconds, None for all of it; the MP4 begins with it. Raises InputError if the page cannot be written.
    """
    path = join(folder, PAGE)
    first, last = span or (0.0, prediction.seconds)
    names = [*prediction.classes, UNSURE]
    looks = dict(zip(names, [*colours.class_colours(prediction.classes), colours.UNSURE], strict=True))
    page = html.render(
        "timeline.html",
        script=html.script("timeline.js"),
        name=PurePosixPath(prediction.video).name or prediction.video,
        video=None if video is None else "./" + quote(os.fsencode(video)),
        origin=html.origin(prediction.video),
        meta=_meta(prediction, span),
        summary=summary(prediction.segments) if prediction.segments else _tracked(prediction),
        failure=prediction.failure,
        notes=prediction.notes,
        answer=_answer(prediction, names, looks, (first, max(last, first + 0.001))),
        looks=looks,
        unsure=UNSURE,
        legend=_legend(prediction.segments, names),
        totals=_totals(prediction, names),
        rows=_rows(prediction, looks),
        facts=_facts(prediction),
        threshold=prediction.threshold,
    )
    write_bytes(path, page.encode("utf-8", "replace"))
    return path


def summary(segments: Sequence[ActionSegment]) -> str:
    """Return who did what for how long, in a sentence: `2 athletes: run 8.1 s and jump 6 s; unsure for 3.1 s.`"""
    if not segments:
        return "No action was found."
    totals = seconds_by_label(segments)
    unsure = totals.pop(UNSURE, 0.0)
    longest = sorted(totals, key=lambda name: -totals[name])
    parts = [f"{name} {html.duration(totals[name])}" for name in longest[:MOST_NAMED]]
    if len(longest) > MOST_NAMED:
        parts.append(counted(len(longest) - MOST_NAMED, "other action"))
    athletes = {segment.track for segment in segments} - {WHOLE_FRAME}
    who = counted(len(athletes), "athlete") if athletes else "The whole frame"
    what = listed(parts) or "no sure answer"
    return f"{who}: {what}" + (f"; unsure for {html.duration(unsure)}." if unsure else ".")


def _tracked(prediction: Prediction) -> str:
    """Return the summary of an answer without an action."""
    count = len(prediction.tracks)
    return f"{counted(count, 'athlete')} in sight; no action was named." if count else summary(())


def seconds_by_label(segments: Sequence[ActionSegment]) -> dict[str, float]:
    """Return the seconds of each label."""
    totals: dict[str, float] = defaultdict(float)
    for segment in segments:
        totals[segment.label] += segment.end - segment.start
    return dict(totals)


def lane_name(track: int) -> str:
    return "Whole frame" if track == WHOLE_FRAME else f"Athlete {track}"


def curves(lane: Lane, first: float, last: float, columns: int) -> np.ndarray:
    """Return the mean probabilities in `columns` equal parts of the time from `first` to `last`, in seconds.

    Where windows overlap, their probabilities are averaged. Shape (columns, K), NaN in parts without a window.
    """
    edges = np.linspace(first, last, columns + 1)
    times = np.concatenate([lane.starts, lane.ends])
    if not len(times):
        return np.full((columns, lane.probabilities.shape[1]), np.nan)
    order = np.argsort(times, kind="stable")
    times = times[order]
    weighted = np.column_stack([lane.probabilities.astype(np.float64), np.ones(len(lane.starts))])
    held = np.concatenate([weighted, -weighted])[order].cumsum(axis=0)  # sums over the windows that are open
    mean = held[:-1, :-1] / np.maximum(held[:-1, -1:], 1)
    covered = (held[:-1, -1] > 0.5).astype(np.float64)
    steps = np.diff(times)[:, None] * np.column_stack([mean * covered[:, None], covered])
    reached = np.concatenate([np.zeros((1, steps.shape[1])), steps.cumsum(axis=0)])
    sums = np.stack([np.diff(np.interp(edges, times, column)) for column in reached.T], axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(sums[:, -1:] > 1e-9, sums[:, :-1] / sums[:, -1:], np.nan)


def _answer(
    prediction: Prediction, names: Sequence[str], looks: Mapping[str, str], span: tuple[float, float]
) -> dict[str, Any]:
    """Return what the script draws."""
    number = {name: place for place, name in enumerate(names)}
    by_track = _by_track(prediction)
    lanes = {lane.track: lane for lane in prediction.lanes}
    seen = {track.id: _seen(track) for track in prediction.tracks}
    return {
        "first": span[0],
        "last": span[1],
        "fps": prediction.fps,
        "threshold": prediction.threshold,
        "classes": [{"name": name, "colour": looks[name], "ink": colours.ink(looks[name])} for name in names],
        "lanes": [
            {
                "name": lane_name(track),
                "seen": seen.get(track, []),
                "segments": [
                    [
                        round(segment.start, 3),
                        round(segment.end, 3),
                        number[segment.label],
                        round(segment.confidence, 4),
                        number.get(segment.guess or segment.label, -1),
                    ]
                    for segment in segments
                ],
                **(_packed(lanes[track], prediction.classes, *span) if track in lanes else {"columns": 0}),
            }
            for track, segments in by_track.items()
        ],
    }


def _seen(track: Track) -> list[list[float]]:
    """Return the stretches, in seconds, in which an athlete is in sight."""
    return [
        [round(float(track.times[visit[0]]), 3), round(float(track.times[visit[-1]]), 3)] for visit in visits(track)
    ]


def _packed(lane: Lane, classes: Sequence[str], first: float, last: float) -> dict[str, Any]:
    """Return the likeliest actions at each time and their probabilities, as base64 of 16 and of 8 bits."""
    columns = min(MAX_COLUMNS, max(400, 4 * len(lane.starts)))
    values = np.nan_to_num(curves(lane, first, last, columns)) * [name != BACKGROUND for name in classes]
    likeliest = np.argsort(-values, axis=1, kind="stable")[:, :LIKELIEST]
    heights = np.round(255 * np.take_along_axis(values, likeliest, axis=1).clip(0, 1))
    return {
        "columns": columns,
        "depth": likeliest.shape[1],
        "likeliest": base64.b64encode(likeliest.astype("<u2").tobytes()).decode(),
        "heights": base64.b64encode(heights.astype(np.uint8).tobytes()).decode(),
    }


def _by_track(prediction: Prediction) -> dict[int, list[ActionSegment]]:
    """Return the segments of each lane; athletes without a segment have a lane too."""
    found: dict[int, list[ActionSegment]] = {lane.track: [] for lane in prediction.lanes}
    found |= {track.id: [] for track in prediction.tracks}
    for segment in prediction.segments:
        found.setdefault(segment.track, []).append(segment)
    return found


def _rows(prediction: Prediction, looks: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the rows of the table, by time."""
    rows = [
        {
            "lane": lane,
            "number": number,
            "start": segment.start,
            "end": segment.end,
            "who": lane_name(track),
            "label": segment.label,
            "guess": segment.guess if segment.label == UNSURE and segment.guess != UNSURE else "",
            "colour": looks[segment.label],
            "confidence": segment.confidence,
        }
        for lane, (track, segments) in enumerate(_by_track(prediction).items())
        for number, segment in enumerate(segments)
    ]
    return sorted(rows, key=lambda row: (row["start"], row["lane"]))


def _legend(segments: Sequence[ActionSegment], names: Sequence[str]) -> list[tuple[str, int, float]]:
    """Return (name, place among the classes, seconds) of each label that is there, the longest first."""
    totals = seconds_by_label(segments)
    found = [(name, place, totals[name]) for place, name in enumerate(names) if name in totals]
    return sorted(found, key=lambda one: (one[0] == UNSURE, -one[2]))


def _totals(prediction: Prediction, names: Sequence[str]) -> dict[str, Any]:
    """Return the seconds of each label and lane, and their sums."""
    labels = [name for name, _, _ in _legend(prediction.segments, names)]
    rows = [
        (lane_name(track), [seconds_by_label(segments).get(name, 0.0) for name in labels])
        for track, segments in _by_track(prediction).items()
    ]
    return {"labels": labels, "rows": rows, "sums": np.sum([row for _, row in rows], axis=0)}


def _meta(prediction: Prediction, span: tuple[float, float] | None) -> list[str]:
    meta = [html.duration(prediction.seconds), f"{prediction.width} x {prediction.height}", f"{prediction.fps:.5g} fps"]
    return [*meta, f"predicted from {html.clock(span[0])} to {html.clock(span[1])}"] if span else meta


def _facts(prediction: Prediction) -> list[tuple[str, str]]:
    facts = [("Video", prediction.video)]
    facts += [(str(name).replace("_", " ").capitalize(), _said(value)) for name, value in prediction.model.items()]
    if prediction.threshold:
        facts.append(("Threshold", f"{prediction.threshold:.3g}: below it the label is {UNSURE}"))
    return [*facts, ("Classes", ", ".join(prediction.classes))]


def _said(value: Any) -> str:
    """Return a value of the model's description as text."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_said(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_said, value))
    return "none" if value is None or value == "" else f"{value:g}" if isinstance(value, float) else str(value)
