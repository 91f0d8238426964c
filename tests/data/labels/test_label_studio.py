"""Label Studio's exports as it writes them, and those that nobody should trust."""

import json

import pytest

from posture.data.labels.layouts import choose_layout
from posture.data.labels.tracked_videos import read_tracked_footage
from posture.data.labels.videos import read_footage
from posture.errors import InputError


def rectangle(*keys, label="athlete 3", more=None):
    names = ("frame", "x", "y", "width", "height", "enabled", "rotation")
    sequence = [dict(zip(names, (*key, 0)[:7], strict=True)) | {"time": key[0] / 25} for key in keys]
    value = {"framesCount": 100, "duration": 4.0, "sequence": sequence, "labels": [label]} | (more or {})
    return {"id": "aB3xY", "type": "videorectangle", "from_name": "boxes", "to_name": "video", "value": value}


def timeline(start, end, label, row="athlete_3"):
    value = {"ranges": [{"start": start, "end": end}], "timelinelabels": [label]}
    return {"id": f"t{start}", "type": "timelinelabels", "from_name": row, "to_name": "video", "value": value}


def task(*results, video="/data/upload/7/1f2e3d4c-a.mp4", **more):
    data = {"video": video, "width": 200, "height": 100}
    return {"id": 1, "data": data, "annotations": [{"id": 5, "was_cancelled": False, "result": list(results)}]} | more


def read(root, *tasks, tracked=True, **how):
    root("a.mp4"), root("export.json", json.dumps(list(tasks)))
    return (read_tracked_footage if tracked else read_footage)(root.path, **how)


def labels(found):
    return [(label.athlete, label.label, label.frames) for video in found.videos for label in video.labels]


def test_ranges_hold_both_ends_and_boxes_are_kept_up_to_a_keyframe_that_is_not_enabled(root):
    box = rectangle((1, 10, 20, 5, 10, True), (11, 20, 20, 5, 10, False), (21, 0, 0, 50, 50, True))
    found = read(root, task(box, timeline(3, 5, "jump"), timeline(6, 6, "run"), timeline(1, 9, "run", row="actions")))
    assert found.layout == "label-studio" and found.refused == []
    assert labels(found) == [("a/3", "jump", (2, 5)), ("a/3", "run", (5, 6)), ("", "run", (0, 9))]
    (tube,) = found.videos[0].tubes
    assert tube.name == "a/3" and tube.size == (100, 200)
    assert sorted(tube.boxes) == [*range(11), *range(20, 100)], "the last one is kept to the end"
    assert tube.boxes[0] == (20, 20, 30, 30) and tube.boxes[5] == (30, 20, 40, 30) and tube.boxes[99] == (0, 0, 100, 50)


def test_a_turned_box_is_the_upright_one_around_it(root):
    found = read(root, task(rectangle((1, 50, 50, 10, 10, False, 90)), timeline(1, 2, "run")))
    assert found.videos[0].tubes[0].boxes[0] == pytest.approx((90, 50, 100, 70))


def test_the_last_annotation_counts_and_a_cancelled_one_does_not(root):
    results = [[timeline(1, 2, "run")], [timeline(1, 2, "jump")], [timeline(1, 2, "throw")]]
    annotations = [{"result": result, "was_cancelled": number == 2} for number, result in enumerate(results)]
    found = read(root, task(annotations=annotations), tracked=False)
    assert labels(found) == [("a/3", "jump", (0, 2))] and any("2 annotations" in note for note in found.notes)


def test_predictions_are_read_only_if_nobody_has_annotated_and_that_is_said(root):
    guess = [{"model_version": "v1", "result": [timeline(1, 2, "run")]}]
    found = read(root, task(annotations=[], predictions=guess), tracked=False)
    assert labels(found) == [("a/3", "run", (0, 2))] and any("without an annotation" in note for note in found.notes)
    found = read(root, task(timeline(1, 2, "jump"), predictions=guess), tracked=False)
    assert labels(found) == [("a/3", "jump", (0, 2))]


def test_labels_of_rectangles_are_actions_if_there_is_no_timeline(root):
    found = read(root, task(rectangle((5, 0, 0, 5, 5, True), (9, 0, 0, 5, 5, False), label="kick")))
    assert labels(found) == [("a/aB3xY", "kick", (4, 9))]


