import unicodedata

import pytest

from posture.data.labels.names import VideoNames
from posture.data.store.files import File


def names(*paths):
    return VideoNames([File(path, path, 1, 0.0) for path in paths])


def meant(videos, name, table="labels.csv", **options):
    return [file.relative for file in videos.candidates(name, table, **options)]


def test_by_path_below_the_root_or_the_table_or_by_a_name_that_one_file_has():
    videos = names("a/one.mp4", "b/one.mp4", "b/two.mp4")
    assert (
        meant(videos, "a/one.mp4")
        == meant(videos, "a\\one.mp4")
        == meant(videos, "./a/one.mp4")
        == meant(videos, " a/one.mp4 ")
        == ["a/one.mp4"]
    )
    assert meant(names("a/one.mp4", "a\\one.mp4"), "a\\one.mp4") == ["a\\one.mp4"]
    assert meant(videos, "one.mp4", "b/labels.csv") == meant(videos, "../b/one.mp4", "a/labels.csv") == ["b/one.mp4"]
    assert meant(videos, "two.mp4") == meant(videos, "two") == ["b/two.mp4"]
    assert meant(videos, "one.mp4") == ["a/one.mp4", "b/one.mp4"] and videos.find("one.mp4", "labels.csv") is None
    assert meant(videos, "") == meant(videos, "/") == meant(videos, ".") == meant(videos, "a") == []


def test_of_several_files_the_nearest_to_the_table_is_meant():
    videos = names("one/videos/jump/a.mp4", "two/videos/jump/a.mp4", "two/b.mp4")
    assert (
        meant(videos, "jump/a.avi", "two/lists/trainlist01.txt", any_suffix=True)
        == meant(videos, "a.mp4", "two/x.csv")
        == ["two/videos/jump/a.mp4"]
    )
    assert len(meant(videos, "jump/a.mp4")) == 2


def test_a_folder_in_the_table_is_part_of_the_name():
    videos = names("jump/1.mp4", "run/2.mp4", "run/3.mp4")
    assert meant(videos, "run/1.mp4") == [], "another recording of that name"
    assert meant(videos, "C:\\data\\jump\\1.mp4") == meant(videos, "/home/ann/jump/1.mp4") == ["jump/1.mp4"]
    assert meant(names("x/jump/1.mp4", "x/run/1.mp4"), "jump/1.mp4") == ["x/jump/1.mp4"]
    assert meant(videos, "old/2.mp4", moved=True) == ["run/2.mp4"]


@pytest.mark.parametrize("folder", ["", "videos/", "train/"])
def test_where_all_lie_together_folders_cannot_be_checked(folder):
    videos = names(f"{folder}1.mp4", f"{folder.replace('train', 'test')}2.mp4")
    assert meant(videos, "jump/1.avi", any_suffix=True) == [f"{folder}1.mp4"]
    assert meant(videos, "jump/1.mp4") == [f"{folder}1.mp4"] and meant(videos, "jump/1.avi") == []


def test_letters_are_compared_as_they_look():
    composed, decomposed = (unicodedata.normalize(form, "sprünge/müller.mp4") for form in ("NFC", "NFD"))
    assert composed != decomposed
    for here, there in ((composed, decomposed), (decomposed, composed)):
        assert meant(names(here, "x/y.mp4"), there) == meant(names(here, "x/y.mp4"), there.rpartition("/")[2]) == [here]


def test_case_is_ignored_unless_it_tells_files_apart():
    assert meant(names("GOPR0001.MP4"), "gopr0001.mp4") == ["GOPR0001.MP4"]
    assert meant(names("Jump/a.mp4", "x/b.mp4"), "jump/A.mp4") == ["Jump/a.mp4"]
    both = names("jump/a.mp4", "Jump/A.mp4", "Jump/b.mp4")
    assert meant(both, "jump/a.mp4") == ["jump/a.mp4"] and len(meant(both, "JUMP/a.mp4")) == 2
    assert meant(names("v/a.m2ts", "w/b.m2ts"), "a.M2TS") == ["v/a.m2ts"]


def test_files_may_have_been_converted():
    videos = names("v/a.mp4", "v/a.avi", "w/b.mp4")
    assert meant(videos, "v/a.avi", any_suffix=True) == ["v/a.avi"] and meant(videos, "v/b.avi", any_suffix=True) == []
    assert meant(videos, "w/b.avi", any_suffix=True) == ["w/b.mp4"] and meant(videos, "w/b.avi") == []
    assert meant(videos, "v/a.mov", any_suffix=True) == ["v/a.mp4", "v/a.avi"]
