"""Videos of several athletes: each label becomes a row with its own crop, and a video stays on one side."""

import numpy as np
import pyarrow.compute as pc
import pytest

from posture.data.decode.cut import Cut
from posture.data.ingest.clip_ledger import IngestOptions
from posture.data.ingest.clips import ingest_clips
from posture.data.labels.tracked_videos import read_tracked_footage
from posture.data.store.frame_codec import decode_frames
from posture.data.store.schema import TUBE, DecodeRecipe, crop_name, segment_id
from posture.data.store.tables import Store
from posture.data.synthetic.footage import generate
from tests.support.crops import across, make_film, seen, waiting, write_boxes
from tests.support.side_by_side import put_side_by_side

CROPPED = DecodeRecipe(48, 48, 20, 2, 1, crop=crop_name(0.2))
FOUND = DecodeRecipe(48, 48, 20, 2, 1, crop=crop_name(0.2, detector="1f2e3d4c"))
FILMS = {"both.mp4": {"red": across, "green": waiting}}


@pytest.fixture
def films(tmp_path):
    root = tmp_path / "films"
    for name, athletes in FILMS.items():
        make_film(root / name, athletes)
    write_boxes(root / "boxes.csv", FILMS)
    return root


def ingest(root, store, recipe=CROPPED, *, background=False, **how):
    return ingest_clips(
        read_tracked_footage(str(root), drawn=not recipe.searched),
        Store(str(store), create=True),
        IngestOptions(cut=Cut(recipe, min_frames=4, background=background), max_refused_share=1.0),
        **how,
    )


def cut(store):
    """Return the segments, each with the frames (T, H, W, 3) of its clip."""
    store = Store(str(store))
    frames = {
        row["segment"]: decode_frames(row["pixels"], row["offsets"], (row["frames"], row["height"], row["width"]))
        for row in store.read("clips", where=pc.field("recipe").isin([str(CROPPED), str(FOUND)])).to_pylist()
    }
    found = store.read("segments").to_pylist()
    return [row | {"frames": frames[row["segment"]]} for row in found if row["segment"] in frames]


def rows(store):
    """Return the segments by their athlete and start."""
    return {(row["athlete"], row["start"]): row for row in cut(store)}


def shows(frames, colour):
    """True if every frame shows the colour. A clip cut along the other athlete misses it in most of them."""
    other = {"red": "green", "green": "red"}[colour]
    return bool(not np.isnan(seen(frames, colour)).any() and np.isnan(seen(frames, other)).any())


def label(root, text):
    (root / "segments.csv").write_text(f"video,start,end,label,athlete,group\n{text}")


def test_actions_of_two_athletes_at_once_are_two_rows_each_with_its_own_crop(films, tmp_path):
    label(films, "both.mp4,0,2.4,run,red,club\nboth.mp4,0,2.4,wait,green,club\nboth.mp4,0.4,1.2,wait,green,club\n")
    report = ingest(films, tmp_path / "store")
    assert (report.segments, report.clips, report.refused) == (3, 3, [])
    found = rows(tmp_path / "store")
    assert {key: row["label"] for key, row in found.items()} == {
        ("red", 0.0): "run",
        ("green", 0.0): "wait",
        ("green", 0.4): "wait",
    }
    assert all(shows(row["frames"], athlete) for (athlete, _), row in found.items())
    assert all(row["segment"].endswith(TUBE) for row in found.values())
    versions = Store(str(tmp_path / "store")).versions()
    again = ingest(films, tmp_path / "store")
    assert again.decoded == 0 and Store(str(tmp_path / "store")).versions() == versions


def test_two_athletes_who_do_the_same_at_the_same_time_are_two_rows(films, tmp_path):
    label(films, "both.mp4,,,kick,red,club\nboth.mp4,,,kick,green,club\n")
    ingest(films, tmp_path / "store")
    found = rows(tmp_path / "store")
    assert sorted(found) == [("green", 0.0), ("red", 0.0)] and {row["label"] for row in found.values()} == {"kick"}


def test_an_athlete_without_boxes_is_refused_by_name(films, tmp_path):
    label(films, "both.mp4,0,2,kick,red,club\nboth.mp4,0,2,kick,blue,club\n")
    report = ingest(films, tmp_path / "store")
    assert [refused["reason"] for refused in report.refused] == [
        "kick from 0 s to 2 s: the athlete blue is not there, or in too few frames"
    ]
    assert list(rows(tmp_path / "store")) == [("red", 0.0)]


def test_the_found_track_of_the_labelled_athlete_is_taken_not_the_surest(films, tmp_path):
    def both(frames):
        """Find both athletes; be surest of the green one."""
        boxes = [seen(frames, colour) for colour in ("red", "green")]
        return [(np.stack(pair), np.array([0.6, 0.9])) for pair in zip(*boxes, strict=True)]

    both.size = 160
    label(films, "both.mp4,0,2.2,run,red,club\nboth.mp4,0,2.4,wait,green,club\n")
    ingest(films, tmp_path / "store", FOUND, open_finder=lambda: both)
    found = rows(tmp_path / "store")
    assert len(found) == 2 and all(shows(row["frames"], athlete) for (athlete, _), row in found.items())


