"""The page over many predicted videos: a row for each with a small timeline, totals, verdict and link."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

import numpy as np

from posture.data.store.files import join, write_bytes
from posture.display import colours, html
from posture.display.text import counted
from posture.predict.answers import UNSURE, ActionSegment, Prediction
from posture.predict.page import lane_name, seconds_by_label, summary

INDEX = "index.html"
STRIP_COLUMNS = 240
"""Resolution of the small timelines."""
MAX_LANES = 6
"""Maximum number of athletes in a small timeline; the row says how many more there are."""


@dataclass(frozen=True)
class PredictedVideo:
    """A row: what the page needs of an answer, or why there is none."""

    video: str
    """Path or address."""
    link: str = ""
    """Path of its page, relative to the index; "" if there is none."""
    classes: tuple[str, ...] = ()
    seconds: float = 0.0
    segments: tuple[ActionSegment, ...] = ()
    athletes: int = 0
    """Number of tracks."""
    verdict: str = ""
    """Why the file gave no answer, such as `not_video`; or `truncated` if a part of it did."""
    reason: str = ""
    """The same in a sentence."""


def predicted_video(prediction: Prediction, link: str) -> PredictedVideo:
    """Return the row of an answer, without its boxes and curves."""
    return PredictedVideo(
        video=prediction.video,
        link=link,
        classes=prediction.classes,
        seconds=prediction.seconds,
        segments=prediction.segments,
        athletes=len(prediction.tracks),
        verdict="truncated" if prediction.failure else "",
        reason=prediction.failure,
    )


def write_index(rows: Iterable[PredictedVideo], folder: str) -> str:
    """Write `index.html` into a folder or an `s3://` prefix, and return its path.

    Raises InputError if it cannot be written.
    """
    rows = list(rows)
    path = join(folder, INDEX)
    answered = [row for row in rows if row.link]
    # one model answers all of them, so their classes are the same; a mixed folder still gets one colour for each name
    classes = tuple(dict.fromkeys(name for row in answered for name in row.classes))
    looks = dict(zip(classes, colours.class_colours(classes), strict=True)) | {UNSURE: colours.UNSURE}
    totals = seconds_by_label([segment for row in answered for segment in row.segments])
    page = html.render(
        "predictions.html",
        folder=folder,
        sentence=_sentence(rows, answered),
        rows=[_shown(row, looks) for row in rows],
        legend=[
            (name, looks[name], totals[name])
            for name in sorted(totals, key=lambda name: (name == UNSURE, -totals[name]))
        ],
        unsure=UNSURE,
        columns=STRIP_COLUMNS,
    )
    write_bytes(path, page.encode("utf-8", "replace"))
    return path


def _sentence(rows: Sequence[PredictedVideo], answered: Sequence[PredictedVideo]) -> str:
    told = f"{counted(len(answered), 'video')} of {html.duration(sum(row.seconds for row in answered))}"
    partly, without = sum(bool(row.verdict) for row in answered), len(rows) - len(answered)
    told += f"; {counted(partly, 'video')} read in part" if partly else ""
    return f"{told}; {counted(without, 'file')} without an answer." if without else f"{told}."


def _shown(row: PredictedVideo, looks: dict[str, str]) -> dict[str, Any]:
    tracks = list(dict.fromkeys(segment.track for segment in row.segments))
    return {
        "name": PurePosixPath(row.video).name or row.video,
        "video": row.video,
        "href": "./" + quote(os.fsencode(row.link)) if row.link else "",
        "seconds": row.seconds,
        "summary": summary(row.segments) if row.link else "",
        "verdict": row.verdict,
        "reason": row.reason,
        "athletes": row.athletes,
        "more": max(0, len(tracks) - MAX_LANES),
        "strips": [
            (lane_name(track), _strip([one for one in row.segments if one.track == track], row.seconds, looks))
            for track in tracks[:MAX_LANES]
        ],
    }


def _strip(segments: Sequence[ActionSegment], seconds: float, looks: dict[str, str]) -> list[tuple[int, int, str, str]]:
    """Return (first column, columns, colour, label) of the stretches of one athlete, of STRIP_COLUMNS in all.

    A column shows the segment that takes most of it.
    """
    edges = np.linspace(0, max(seconds, 1e-9), STRIP_COLUMNS + 1)
    taken = np.zeros(STRIP_COLUMNS)
    held = np.full(STRIP_COLUMNS, -1)
    for number, segment in enumerate(segments):
        share = np.minimum(edges[1:], segment.end) - np.maximum(edges[:-1], segment.start)
        held[share > np.maximum(taken, 0)] = number
        taken = np.maximum(taken, share)
    labels = [segments[number].label if number >= 0 else "" for number in held]
    cuts = [0, *(at for at in range(1, STRIP_COLUMNS) if labels[at] != labels[at - 1]), STRIP_COLUMNS]
    return [(first, end - first, looks[labels[first]], labels[first]) for first, end in pairwise(cuts) if labels[first]]
