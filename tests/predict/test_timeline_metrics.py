"""Figures of timelines against independent formulas: the ActivityNet evaluation and its steps, written out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from posture.predict.answers import UNSURE, ActionSegment
from posture.predict.timeline_metrics import OVERLAPS, JudgedTimeline, event_metrics, segment_metrics

CLASSES = ("run", "jump", "throw")


def segment(start: float, end: float, label: str = "run", confidence: float = 1.0, track: int = 0) -> ActionSegment:
    return ActionSegment(track, start, end, label, confidence, label)


def drawn(seed: int, videos: int = 8, tracks: int = 1) -> list[JudgedTimeline]:
    """Labels, and answers near some of them, others elsewhere, others of the wrong class."""
    generator = np.random.default_rng(seed)
    timelines = []
    for number in range(videos):
        truths, found = [], []
        for track in range(tracks):
            for start in np.cumsum(generator.uniform(1, 6, generator.integers(0, 9))):
                label = str(generator.choice(CLASSES))
                truths.append(segment(start, start + generator.uniform(0.5, 3), label, track=track))
                for _ in range(generator.integers(0, 3)):
                    shift, stretch = generator.normal(0, 0.3), generator.uniform(0.7, 1.4)
                    guess = label if generator.random() < 0.8 else str(generator.choice(CLASSES))
                    length = (truths[-1].end - start) * stretch
                    place = start + shift
                    found.append(segment(place, place + length, guess, float(generator.random()), track))
        timelines.append(JudgedTimeline(f"{number}.mp4", truths, found, fps=25.0))
    return timelines


def activitynet_ap(truths: list[tuple], found: list[tuple], least: float) -> float:
    """Average precision of one class as the ActivityNet challenge computes it, step by step. Rows are (video, start,
    end), answers with a confidence behind.
    """
    taken, hits = set(), []
    for video, start, end, _ in sorted(found, key=lambda row: -row[3]):
        rated = []
        for place, (where, true_start, true_end) in enumerate(truths):
            if where == video:
                inside = max(0.0, min(end, true_end) - max(start, true_start))
                rated.append((inside / ((end - start) + (true_end - true_start) - inside), place))
        hit = False
        for overlap, place in sorted(rated, reverse=True):
            if overlap < least:
                break
            if place not in taken:
                taken.add(place)
                hit = True
                break
        hits.append(hit)
    right = np.cumsum(hits)
    precision = [0.0, *(right / np.arange(1, len(hits) + 1)), 0.0]
    recall = [0.0, *(right / len(truths)), 1.0]
    for place in range(len(precision) - 2, -1, -1):
        precision[place] = max(precision[place], precision[place + 1])
    return sum(
        (recall[place] - recall[place - 1]) * precision[place]
        for place in range(1, len(recall))
        if recall[place] != recall[place - 1]
    )


@pytest.mark.parametrize("tracks", [1, 3])
@pytest.mark.parametrize("seed", range(4))
def test_average_precision_is_that_of_activitynet(seed: int, tracks: int) -> None:
    timelines = drawn(seed, tracks=tracks)
    found = segment_metrics(timelines, CLASSES)
    for row in found["per_class"]:
        name = row["class"]
        truths = [
            ((line.video, one.track), one.start, one.end)
            for line in timelines
            for one in line.truths
            if one.label == name
        ]
        answers = [
            ((line.video, one.track), one.start, one.end, one.confidence)
            for line in timelines
            for one in line.found
            if one.label == name
        ]
        expected = [activitynet_ap(truths, answers, least) for least in OVERLAPS]
        assert row["ap"] == pytest.approx(expected, abs=1e-6) and row["count"] == len(truths)
    per_class = np.array([row["ap"] for row in found["per_class"]])
    assert found["map"] == pytest.approx(per_class.mean(axis=0), abs=1e-9)
    assert found["mean_map"] == pytest.approx(per_class.mean(), abs=1e-9) and 0.2 < found["mean_map"] < 0.95
    assert found["map"] == sorted(found["map"], reverse=True)


def test_f1_counts_hits_false_alarms_and_misses() -> None:
    truths = [segment(0, 10), segment(20, 30), segment(40, 50, "jump")]
    found = [
        segment(0, 9, confidence=0.9),  # tIoU 0.9
        segment(20, 26, confidence=0.8),  # 0.6
        segment(21, 30, confidence=0.7),  # 0.9, and takes it at 0.7 as the former does not reach it
        segment(40, 50, "throw", confidence=0.9),
        segment(60, 70, "jump", confidence=0.9),
        segment(80, 90, UNSURE, confidence=0.2),
    ]
    metrics = segment_metrics([JudgedTimeline("a.mp4", truths, found)], CLASSES)
    assert metrics["precision"] == pytest.approx([2 / 5] * 5) and metrics["recall"] == pytest.approx([2 / 3] * 5)
    assert metrics["f1"] == pytest.approx([2 * 2 / (5 + 3)] * 5)
    run, jump, throw = metrics["per_class"]
    assert run["f1"] == pytest.approx([2 * 2 / (3 + 2)] * 5) and jump["f1"] == [0.0] * 5
    assert throw == {"class": "throw", "count": 0, "ap": None, "f1": None}
    assert (metrics["count"], metrics["answers"], metrics["videos"]) == (3, 5, 1)
    assert run["ap"] == pytest.approx([1.0, 1.0, 1.0, 1.0, 0.5 + 0.5 * 2 / 3])
    assert metrics["map"][0] == pytest.approx(0.5)  # jump is never right, throw has no labels


def test_perfect_answers_and_no_answers() -> None:
    timelines = drawn(0)
    perfect = segment_metrics([replace(line, found=line.truths) for line in timelines], CLASSES)
    assert perfect["map"] == [1.0] * 5 and perfect["f1"] == [1.0] * 5
    silent = segment_metrics([replace(line, found=[]) for line in timelines], CLASSES)
    assert silent["map"] == [0.0] * 5 and silent["f1"] == [0.0] * 5 and silent["precision"] == [None] * 5
    nothing = segment_metrics([], CLASSES)
    assert nothing["map"] == [None] * 5 and nothing["mean_f1"] is None and nothing["videos"] == 0


def test_answers_match_the_labels_of_their_own_athlete_only() -> None:
    truths = [segment(0, 10, track=1), segment(0, 10, "jump", track=2)]
    swapped = [segment(0, 10, track=2), segment(0, 10, "jump", track=1)]
    assert segment_metrics([JudgedTimeline("a.mp4", truths, truths)], CLASSES)["mean_f1"] == 1.0
    assert segment_metrics([JudgedTimeline("a.mp4", truths, swapped)], CLASSES)["mean_f1"] == 0.0


def spotting_ap(truths: dict[str, list[float]], found: list[tuple[str, float, float]], within: float) -> float:
    """Average precision of point events (Hong et al. 2022), step by step; times in frames."""
    taken, precisions = set(), []
    for rank, (video, time, _) in enumerate(sorted(found, key=lambda row: -row[2]), 1):
        free = [(abs(time - true), true) for true in truths.get(video, []) if (video, true) not in taken]
        if free and min(free)[0] <= within:
            taken.add((video, min(free)[1]))
            precisions.append(len(taken) / rank)
    highest = [max(precisions[place:]) for place in range(len(precisions))]
    return sum(highest) / sum(map(len, truths.values()))


@pytest.mark.parametrize("seed", range(3))
def test_point_events_within_frames(seed: int) -> None:
    generator = np.random.default_rng(seed)
    timelines, truths, found = [], {}, []
    for number, fps in enumerate((25.0, 30.0, 50.0, 60.0)):
        frames = np.sort(generator.choice(np.arange(0, 600, 4), 30, replace=False)).astype(float)
        guesses = frames + generator.integers(-7, 8, 30)
        confidence = generator.random(30)
        truths[f"{number}"] = frames.tolist()
        found += [(f"{number}", frame, value) for frame, value in zip(guesses, confidence, strict=True)]
        labelled = [segment((frame - 0.5) / fps, (frame + 0.5) / fps) for frame in frames]
        answers = [
            segment((frame - 20) / fps, (frame + 20) / fps, confidence=value)
            for frame, value in zip(guesses, confidence, strict=True)
        ]
        timelines.append(JudgedTimeline(f"{number}", labelled, answers, fps))
    metrics = event_metrics(timelines, ["run"])
    expected = [spotting_ap(truths, found, within) for within in metrics["tolerance"]]
    assert metrics["tolerance"] == [1, 2, 5] and metrics["map"] == pytest.approx(expected, abs=1e-6)
    assert 0.05 < metrics["map"][0] < metrics["map"][2] < 1


def test_intervals_come_from_whole_videos() -> None:
    """A video drawn twice counts as two; the intervals hold the figure, and few videos have none."""
    timelines = drawn(1, videos=12)
    metrics = segment_metrics(timelines, CLASSES)
    for name in ("map", "f1"):
        for value, told in zip(metrics[name], metrics["intervals"][name], strict=True):
            assert told["low"] < value < told["high"] and told["groups"] == 12
        told = metrics["intervals"][f"mean_{name}"]
        assert told["low"] < metrics[f"mean_{name}"] < told["high"]
    doubled = [replace(line, video=f"{line.video} {copy}") for line in timelines for copy in range(2)]
    again = segment_metrics(doubled, CLASSES)
    assert again["f1"] == pytest.approx(metrics["f1"]) and again["map"] == pytest.approx(metrics["map"], abs=0.02)
    width, narrower = (
        found["intervals"]["mean_f1"]["high"] - found["intervals"]["mean_f1"]["low"] for found in (metrics, again)
    )
    assert narrower < 0.9 * width
    assert segment_metrics(timelines[:3], CLASSES)["intervals"]["mean_map"]["low"] is None
