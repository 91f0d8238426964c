"""Judge a model on long videos with labels: its timelines, and its tracks if tracks are labelled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from posture.data.decode.cut import BACKGROUND
from posture.data.labels.names import first_few
from posture.data.labels.records import AnnotatedVideo, LabelledVideos, Tube
from posture.data.labels.tracked_videos import NoBoxes, read_tracked_footage
from posture.data.store.files import File, hash_file, is_remote
from posture.data.store.tables import Store
from posture.display.text import counted
from posture.errors import InputError
from posture.predict.answers import WHOLE_FRAME, ActionSegment, Prediction, Track
from posture.predict.timeline_metrics import JudgedTimeline, event_metrics, segment_metrics
from posture.predict.track_metrics import Look, TrackCounts, count_tracks, pair_tracks
from posture.runs.statistics import resampled_groups, told_interval

POINT_FRAMES = 2
"""Maximum length of a point event in frames."""
RESAMPLES = 1000


def read_labels(source: str) -> LabelledVideos:
    """Return labelled videos of any layout that `posture ingest` reads, with boxes of athletes if there are some."""
    try:
        return read_tracked_footage(source)
    except NoBoxes:
        return read_tracked_footage(source, drawn=False)


@dataclass
class Judging:
    """Results that are gathered while videos are judged, one after the other."""

    timelines: list[JudgedTimeline] = field(default_factory=list)
    tracks: dict[str, TrackCounts] = field(default_factory=dict)
    """By the address of the video."""
    videos: list[dict[str, Any]] = field(default_factory=list)
    refused: list[dict[str, str]] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    joined: list[str] = field(default_factory=list)
    """Videos in which answers and labels of all athletes are compared together."""


def judge_untrimmed(
    predict: Callable[[str], Prediction],
    footage: LabelledVideos,
    *,
    split: str = "test",
    progress: Callable[[int, int, str], None] | None = None,
) -> tuple[dict[str, Any], list[JudgedTimeline]]:
    """Let `predict` answer about every video of the footage. Return the figures, ready for JSON, and what was compared.

    If labels name splits, only videos with a label of `split` are judged. A video that cannot be read is left out and
    listed. Labels and answers are compared athlete by athlete if labels name athletes with boxes; otherwise all of a
    video together.

    * `segments`: `posture.predict.timeline_metrics.segment_metrics`; None if all classes are point events.
    * `events`: `event_metrics` of the classes whose labels all last at most 2 frames; None if there are none.
    * `tracks`: `posture.predict.track_metrics`, the number of `videos`, and `intervals` of `idf1` and `hota` by a
      bootstrap over videos; None if no tracks are labelled, or none were looked for. Only frames with a labelled box
      are compared.
    * `videos`: `video`, `seconds`, and `failure` of each that was judged. `refused`: `uri` and `reason` of the others.
    * `classes`: those of the model, then those of labels only, which it cannot find. `background` is no action: it is
      neither an answer nor a label.
    * `notes`: sentences on what was left out or joined. `count`: number of videos that were judged.

    Raises InputError if no video has a label of the split, or none can be read.
    """
    chosen, notes = _of_split(footage, split)
    judged = Judging(refused=[{"uri": row["uri"], "reason": row["reason"]} for row in footage.refused])
    for number, video in enumerate(chosen):
        if progress:
            progress(number, len(chosen), video.file.relative)
        try:
            prediction = predict(video.file.uri)
        except InputError as error:
            judged.refused.append({"uri": video.file.uri, "reason": str(error)})
            continue
        _judge_video(judged, video, prediction)
    if progress:
        progress(len(chosen), len(chosen), "")
    if not judged.videos:
        raise InputError(f"{footage.root}: no video could be read; the first: {judged.refused[0]['reason']}")
    notes = [*footage.notes, *notes, *_notes(judged, footage)]
    return _figures(judged) | {"notes": notes, "split": split}, judged.timelines


def trained_on(store: Store, files: Sequence[File], *, versions: dict[str, int] | None = None) -> list[str]:
    """Return the files that are in the train split of a store, by their content: figures on them say little.

    Files in buckets are compared by their size only, so that they are not fetched for this.
    """
    segments = store.read("segments", columns=["video", "split"], version=(versions or {}).get("segments")).to_pylist()
    trained = {row["video"] for row in segments if row["split"] == "train"}
    table = store.read("videos", columns=["video", "bytes"], version=(versions or {}).get("videos")).to_pylist()
    sizes = {row["bytes"] for row in table if row["video"] in trained}
    alike = [file for file in files if file.bytes in sizes]
    return [file.relative for file in alike if is_remote(file.uri) or hash_file(file.uri) in trained]


def _of_split(footage: LabelledVideos, split: str) -> tuple[list[AnnotatedVideo], list[str]]:
    """Return the videos to judge, and a sentence on the others. Raises InputError if there are none."""
    named = any(label.split for video in footage.videos for label in video.labels)
    chosen = [video for video in footage.videos if not named or any(label.split == split for label in video.labels)]
    if not chosen:
        raise InputError(f"{footage.root}: no label names the split {split}; name it in the labels, or give --split")
    left = len(footage.videos) - len(chosen)
    return chosen, [f"{counted(left, 'video')} left out, which no label puts into the split {split}"] if left else []


def _judge_video(judged: Judging, video: AnnotatedVideo, prediction: Prediction) -> None:
    tubes = {tube.name: number for number, tube in enumerate(video.tubes or (), start=1)}
    labels = [label.timed(prediction.fps) for label in video.labels]
    pairs: dict[int, int] = {}
    if video.tubes and prediction.tracks:
        looks = _looks(video.tubes, prediction)
        judged.tracks[video.file.uri] = count_tracks(*looks)
        pairs = pair_tracks(*looks)
    by_athlete = bool(prediction.tracks) and all(label.athlete in tubes for label in labels)
    if not by_athlete and (prediction.tracks or any(label.athlete for label in labels)):
        judged.joined.append(video.file.relative)
    truths = [
        ActionSegment(
            tubes[label.athlete] if by_athlete else WHOLE_FRAME,
            label.start,
            prediction.seconds if label.end is None else label.end,
            label.label,
            1.0,
        )
        for label in labels
        if label.label != BACKGROUND
    ]
    # a track without a labelled athlete gets a number of its own
    found = [
        replace(segment, track=pairs.get(segment.track, -1 - segment.track) if by_athlete else WHOLE_FRAME)
        for segment in prediction.segments
    ]
    judged.timelines.append(JudgedTimeline(video.file.uri, truths, found, prediction.fps))
    judged.videos.append({"video": video.file.uri, "seconds": prediction.seconds, "failure": prediction.failure})
    judged.classes += [name for name in prediction.classes if name not in (*judged.classes, BACKGROUND)]


def _looks(tubes: Sequence[Tube], prediction: Prediction) -> tuple[list[Look], list[Look]]:
    """Return labelled and found boxes of each frame with a labelled box."""
    frames = sorted({frame for tube in tubes for frame in tube.boxes})
    labelled = {
        number: {frame: _scaled(box, tube.size, prediction) for frame, box in tube.boxes.items()}
        for number, tube in enumerate(tubes, start=1)
    }
    found = {track.id: _by_frame(track) for track in prediction.tracks}
    return [_look(labelled, frame) for frame in frames], [_look(found, frame) for frame in frames]


def _scaled(box: Sequence[float], size: tuple[int, int] | None, prediction: Prediction) -> np.ndarray:
    """Return a box in pixels of the video as it is shown, if it was drawn on one of another `size` (height, width)."""
    height, width = size or (prediction.height, prediction.width)
    return np.asarray(box) * np.tile([prediction.width / width, prediction.height / height], 2)


def _by_frame(track: Track) -> dict[int, np.ndarray]:
    return dict(zip(track.frames.tolist(), track.boxes.astype(np.float64), strict=True))


def _look(boxes: dict[int, dict[int, np.ndarray]], frame: int) -> Look:
    there = [number for number, by_frame in boxes.items() if frame in by_frame]
    return np.array(there, np.int64), np.array([boxes[number][frame] for number in there]).reshape(-1, 4)


def _figures(judged: Judging) -> dict[str, Any]:
    labelled = [(truth, line.fps) for line in judged.timelines for truth in line.truths]
    long = {one.label for one, fps in labelled if (one.end - one.start) * fps > POINT_FRAMES + 1e-6}
    points = sorted({one.label for one, _ in labelled} - long)
    classes = [*judged.classes, *sorted({one.label for one, _ in labelled} - set(judged.classes))]
    spans = [name for name in classes if name not in points]
    return {
        "segments": segment_metrics(judged.timelines, spans) if long else None,
        "events": event_metrics(judged.timelines, points) if points else None,
        "tracks": _track_figures(judged.tracks) if judged.tracks else None,
        "videos": judged.videos,
        "refused": judged.refused,
        "classes": classes,
        "count": len(judged.videos),
    }


def _track_figures(tracks: dict[str, TrackCounts]) -> dict[str, Any]:
    counts = list(tracks.values())
    drawn = [_weighted(counts, weights) for weights in resampled_groups(list(tracks), resamples=RESAMPLES)]
    return drawn[0] | {
        "videos": len(counts),
        "intervals": {
            name: told_interval(np.array([row[name] for row in drawn]), of=name, groups=len(counts))
            for name in ("idf1", "hota")
        },
    }


def _weighted(counts: Sequence[TrackCounts], weights: np.ndarray) -> dict[str, float]:
    """Return the metrics of videos, each counted as often as its weight says."""
    sums: dict[str, Any] = {
        name: sum(vars(one)[name] * float(weight) for one, weight in zip(counts, weights, strict=True))
        for name in vars(counts[0])
    }
    return TrackCounts(**sums).metrics()


def _notes(judged: Judging, footage: LabelledVideos) -> list[str]:
    failed = [row["video"] for row in judged.videos if row["failure"]]
    known = set(judged.classes)
    unknown = sorted({truth.label for line in judged.timelines for truth in line.truths} - known)
    read = (
        (judged.refused, "{} could not be read and count nowhere: {}", [row["uri"] for row in judged.refused]),
        (failed, "{} could be read in part; labels behind the part count as missed: {}", failed),
        (footage.missing, "{} of labels missing: {}", footage.missing),
    )
    notes = [text.format(counted(len(found), "video"), first_few(names, 3)) for found, text, names in read if found]
    if judged.joined:
        notes.append(
            f"in {counted(len(judged.joined), 'video')} labels or answers name no athlete, so those of all athletes "
            f"are compared together: {first_few(judged.joined, 3)}"
        )
    if unknown:
        notes.append(f"labelled, but not a class of the run, so every label is missed: {first_few(unknown, 3)}")
    return notes
