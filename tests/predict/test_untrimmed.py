"""Long videos with labels, judged by answers that are known beforehand."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from posture.data.labels.records import AnnotatedVideo, Label, LabelledVideos, Tube
from posture.data.store.files import File
from posture.errors import InputError
from posture.predict.answers import UNSURE, ActionSegment, Prediction
from posture.predict.untrimmed import judge_untrimmed as judge
from tests.support.answers import make_track

FPS = 25.0


def judge_untrimmed(*given: Any, **options: Any) -> dict[str, Any]:
    return judge(*given, **options)[0]


CLASSES = ("run", "jump")
LABELS = (Label(1, 4, "run", "g"), Label(5, 8, "jump", "g"), Label(9, None, "run", "g"))


def footage(
    videos: dict[str, tuple[Label, ...]], tubes: tuple[Tube, ...] | None = None, **more: list
) -> LabelledVideos:
    annotated = [AnnotatedVideo(File(f"/films/{name}", name, 1, 0.0), found, tubes) for name, found in videos.items()]
    return LabelledVideos(root="/films", layout="segments", videos=annotated, **more)


def answer(video: str, *parts: tuple[float, float, str], tracks: tuple = (), of: tuple[int, ...] = ()) -> Prediction:
    found = tuple(
        ActionSegment(of[number] if of else 0, start, end, label, 0.9, label)
        for number, (start, end, label) in enumerate(parts)
    )
    return Prediction(video, CLASSES, 640, 480, FPS, 12.0, tracks, (), found)


RIGHT = ((1.0, 4.0, "run"), (5.0, 8.0, "jump"), (9.0, 12.0, "run"))


def answers(*parts: tuple[float, float, str]) -> Callable[[str], Prediction]:
    return lambda video: answer(video, *parts)


def test_right_answers_are_right_and_a_label_without_end_lasts_to_the_end() -> None:
    asked: list[tuple] = []
    metrics = judge_untrimmed(
        answers(*RIGHT), footage({"a.mp4": LABELS, "b.mp4": LABELS}), progress=lambda *told: asked.append(told)
    )
    assert metrics["segments"]["map"] == [1.0] * 5 and metrics["segments"]["f1"] == [1.0] * 5
    assert metrics["count"] == 2 and metrics["segments"]["count"] == 6 and metrics["classes"] == ["run", "jump"]
    assert metrics["tracks"] is None and metrics["events"] is None and metrics["notes"] == metrics["refused"] == []
    assert asked == [(0, 2, "a.mp4"), (1, 2, "b.mp4"), (2, 2, "")]
    assert metrics["videos"][0] == {"video": "/films/a.mp4", "seconds": 12.0, "failure": ""}


def test_background_is_neither_an_answer_nor_a_label() -> None:
    labels = (*LABELS, Label(4, 5, "background", "g"))
    metrics = judge_untrimmed(
        lambda video: replace(answer(video, *RIGHT), classes=(*CLASSES, "background")), footage({"a.mp4": labels})
    )
    assert metrics["classes"] == ["run", "jump"] and metrics["segments"]["count"] == 3
    assert metrics["segments"]["f1"] == [1.0] * 5 and metrics["notes"] == []


def test_wrong_unsure_and_unknown_ones_count_as_missed() -> None:
    labels = (*LABELS[:2], Label(9, 12, "dive", "g"))
    found = ((1.0, 4.0, "run"), (5.0, 8.0, UNSURE), (9.0, 12.0, "jump"))
    metrics = judge_untrimmed(answers(*found), footage({"a.mp4": labels}))
    assert metrics["segments"]["f1"] == pytest.approx([2 / 5] * 5)  # one right, two answers, three labels
    assert metrics["classes"] == ["run", "jump", "dive"]
    assert metrics["segments"]["map"] == pytest.approx([1 / 3] * 5)
    assert any("not a class of the run" in note and "dive" in note for note in metrics["notes"])


def test_a_video_that_cannot_be_read_is_listed_and_stops_nothing() -> None:
    def predict(video: str) -> Prediction:
        if "bad" in video:
            raise InputError(f"{video}: no frame can be read")
        return replace(answer(video, RIGHT[0]), failure="the file ends early" if "cut" in video else "")

    metrics = judge_untrimmed(
        predict,
        footage(
            {"a.mp4": LABELS, "bad.mp4": LABELS, "cut.mp4": LABELS},
            refused=[{"uri": "/films/x.mp4", "verdict": "bad_label", "reason": "two labels"}],
            missing=["labels.csv, line 3: gone.mp4"],
        ),
    )
    assert metrics["count"] == 2 and metrics["segments"]["count"] == 6
    assert [row["uri"] for row in metrics["refused"]] == ["/films/x.mp4", "/films/bad.mp4"]
    assert metrics["videos"][1]["failure"] == "the file ends early"
    for said in ("2 videos could not be read", "1 video could be read in part", "gone.mp4"):
        assert any(said in note for note in metrics["notes"]), said
    with pytest.raises(InputError, match=r"no video could be read; the first: .*bad"):
        judge_untrimmed(predict, footage({"bad.mp4": LABELS}))


def test_only_videos_of_the_split_are_judged_and_that_is_said() -> None:
    train, test = (tuple(replace(label, split=split) for label in LABELS) for split in ("train", "test"))
    metrics = judge_untrimmed(answers(*RIGHT), footage({"a.mp4": train, "b.mp4": test}))
    assert [row["video"] for row in metrics["videos"]] == ["/films/b.mp4"] and metrics["split"] == "test"
    assert metrics["notes"] == ["1 video left out, which no label puts into the split test"]
    with pytest.raises(InputError, match="no label names the split val"):
        judge_untrimmed(answers(*RIGHT), footage({"a.mp4": train}), split="val")


def test_classes_of_points_are_judged_within_frames() -> None:
    contact = tuple(Label(at / FPS, (at + 1) / FPS, "jump", "g") for at in (50, 100, 150))
    found = [
        ((at - 9.5 + shift) / FPS, (at + 10.5 + shift) / FPS, "jump") for at, shift in ((50, 0), (100, 2), (150, 5))
    ]
    metrics = judge_untrimmed(
        answers(*found, (5.0, 8.0, "run")), footage({"a.mp4": (*contact, Label(5, 8, "run", "g"))})
    )
    assert metrics["events"]["tolerance"] == [1, 2, 5]
    assert metrics["events"]["map"] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert metrics["segments"]["per_class"] == [{"class": "run", "count": 1, "ap": [1.0] * 5, "f1": [1.0] * 5}]
    only = judge_untrimmed(answers(*found), footage({"a.mp4": contact}))
    assert only["segments"] is None and only["events"]["count"] == 3


def tubes(count: int, *, size: tuple[int, int] | None = None, scale: float = 1.0) -> tuple[Tube, ...]:
    return tuple(
        Tube(f"athlete {number}", "", dict(enumerate((make_track(number, 200).boxes * scale).tolist())), size)
        for number in range(1, count + 1)
    )


def test_athletes_are_compared_each_with_their_own_track() -> None:
    labels = (Label(1, 4, "run", "g", athlete="athlete 1"), Label(1, 4, "jump", "g", athlete="athlete 2"))
    tracks = (replace(make_track(2, 200), id=5), replace(make_track(1, 200), id=9))
    stranger = replace(make_track(3, 200), id=7, boxes=make_track(3, 200).boxes + 300)

    def predict(video: str) -> Prediction:
        return answer(video, (1, 4, "jump"), (1, 4, "run"), (1, 4, "run"), tracks=(*tracks, stranger), of=(5, 9, 7))

    metrics = judge_untrimmed(predict, footage({"a.mp4": labels}, tubes(2)))
    assert metrics["segments"]["recall"] == [1.0] * 5 and metrics["segments"]["precision"] == pytest.approx([2 / 3] * 5)
    assert metrics["tracks"]["idr"] == 1.0 and metrics["tracks"]["idp"] == pytest.approx(2 / 3)
    assert metrics["tracks"]["videos"] == 1 and metrics["tracks"]["intervals"]["idf1"]["low"] is None
    assert metrics["notes"] == []

    def swapped(video: str) -> Prediction:
        return answer(video, (1, 4, "run"), (1, 4, "jump"), tracks=tracks, of=(5, 9))

    wrong = judge_untrimmed(swapped, footage({"a.mp4": labels}, tubes(2)))
    assert wrong["segments"]["mean_f1"] == 0.0 and wrong["tracks"]["idf1"] == 1.0
    assert json.loads(json.dumps(wrong["tracks"])) == wrong["tracks"], "metrics.json holds it"


def test_boxes_drawn_on_a_smaller_copy_are_scaled() -> None:
    labels = (Label(1, 4, "run", "g", athlete="athlete 1"),)

    def predict(video: str) -> Prediction:
        return answer(video, (1, 4, "run"), tracks=(make_track(1, 200),), of=(1,))

    metrics = judge_untrimmed(predict, footage({"a.mp4": labels}, tubes(1, size=(240, 320), scale=0.5)))
    assert metrics["tracks"]["hota"] == pytest.approx(1.0) and metrics["segments"]["mean_f1"] == 1.0


def test_without_named_athletes_all_of_a_video_are_compared_together_and_that_is_said() -> None:
    def predict(video: str) -> Prediction:
        return answer(video, *RIGHT, tracks=(make_track(1, 200),), of=(1, 1, 1))

    metrics = judge_untrimmed(predict, footage({"a.mp4": LABELS}, tubes(1)))
    assert metrics["segments"]["mean_f1"] == 1.0 and metrics["tracks"]["idf1"] == 1.0
    assert any("name no athlete" in note and "a.mp4" in note for note in metrics["notes"])
    whole = judge_untrimmed(
        answers(*RIGHT), footage({"a.mp4": tuple(replace(one, athlete="athlete 1") for one in LABELS)}, tubes(1))
    )
    assert whole["segments"]["mean_f1"] == 1.0 and whole["tracks"] is None and len(whole["notes"]) == 1


def test_tracks_have_an_interval_by_video() -> None:
    labels = (Label(1, 4, "run", "g", athlete="athlete 1"),)

    def predict(video: str) -> Prediction:
        seen = np.arange(200) % 10 < int(video[-5])  # a share of the frames that differs from video to video
        track = make_track(1, 200)
        lost = replace(track, frames=track.frames[seen], times=track.times[seen], boxes=track.boxes[seen])
        return answer(video, (1, 4, "run"), tracks=(lost,), of=(1,))

    videos = {f"{number}.mp4": labels for number in range(3, 10)}
    found = judge_untrimmed(predict, footage(videos, tubes(1)))["tracks"]
    told = found["intervals"]["idf1"]
    assert found["idp"] == 1.0 and found["idr"] == pytest.approx(np.mean(range(3, 10)) / 10)
    assert told["low"] < found["idf1"] < told["high"] and told["groups"] == 7