@pytest.mark.parametrize(
    "video",
    [
        "/data/local-files/?d=match%201/a.mp4",
        "s3://lab/raw/a.mp4",
        "https://host/a.mp4?token=1",
        "a.mp4",
        "C:\\v\\a.mp4",
    ],
)
def test_the_video_is_found_however_it_is_addressed(root, video):
    assert labels(read(root, task(timeline(1, 2, "run"), video=video), tracked=False))


def test_a_video_that_is_missing_is_said_and_other_regions_are(root):
    text = {"type": "choices", "value": {"choices": ["good"]}}
    other = {**task(timeline(1, 2, "run"), video="b.mp4"), "id": 2}
    found = read(root, task(timeline(1, 2, "run"), text), other, tracked=False)
    assert found.missing == ["export.json: task 2: b.mp4"] and any("type choices" in note for note in found.notes)


def test_the_file_itself_may_be_given_and_other_layouts_must_be_chosen(root):
    read(root, task(timeline(1, 2, "run")), tracked=False)
    assert labels(read_footage(f"{root.path}/export.json")) and choose_layout(f"{root.path}/export.json") is None
    assert choose_layout(root.path) is None
    root("labels.csv", "video,start,end,label\na.mp4,0,1,jump\n")
    with pytest.raises(InputError, match="several layouts"):
        read_footage(root.path)
    assert labels(read_footage(root.path, layout="label-studio")) == [("a/3", "run", (0, 2))]


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (timeline(5, 3, "run"), "its end 3 is before its start 5"),
        (timeline(0, 3, "run"), "frames are numbered from 1"),
        (timeline(1, 10**9, "run"), "frames are numbered from 1"),
        (timeline(1, 2, "x" * 300), "at most 200"),
        (timeline(1, "2e", "run"), "is not a number"),
        (rectangle(), "its sequence is empty"),
        (rectangle((1, float("1e308"), None, 5, 5, True)), "is not a number"),
        (rectangle((1, 0, 0, 5, 5, True), more={"framesCount": "many"}), "is not a number"),
        (rectangle((1, 0, 0, 5, 5, True), more={"sequence": {"frame": 1}}), "must be lists of objects"),
        (rectangle((1, 0, 0, 5, 5, True), more={"labels": "athlete 1"}), "must be a list of names"),
        ({"type": "videorectangle", "value": 3}, "it has no value"),
    ],
)
def test_what_cannot_be_read_refuses_its_video_in_one_sentence(root, result, said):
    found = read(root, task(result), tracked=False)
    assert not found.videos
    (refused,) = found.refused
    assert refused["verdict"] == "bad_label" and said in refused["reason"] and "\n" not in refused["reason"]


def test_percentages_need_the_size_of_the_video(root):
    one = task(rectangle((1, 0, 0, 5, 5, True)), timeline(1, 2, "run"))
    del one["data"]["width"]
    found = read(root, one, tracked=False)
    assert "give width and height" in found.refused[0]["reason"]


def test_many_boxes_of_a_few_keyframes_are_refused(root):
    many = [rectangle((1, 0, 0, 5, 5, True), (1_900_000, 0, 0, 5, 5, False), label=f"athlete {n}") for n in range(2)]
    assert "3,800,000 boxes, interpolated ones included" in read(root, task(*many), tracked=False).refused[0]["reason"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('[{"annotations": [{"timelinelabels"', "not JSON"),
        ('{"annotations": {}, "timelinelabels": 1}', "not a list of tasks"),
        ('[{"annotations": [], "x": "timelinelabels"}, 3]', "not a list of tasks"),
        ('{"annotations": "timelinelabels" , "a": ' + "[" * 100 + "]" * 100 + "}", "levels deep"),
        ('[{"data": {"video": "zz.mp4"}, "annotations": [], "x": "timelinelabels"}]', "no task labels a video"),
    ],
)
def test_a_file_that_is_no_export_is_refused_in_one_sentence(root, content, said):
    root("a.mp4"), root("export.json", content)
    with pytest.raises(InputError, match=said) as refused:
        read_footage(root.path, layout="label-studio")
    assert "\n" not in str(refused.value)
