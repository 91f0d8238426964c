"""Judge timelines: average precision and F1 of segments at overlaps in time, and of point events within frames.

Average precision is that of the ActivityNet evaluation (Caba Heilbron et al. 2015; the code of its challenge): greedy
matching by confidence, and precision interpolated at every recall. Overlap in time is intersection over union (tIoU).

Legend: V videos, K classes, D answers and E labels of a class, L levels of closeness, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from posture.predict.answers import UNSURE, ActionSegment
from posture.runs.statistics import resampled_groups, told_interval

OVERLAPS = (0.3, 0.4, 0.5, 0.6, 0.7)
"""Least overlaps in time of a true positive."""
TOLERANCES = (1, 2, 5)
"""Largest distances of a point event, in frames."""
RESAMPLES = 2000
CELLS = 1 << 22
"""Maximum number of values in memory while resamples are judged."""


@dataclass(frozen=True)
class JudgedTimeline:
    """Labels and answers of one video. Answers match labels of the same `track` only; labels need no confidence."""

    video: str
    truths: Sequence[ActionSegment]
    found: Sequence[ActionSegment]
    fps: float = 1.0
    """Frames per second, for tolerances in frames."""


@dataclass(frozen=True)
class MatchedClass:
    """Answers of one class in all videos, by descending confidence."""

    videos: np.ndarray
    """(D,) int64: video of each answer."""
    hits: np.ndarray
    """(L, D) bool: true positives at each level."""
    truths: np.ndarray
    """(V,) int64: number of labels in each video."""


def segment_metrics(timelines: Sequence[JudgedTimeline], classes: Sequence[str]) -> dict[str, Any]:
    """Return the figures of segments, as plain Python values ready for JSON.

    * `tiou`: the least overlaps, 0.3 to 0.7. `map` and `f1` have a value for each of them. `f1` counts all answers and
      labels of all classes together, and `precision` and `recall` do so too.
    * `mean_map`, `mean_f1`: their means over the overlaps.
    * `per_class`: `class`, `count` (labels), `ap` and `f1` for each overlap. A class without labels has None for all of
      them and counts in no mean; answers of it lower `f1` and `precision`.
    * `intervals`: of `map` and `f1` for each overlap, and of `mean_map` and `mean_f1`; 95 % by a bootstrap over videos,
      as `posture.runs.statistics.told_interval` returns them.
    * `by_video`: `video`, `count`, `answers` and `f1` for each overlap, None without labels and answers.
    * `count`, `answers`, `videos`: numbers of labels, of answers, and of videos. "unsure" is no answer.
    """
    matched = [_match(timelines, name, np.array(OVERLAPS), _overlaps) for name in classes]
    return {"tiou": list(OVERLAPS)} | _figures(timelines, classes, matched)


def event_metrics(
    timelines: Sequence[JudgedTimeline], classes: Sequence[str], *, tolerances: Sequence[float] = TOLERANCES
) -> dict[str, Any]:
    """Return the figures of point events: the middles of labels and answers, matched within `tolerances` frames.

    As in Hong et al. (ECCV 2022, section 5), an answer takes the nearest label that is still free. `tolerance` has the
    frames, and the others are those of `segment_metrics` for each of them.
    """
    matched = [_match(timelines, name, -np.array(tolerances, np.float64), _nearness) for name in classes]
    return {"tolerance": list(tolerances)} | _figures(timelines, classes, matched)


def _figures(
    timelines: Sequence[JudgedTimeline], classes: Sequence[str], matched: Sequence[MatchedClass]
) -> dict[str, Any]:
    videos = [timeline.video for timeline in timelines]
    counts = resampled_groups(videos, resamples=RESAMPLES) if videos else np.ones((1, 0), np.float32)
    weights = counts[:, [list(dict.fromkeys(videos)).index(video) for video in videos]].astype(np.float64)
    precisions = [average_precisions(one, weights) for one in matched]  # K of (L, R)
    shares = [_shares([one], weights) for one in matched]  # K of (3, L, R)
    whole = _shares(matched, weights)
    present = [index for index, one in enumerate(matched) if one.truths.sum()]
    defined = np.array([precisions[index] for index in present])
    means = _mean_present(defined) if present else np.full(whole[0].shape, np.nan)
    drawn = {"map": means, "f1": whole[2]}
    groups = len(set(videos))
    return {
        **{
            name: _plain(values[:, 0]) for name, values in (drawn | {"precision": whole[0], "recall": whole[1]}).items()
        },
        **{f"mean_{name}": _plain(values.mean(axis=0)[:1])[0] for name, values in drawn.items()},
        "per_class": [
            {"class": name, "count": int(matched[index].truths.sum())}
            | (
                {"ap": _plain(precisions[index][:, 0]), "f1": _plain(shares[index][2][:, 0])}
                if index in present
                else {"ap": None, "f1": None}
            )
            for index, name in enumerate(classes)
        ],
        "intervals": {
            name: [told_interval(row, of=name, groups=groups) for row in values] for name, values in drawn.items()
        }
        | {
            f"mean_{name}": told_interval(values.mean(axis=0), of=f"mean_{name}", groups=groups)
            for name, values in drawn.items()
        },
        "by_video": _by_video(timelines, matched),
        "count": int(sum(one.truths.sum() for one in matched)),
        "answers": int(sum(len(one.videos) for one in matched)),
        "videos": groups,
    }


def _by_video(timelines: Sequence[JudgedTimeline], matched: Sequence[MatchedClass]) -> list[dict[str, Any]]:
    f1 = _shares(matched, np.eye(len(timelines)))[2] if matched else np.zeros((0, len(timelines)))
    return [
        {
            "video": timeline.video,
            "count": int(sum(one.truths[number] for one in matched)),
            "answers": int(sum((one.videos == number).sum() for one in matched)),
            "f1": _plain(f1[:, number]),
        }
        for number, timeline in enumerate(timelines)
    ]


def _match(timelines: Sequence[JudgedTimeline], name: str, levels: np.ndarray, closeness: Any) -> MatchedClass:
    """Match the answers of a class with its labels, video by video and track by track."""
    confidences, videos, hits = [], [], []
    truths = np.zeros(len(timelines), np.int64)
    for number, timeline in enumerate(timelines):
        found = [segment for segment in timeline.found if segment.label == name != UNSURE]
        labelled = [segment for segment in timeline.truths if segment.label == name]
        truths[number] = len(labelled)
        found.sort(key=lambda segment: -segment.confidence)
        right = np.zeros((len(levels), len(found)), bool)
        for track in {segment.track for segment in found}:
            rows = [row for row, segment in enumerate(found) if segment.track == track]
            of_track = [segment for segment in labelled if segment.track == track]
            right[:, rows] = _greedy(closeness([found[row] for row in rows], of_track, timeline.fps), levels)
        confidences += [segment.confidence for segment in found]
        videos += [number] * len(found)
        hits.append(right)
    order = np.argsort(-np.array(confidences, np.float64), kind="stable")
    joined = np.concatenate(hits, axis=1) if hits else np.zeros((len(levels), 0), bool)
    return MatchedClass(np.array(videos, np.int64)[order], joined[:, order], truths)


def _greedy(closeness: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Return which answers hit a label at each level, (L, D). `closeness` (D, E) has the answers by descending
    confidence; each takes the closest label that is still free, if that reaches the level.
    """
    hits = np.zeros((len(levels), len(closeness)), bool)
    for place, level in enumerate(levels):
        free = np.ones(closeness.shape[1], bool)
        for row, values in enumerate(closeness):
            near = np.where(free & (values >= level), values, -np.inf)
            if len(near) and near.max() > -np.inf:
                free[near.argmax()] = False
                hits[place, row] = True
    return hits


