"""Footage without labels: cut for pretraining, hidden from classifiers, and replaced by labels that come later."""

import pytest

from posture.data.decode.cut import Cut, accept
from posture.data.feed.clips import index_footage
from posture.data.ingest.arguments import ClipArguments
from posture.data.ingest.clip_ledger import IngestOptions, estimate_bytes
from posture.data.labels.records import Label
from posture.data.labels.videos import read_footage, read_with_unlabelled
from posture.data.store.schema import DecodeRecipe
from posture.data.store.tables import Store
from posture.errors import InputError
from posture.runs.backend import LOCAL
from tests.support.footage import make_class_folders, make_video

RECIPE = DecodeRecipe(32, 40, 10, 1, 2)


def add(folder, store, *, unlabelled=0):
    read = read_with_unlabelled if unlabelled else read_footage
    return LOCAL.ingest(
        read(str(folder)),
        Store(str(store), create=True),
        IngestOptions(cut=Cut(RECIPE, min_frames=8, unlabelled=unlabelled)),
    )


def segments(store):
    return Store(str(store)).read("segments").to_pylist()


@pytest.fixture
def footage(tmp_path):
    """Eight labelled videos, one without a label, and one without a label in the folder `unlabelled`."""
    root = make_class_folders(tmp_path / "footage", per_class=4, frames=40)
    (root / "unlabelled").mkdir()
    for number, path in enumerate((root / "unlabelled" / "new.mp4", root / "loose.mp4")):
        make_video(path, frames=60 + 5 * number, seed=50 + number)
    return root


def test_stretches_of_a_clips_length_are_spread_over_the_video():
    whole = Label(0.0, None, "unlabelled", "a", "train")
    cut = Cut(RECIPE, unlabelled=3)  # a clip lasts 10 frames, at 10 frames a second 1 s
    found, refused = accept([whole, Label(2.0, 4.0, "jump", "b")], cut, seconds=9.0, fps=10.0)
    assert [(label.start, label.end) for label in found] == [(0.0, 1.0), (4.0, 5.0), (8.0, 9.0), (2.0, 4.0)]
    assert not refused
    assert [(label.start, label.end) for label in accept([whole], cut, seconds=2.5, fps=10.0)[0]] == [
        (0, 1),
        (1.5, 2.5),
    ]
    assert accept([whole], cut, seconds=0.7, fps=10.0)[0] == [whole]  # shorter than a clip


def test_clips_without_a_label_are_for_pretraining_alone(footage, tmp_path):
    read = read_with_unlabelled(str(footage))
    assert (
        not read.unlabelled and estimate_bytes(read, Cut(RECIPE, unlabelled=3)) == (8 + 2 * 3) * 2 * RECIPE.clip_bytes
    )
    add(footage, tmp_path / "store", unlabelled=3)
    rows = [row for row in segments(tmp_path / "store") if row["label"] == "unlabelled"]
    assert len(rows) == 2 * 3 and {row["split"] for row in rows} <= {"train", "val"}
    store = Store(str(tmp_path / "store"))
    known = [index_footage(store, split) for split in ("train", "val", "test")]
    assert all("unlabelled" not in index.classes for index in known) and sum(map(len, known)) == 8 * 2
    every = [index_footage(store, split, unlabelled=True) for split in ("train", "val", "test")]
    # one window of each stretch: it is as long as a clip
    assert sum(map(len, every)) == 8 * 2 + 6 and "unlabelled" in every[0].classes and len(every[2]) == len(known[2])


def test_a_folder_without_any_label(footage, tmp_path):
    report = add(footage / "unlabelled", tmp_path / "store", unlabelled=2)
    assert report.clips == 2 and {row["label"] for row in segments(tmp_path / "store")} == {"unlabelled"}


def test_labels_replace_what_had_none_and_are_never_replaced_by_it(footage, tmp_path):
    store = tmp_path / "store"
    add(footage / "unlabelled", store, unlabelled=3)
    jumps = footage / "labels.csv"
    jumps.write_text("video,start,end,label\nunlabelled/new.mp4,0.2,1.0,jump\n")
    add(jumps, store)
    assert [row["label"] for row in segments(store)] == ["jump"]
    report = add(footage / "unlabelled", store, unlabelled=3)
    assert [row["label"] for row in segments(store)] == ["jump"] and report.unlabelled == 1


def test_cropped_clips_need_labels():
    with pytest.raises(InputError, match="--unlabelled: clips of --crop need a label that names when an athlete acts"):
        ClipArguments(unlabelled=3, crop="boxes")
    assert ClipArguments(unlabelled=3).only_for_videos and not ClipArguments().unlabelled
