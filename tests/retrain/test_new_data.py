"""What is new in a store since the last decision, and which classes are enough to be taken in."""

import json

import pyarrow as pa
import pytest

from posture.data.store import schema
from posture.data.store.tables import Store
from posture.retrain.new_data import arrivals, segments_record

CLIP = {"recipe": "r", "start": 0.0, "frames": 1, "height": 1, "width": 1, "offsets": [], "pixels": b"rgb"}


@pytest.fixture
def store(tmp_path):
    """Two classes with six training clips each and one held-out segment."""
    made = Store(str(tmp_path / "store"), create=True)
    made.create_tables()
    for label in ("dive", "jump"):
        add(made, label, train=3, test=1)
    return made


def add(store, label, *, train=0, test=0, name="first"):
    """Segments of two clips each, each in a group of its own."""
    sides = ["train"] * train + ["test"] * test
    segments = [
        {
            "segment": f"{label}-{name}-{number}",
            "video": f"v-{label}-{name}-{number}",
            "start": 0.0,
            "end": 1.0,
            "label": label,
            "group": f"{label}-{name}-{number}",
            "split": side,
        }
        for number, side in enumerate(sides)
    ]
    store.append("segments", pa.Table.from_pylist(segments, schema=schema.SEGMENTS))
    clips = [
        CLIP | {"clip": f"{row['segment']}-{window}", "segment": row["segment"]}
        for row in segments
        for window in range(2)
    ]
    store.append("clips", pa.Table.from_pylist(clips, schema=schema.CLIPS))


def look(store, baseline, **settings):
    return arrivals(store, store.versions(), baseline, recipe="r", **settings)


def test_everything_is_new_at_first_and_nothing_afterwards(store):
    first = look(store, None, known=(), min_per_class=4)
    assert first.new_clips == {"dive": 6, "jump": 6} and not first.left_out
    record = first.record(())
    assert record["came_in"]["classes"]["dive"] == {"train": 3, "val": 0, "test": 1} and record["came_in"][
        "groups"
    ] == {"train": 6, "val": 0, "test": 2}
    assert (
        record["balance"]["before"] == {}
        and record["came_in"]["new_classes"] == ["dive", "jump"]
        and record["came_in"]["clips"] == 16
    )
    baseline = json.loads(json.dumps(segments_record(first, None)))
    again = look(store, baseline, known=("dive", "jump"), min_per_class=4)
    assert (
        again.new == []
        and again.new_clips.total() == 0
        and again.record(("dive", "jump"))["came_in"]["new_classes"] == []
    )


def test_a_class_with_too_little_waits_until_it_has_enough_and_then_counts_whole(store):
    baseline = segments_record(look(store, None, known=(), min_per_class=4), None)
    known = ("dive", "jump")
    add(store, "vault", train=1, test=1)
    few = look(store, baseline, known=known, min_per_class=4)
    assert few.left_out == {"vault": 2} and few.new == []
    add(store, "dive", train=1, name="more")
    baseline = segments_record(look(store, baseline, known=known, min_per_class=4), "0001")
    assert not any(segment.startswith("vault") for segment in baseline["segments"])
    add(store, "vault", train=1, name="more")
    enough = look(store, baseline, known=known, min_per_class=4)
    assert enough.left_out == {} and enough.new_clips == {"vault": 4}
    add(store, "flip", train=9)
    assert look(store, baseline, known=known, min_per_class=4).left_out == {"flip": 18}  # nothing of it is held out


def test_corrected_labels_count_as_new_and_removed_segments_are_told(store):
    baseline = segments_record(look(store, None, known=(), min_per_class=1), None)
    row = store.read("segments").to_pylist()[0]
    store.upsert(
        "segments",
        pa.Table.from_pylist([row | {"label": "jump" if row["label"] == "dive" else "dive"}], schema=schema.SEGMENTS),
        keys=["segment"],
    )
    gone = store.read("segments").to_pylist()[-1]["segment"]
    store.delete("segments", "segment", [gone])
    found = look(store, baseline, known=("dive", "jump"), min_per_class=1)
    came = found.record(("dive", "jump"))["came_in"]
    assert found.new == [row["segment"]] and (came["relabelled"], came["removed"]) == (1, 1)


def test_refusals_are_told_once(store):
    def video(name, verdict):
        return {
            "video": "",
            "uri": name,
            "bytes": 1,
            "modified": 1.0,
            "frames": 0,
            "fps": 0.0,
            "seconds": 0.0,
            "width": 0,
            "height": 0,
            "codec": "",
            "verdict": verdict,
            "reason": "why",
        }

    store.append(
        "videos", pa.Table.from_pylist([video("a.mp4", "ok"), video("b.mp4", "truncated")], schema=schema.VIDEOS)
    )
    report = {
        "refused": [
            {"uri": "b.mp4", "verdict": "truncated", "reason": "why"},
            {"uri": "c.mp4", "verdict": "segment_past_end", "reason": "kick"},
        ]
    }
    store.append(
        "ingests",
        pa.Table.from_pylist([{"ingest": "i1", "time": 1.0, "report": json.dumps(report)}], schema=schema.INGESTS),
    )
    first = look(store, None, known=(), min_per_class=1)
    assert [(item["uri"], item["verdict"]) for item in first.refused] == [
        ("b.mp4", "truncated"),
        ("c.mp4", "segment_past_end"),
    ]
    store.append("videos", pa.Table.from_pylist([video("d.mp4", "empty")], schema=schema.VIDEOS))
    baseline = json.loads(json.dumps(segments_record(first, None)))
    assert [item["uri"] for item in look(store, baseline, known=(), min_per_class=1).refused] == ["d.mp4"]