def _overlaps(found: list[ActionSegment], truths: list[ActionSegment], fps: float) -> np.ndarray:
    """Return the tIoU of answers and labels, (D, E)."""
    starts, ends = _times(found)
    true_starts, true_ends = _times(truths)
    common = np.minimum(ends[:, None], true_ends) - np.maximum(starts[:, None], true_starts)
    common = common.clip(min=0)
    union = (ends - starts)[:, None] + (true_ends - true_starts) - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def _nearness(found: list[ActionSegment], truths: list[ActionSegment], fps: float) -> np.ndarray:
    """Return minus the distance of the middles in frames, (D, E), rounded so that a whole number stays one."""
    (starts, ends), (true_starts, true_ends) = _times(found), _times(truths)
    distance = np.abs((starts + ends)[:, None] - (true_starts + true_ends)) / 2
    return -(distance * fps).round(6)


def _times(segments: list[ActionSegment]) -> tuple[np.ndarray, np.ndarray]:
    starts = np.array([segment.start for segment in segments], np.float64)
    return starts, np.array([segment.end for segment in segments], np.float64)


def average_precisions(matched: MatchedClass, weights: np.ndarray) -> np.ndarray:
    """Return the average precision at each level on each resample, (L, R); NaN without labels.

    `weights` (R, V) has how often each resample contains each video. It is the sum over true positives of the highest
    precision at their recall or above, over the number of labels.
    """
    truths = weights @ matched.truths
    found = np.zeros((len(matched.hits), len(weights)))
    rows = max(1, CELLS // max(1, len(matched.videos)))
    for start in range(0, len(weights), rows):
        part = slice(start, start + rows)
        of_answers = weights[part][:, matched.videos]  # (r, D)
        counted = of_answers.cumsum(axis=1)
        for level, hits in enumerate(matched.hits):
            own = of_answers[:, hits]
            right = own.cumsum(axis=1)
            precision = np.divide(right, counted[:, hits], out=np.zeros_like(right), where=counted[:, hits] > 0)
            highest = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
            found[level, part] = (own * highest).sum(axis=1)
    return np.divide(found, truths, out=np.full(found.shape, np.nan), where=truths > 0)


def _shares(matched: Sequence[MatchedClass], weights: np.ndarray) -> np.ndarray:
    """Return precision, recall and F1 of these classes together at each level, (3, L, R); NaN if undefined."""
    videos = weights.shape[1]
    hits = sum(np.array([np.bincount(one.videos[row], minlength=videos) for row in one.hits]) for one in matched)
    answers = sum(weights @ np.bincount(one.videos, minlength=videos) for one in matched)
    truths = sum(weights @ one.truths for one in matched)
    right = np.asarray(hits, np.float64) @ weights.T  # (L, R)
    return np.array([_over(right, answers), _over(right, truths), _over(2 * right, answers + truths)])


def _over(part: np.ndarray, whole: Any) -> np.ndarray:
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=np.asarray(whole) > 0)


def _mean_present(precisions: np.ndarray) -> np.ndarray:
    """Return the mean over the classes that a resample contains, (K, L, R) to (L, R); NaN if it contains none."""
    there = ~np.isnan(precisions)
    return _over(np.where(there, precisions, 0).sum(axis=0), there.sum(axis=0))


def _plain(values: np.ndarray) -> list[float | None]:
    return [float(value) if np.isfinite(value) else None for value in values]