def test_athletes_of_one_video_are_on_one_side_and_a_later_video_may_not_tear_them(films, tmp_path):
    store = tmp_path / "store"
    label(films, "both.mp4,0,2,run,red,ann\nboth.mp4,0,2,wait,green,bob\n")
    for number in range(4):
        make_film(films / f"more{number}.mp4", {"red": across}, seed=number + 1)
    shown = FILMS | {f"more{number}.mp4": {"red": across} for number in range(4)}
    write_boxes(films / "boxes.csv", shown)
    with (films / "segments.csv").open("a") as file:
        file.writelines(f"more{number}.mp4,0,2,run,red,other{number}\n" for number in range(4))
    report = ingest(films, store)
    splits = {row["group"]: row["split"] for row in Store(str(store)).read("groups").to_pylist()}
    assert splits["ann"] == splits["bob"] and len(set(splits.values())) > 1
    assert "2 of them are seen in one video with another" in report.splits
    stranger = next(group for group, split in splits.items() if split != splits["ann"])
    make_film(films / "later.mp4", FILMS["both.mp4"], seed=9)
    write_boxes(films / "boxes.csv", shown | {"later.mp4": FILMS["both.mp4"]})
    with (films / "segments.csv").open("a") as file:
        file.write(f"later.mp4,0,2,run,red,ann\nlater.mp4,0,2,wait,green,{stranger}\n")
    report = ingest(films, store)
    assert report.decoded == 0 and [refused["verdict"] for refused in report.refused] == ["two_sides"]
    sides = {(row["video"], row["split"]) for row in Store(str(store)).read("segments").to_pylist()}
    assert len(sides) == len({video for video, _ in sides}) == 5


def test_a_table_that_names_athletes_later_replaces_the_rows_of_whole_videos(films, tmp_path):
    label(films, "both.mp4,0,2.4,run,,red\n")
    ingest(films, tmp_path / "store")
    (before,) = rows(tmp_path / "store").values()
    assert before["segment"] == segment_id(before["video"], 0.0, 2.4) and shows(before["frames"], "red")
    label(films, "both.mp4,0,2.4,run,red,red\nboth.mp4,0,2.4,wait,green,red\n")
    report = ingest(films, tmp_path / "store")
    assert (report.segments, report.retired) == (2, 1)
    assert sorted(rows(tmp_path / "store")) == [("green", 0.0), ("red", 0.0)]


def test_background_of_an_athlete_is_cut_along_that_athlete_until_labels_fill_it(films, tmp_path):
    brief = DecodeRecipe(48, 48, 8, 2, 2, crop=crop_name(0.2))

    def labels_now():
        ingest(films, tmp_path / "store", brief, background=True)
        found = cut_store(tmp_path, "segments")
        return {(row["athlete"], row["start"], row["end"]): row["label"] for row in found}

    label(films, "both.mp4,1.6,2.4,run,red,club\nboth.mp4,1.2,2.4,wait,green,club\n")
    labels = {("red", 1.6, 2.4): "run", ("green", 1.2, 2.4): "wait"}
    assert labels_now() == labels | {("red", 0.0, 1.6): "background", ("green", 0.0, 1.2): "background"}
    red_ones = {row["segment"] for row in cut_store(tmp_path, "segments") if row["athlete"] == "red"}
    early = [row for row in cut_store(tmp_path, "clips") if row["start"] == 0]  # they meet later
    assert len(early) == 2
    for row in early:
        frames = decode_frames(row["pixels"], row["offsets"], (8, 48, 48))
        seen_there = {colour for colour in ("red", "green") if not np.isnan(seen(frames, colour)).any()}
        assert seen_there == ({"red"} if row["segment"] in red_ones else {"green"})
    with (films / "segments.csv").open("a") as file:
        file.write("both.mp4,0,0.8,run,red,club\n")
    assert labels_now() == labels | {
        ("red", 0.0, 0.8): "run",
        ("red", 0.8, 1.6): "background",
        ("green", 0.0, 1.2): "background",
    }


def cut_store(folder, table):
    return Store(str(folder / "store")).read(table).to_pylist()


def test_each_tube_of_generated_videos_side_by_side_gives_the_clip_that_it_gives_alone(tmp_path):
    alone = generate(tmp_path / "alone", videos=6, athletes=6, segments_per_video=2, seed=2, size=(64, 96), workers=1)
    beside = put_side_by_side(alone, tmp_path / "beside")
    found = {}
    for footage in (alone, beside):
        assert ingest(footage, tmp_path / f"{footage.name}_store").refused == []
        found[footage.name] = {
            (row["group"], row["label"], row["start"], row["end"], row["split"]): row["frames"][:16].astype(float)
            for row in cut(tmp_path / f"{footage.name}_store")
        }
    assert len(found["beside"]) == 8  # four athletes of train, two actions each
    assert found["beside"].keys() <= found["alone"].keys()
    for key, frames in found["beside"].items():
        differences = {other: np.abs(frames - shown).mean() for other, shown in found["alone"].items()}
        assert min(differences, key=differences.__getitem__) == key
