import csv

import pytest

from posture.data.annotations import Label, NoLabels, find_unlabelled, read_footage
from posture.data.review_table import Stretch, checked_label, write_answer
from posture.errors import InputError


@pytest.fixture
def root(tmp_path):
    """A folder and a way to put files in it: listing needs names only, not videos."""
    def put(name, content=""):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    put.path = str(tmp_path)
    put.table = tmp_path / "review.csv"
    return put


def labels(footage):
    return {video.file.relative: list(video.labels) for video in footage.videos}


def test_answers_label_what_the_folders_do_not(root):
    root("jump/a.mp4"), root("run/b.mp4"), root("new.mp4"), root("unlabelled/game.mp4"), root("other.mp4")
    assert [file.relative for file in find_unlabelled(root.path)[1]] == ["new.mp4", "other.mp4", "unlabelled/game.mp4"]
    write_answer(root.path, Stretch("new.mp4", 0, None, "new"), "throw")
    write_answer(root.path, Stretch("unlabelled/game.mp4", 10, 20.5, "game"), "jump")
    write_answer(root.path, Stretch("unlabelled/game.mp4", 30, 40, "game"), "")
    footage = read_footage(root.path)
    assert footage.layout == "folders" and footage.unlabelled == ["other.mp4"]
    assert labels(footage) == {"jump/a.mp4": [Label(0.0, None, "jump", "jump/a")], "new.mp4": [Label(0.0, None, "throw", "new")],
                               "run/b.mp4": [Label(0.0, None, "run", "run/b")], "unlabelled/game.mp4": [Label(10.0, 20.5, "jump", "game")]}
    assert footage.notes == ["review.csv labels 2 segments of 2 files that had no label"]
    assert [file.relative for file in find_unlabelled(root.path)[1]] == ["new.mp4", "other.mp4", "unlabelled/game.mp4"], "other stretches of a file stay open"


def test_answers_beside_every_other_layout(root):
    root("v_A_g01_c01.mp4"), root("v_A_g02_c01.mp4"), root("new.mp4")
    write_answer(root.path, Stretch("new.mp4", 0, None, "new"), "A")
    root("trainlist01.txt", "A/v_A_g01_c01.avi 1\n"), root("testlist01.txt", "A/v_A_g02_c01.avi\n")
    ucf101 = read_footage(root.path)
    assert ucf101.layout == "ucf101" and labels(ucf101)["new.mp4"] == [Label(0.0, None, "A", "new")]
    root("labels.csv", "video,start,end,label\nv_A_g01_c01.mp4,,,A\n")
    with pytest.raises(InputError, match=r"labels in several layouts, segments \(labels.csv\), ucf101 \(testlist01.txt\)"):
        read_footage(root.path)
    segments = read_footage(root.path, layout="segments")
    assert segments.layout == "segments" and set(labels(segments)) == {"v_A_g01_c01.mp4", "new.mp4"}
    assert labels(read_footage(f"{root.path}/review.csv")) == {"new.mp4": [Label(0.0, None, "A", "new")]}


def test_answers_alone_make_a_layout(root):
    root("a.mp4"), root("b.mp4")
    write_answer(root.path, Stretch("b.mp4", 0, None, "b"), "")
    with pytest.raises(NoLabels, match="no layout recognised"):
        read_footage(root.path)
    assert [file.relative for file in find_unlabelled(root.path)[1]] == ["a.mp4", "b.mp4"]
    write_answer(root.path, Stretch("a.mp4", 0, None, "a"), "jump")
    footage = read_footage(root.path)
    assert (footage.layout, labels(footage), footage.unlabelled) == ("segments", {"a.mp4": [Label(0.0, None, "jump", "a")]}, ["b.mp4"])


def test_a_label_of_the_layout_goes_over_an_answer(root):
    root("jump/a.mp4"), root("b.mp4")
    write_answer(root.path, Stretch("a.mp4", 0, None, "a"), "run")  # it lay at the root when it was asked about, and has been moved since
    footage = read_footage(root.path)
    assert labels(footage) == {"jump/a.mp4": [Label(0.0, None, "jump", "jump/a")]} and not footage.notes


def test_an_answer_replaces_the_earlier_one_and_leaves_other_rows_as_they_are(root):
    root("review.csv", 'video,start,end,label,split,group,who\n"a, b.mp4",0,2,jump,train,ann,me\n')
    stretch = Stretch("c.mp4", 3.25, 12345.678, "c")
    write_answer(root.path, stretch, "run")
    write_answer(root.path, stretch, 'a "new", one')
    rows = list(csv.DictReader(root.table.read_text().splitlines()))
    assert rows[0] == {"video": "a, b.mp4", "start": "0", "end": "2", "label": "jump", "split": "train", "group": "ann", "who": "me"}
    assert rows[1:] == [{"video": "c.mp4", "start": "3.25", "end": "12345.678", "label": 'a "new", one', "split": "", "group": "c", "who": ""}]
    write_answer(root.path, stretch, None)
    assert root.table.read_text() == 'video,start,end,label,split,group,who\n"a, b.mp4",0,2,jump,train,ann,me\n'


def test_a_table_that_is_none_of_ours_is_not_written_over(root):
    root("review.csv", "name,verdict\nx,good\n")
    with pytest.raises(InputError, match=r"review\.csv: the column video is missing"):
        write_answer(root.path, Stretch("a.mp4", 0, None, "a"), "run")
    assert root.table.read_text() == "name,verdict\nx,good\n"


@pytest.mark.parametrize("label", ["", "  ", None, 3, "x" * 101, "a\x00b"])
def test_labels_that_are_none(label):
    with pytest.raises(InputError, match="a label"):
        checked_label(label)


def test_labels_are_trimmed():
    assert checked_label("  long \n jump ") == "long jump"
