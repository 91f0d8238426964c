"""Judged timelines of long videos."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from posture.predict.answers import UNSURE, ActionSegment
from posture.predict.timeline_metrics import JudgedTimeline, event_metrics, segment_metrics

SECONDS = 60.0


def timeline(
    video: str,
    *,
    seed: int = 0,
    classes: Sequence[str] = ("run", "jump", "throw"),
    tracks: int = 1,
    truths: list[ActionSegment] | None = None,
    found: list[ActionSegment] | None = None,
) -> JudgedTimeline:
    """Labels one after the other and answers near them, some of which are wrong or unsure; 25 frames per second."""
    if truths is not None:
        return JudgedTimeline(video, truths, found or [], 25.0)
    generator = np.random.default_rng(seed)
    labelled, answered = [], []
    for track in range(1, tracks + 1) if tracks > 1 else (0,):
        edges = np.linspace(0, SECONDS, 11)
        for start, end in pairwise(edges):
            label = str(generator.choice(classes))
            guess = label if generator.random() < 0.7 else str(generator.choice([*classes, UNSURE]))
            labelled.append(ActionSegment(track, start, end - 1, label, 1.0))
            shift = generator.normal(0, 0.8)
            answered.append(ActionSegment(track, max(0.0, start + shift), end - 1, guess, generator.uniform(0.4, 1)))
    return JudgedTimeline(video, labelled, answered, 25.0)


def judged(timelines: list[JudgedTimeline], *, tracks: bool = False) -> tuple[dict[str, Any], list[JudgedTimeline]]:
    """Return what `posture.predict.untrimmed.judge_untrimmed` returns; `tracks`: with figures of tracks."""
    labels = [truth for line in timelines for truth in line.truths]
    classes = sorted({truth.label for truth in labels})
    points = all(truth.end - truth.start < 0.1 for truth in labels)
    told = {"of": "idf1", "low": 0.6, "high": 0.9, "groups": len(timelines), "resamples": 1000}
    return {
        "segments": None if points else segment_metrics(timelines, classes),
        "events": event_metrics(timelines, classes) if points else None,
        "tracks": {"idf1": 0.812, "hota": 0.734, "videos": 6, "intervals": {"idf1": told, "hota": told}}
        if tracks
        else None,
        "videos": [{"video": line.video, "seconds": SECONDS, "failure": ""} for line in timelines],
        "refused": [],
        "classes": classes,
        "count": len(timelines),
        "notes": [],
        "split": "test",
    }, timelines
