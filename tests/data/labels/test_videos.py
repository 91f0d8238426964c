import os
import unicodedata
from pathlib import Path

import pytest

from posture.data.labels.records import Label
from posture.data.labels.videos import read_footage
from posture.data.store.files import list_files
from posture.errors import InputError


def labels(footage):
    return {video.file.relative: list(video.labels) for video in footage.videos}


def test_one_folder_per_class(root):
    root("jump/a.mp4"), root("run/v_run_g03_c01.mp4"), root("stray.mp4"), root("jump/notes.txt")
    footage = read_footage(root.path)
    assert footage.layout == "folders"
    assert labels(footage) == {
        "jump/a.mp4": [Label(0.0, None, "jump", "jump/a")],
        "run/v_run_g03_c01.mp4": [Label(0.0, None, "run", "run_g03")],
    }
    assert footage.unlabelled == ["stray.mp4"]


def test_split_folders_above_class_folders(root):
    root("train/jump/a.mp4"), root("validation/jump/b.mp4"), root("test/run/c.mp4")
    assert [video.labels[0].split for video in read_footage(root.path).videos] == ["test", "train", "val"]


def test_segments_csv(root):
    root("clips/a.mp4"), root("b.mp4")
    root(
        "segments.csv",
        (
            "video,start,end,label,split,group\nclips/a.mp4,1.5,3,kick,train,ann\na.mp4,4,,throw,,\nb.mp4,,,idle,test,bob\ngone.mp4,0,1,kick,,\n"
        ),
    )
    footage = read_footage(root.path)
    assert footage.layout == "segments"
    assert labels(footage) == {
        "b.mp4": [Label(0.0, None, "idle", "bob", "test")],
        "clips/a.mp4": [Label(1.5, 3.0, "kick", "ann", "train"), Label(4.0, None, "throw", "a")],
    }
    assert footage.missing == ["segments.csv line 5: gone.mp4"]
    assert read_footage(f"{root.path}/segments.csv").videos == footage.videos


def test_kinetics_csv_with_trimmed_and_whole_files(root):
    root("val/abc_000010_000020.mp4"), root("xyz.mp4")
    root(
        "annotations.csv",
        (
            "label,youtube_id,time_start,time_end,split\nlong "
            "jump,abc,10,20,validate\nsurfing,xyz,3,13,train\nsurfing,lost,1,11,train\n"
        ),
    )
    footage = read_footage(root.path)
    assert footage.layout == "kinetics"
    assert labels(footage) == {
        "val/abc_000010_000020.mp4": [Label(0.0, None, "long jump", "abc", "val")],
        "xyz.mp4": [Label(3.0, 13.0, "surfing", "xyz", "train")],
    }
    assert footage.missing == ["annotations.csv line 4: lost"]


def test_ucf101_lists_match_whatever_the_suffix(root):
    for name in ("v_Archery_g01_c01", "v_Archery_g08_c02", "v_Archery_g09_c01"):
        root(f"UCF-101/Archery/{name}.mp4")
    root("ucfTrainTestlist/trainlist01.txt", "Archery/v_Archery_g08_c02.avi 1\nArchery/v_Archery_g10_c01.avi 1\n")
    root("ucfTrainTestlist/testlist01.txt", "Archery/v_Archery_g01_c01.avi\n")
    footage = read_footage(root.path)
    assert footage.layout == "ucf101"
    assert [(video.labels[0].group, video.labels[0].split) for video in footage.videos] == [
        ("Archery_g01", "test"),
        ("Archery_g08", "train"),
    ]
    assert footage.missing == ["ucfTrainTestlist/trainlist01.txt line 2: Archery/v_Archery_g10_c01.avi"]
    assert footage.unlabelled == ["UCF-101/Archery/v_Archery_g09_c01.mp4"]


def test_real_ucf101(ucf101):
    footage = read_footage(str(ucf101))
    assert (footage.layout, len(footage.videos), footage.missing) == ("ucf101", 270, [])


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("a.mp4,3,2,kick", "segments.csv line 2: end 2.0 is not after start 3.0"),
        ("a.mp4,x,2,kick", "segments.csv line 2: start 'x' is not a time in seconds"),
        ("a.mp4,-1,2,kick", "segments.csv line 2: start '-1' is not a time"),
        ("a.mp4,nan,2,kick", "segments.csv line 2: start 'nan' is not a time"),
        ("a.mp4,0,2, ", "segments.csv line 2: label is empty"),
        ("a.mp4,0,2,kick\na.mp4,0,2,jump", "a.mp4: 0.0 s to 2.0 is labelled twice: jump"),
        ("b.mp4,0,2,kick", "no label names a video that is here"),
    ],
)
def test_bad_rows_are_named(root, row, complaint):
    root("a.mp4")
    root("segments.csv", f"video,start,end,label\n{row}\n")
    with pytest.raises(InputError, match="^.*" + complaint.replace("(", r"\(")):
        read_footage(root.path)


def test_unknown_split_is_named(root):
    root("a.mp4"), root("s.csv", "video,start,end,label,split\na.mp4,0,1,kick,holdout\n")
    with pytest.raises(InputError, match="split 'holdout'; the splits are train, val, test"):
        read_footage(root.path)


def test_folders_that_hold_no_footage(root, tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        read_footage(f"{root.path}/missing")
    with pytest.raises(InputError, match="no video files here"):
        read_footage(root.path)
    root("a.mp4")
    with pytest.raises(InputError, match="no layout recognised"):
        read_footage(root.path)
    with pytest.raises(InputError, match="needs a CSV with the columns label,youtube_id"):
        read_footage(root.path, layout="kinetics")
    with pytest.raises(InputError, match=r"needs trainlist03\.txt"):
        read_footage(root.path, layout="ucf101", split_number=3)
    with pytest.raises(InputError, match="no such file"):
        read_footage(f"{root.path}/labels.csv")


def test_labels_of_another_folder_are_not_taken(root):
    """The same name in two folders is two recordings, in every layout."""
    root("jump/001.mp4"), root("jump/002.mp4"), root("run/001.mp4"), root("run/003.mp4")
    root("trainlist01.txt", "jump/001.mp4 1\nrun/003.mp4 2\nrun/002.mp4 2\n"), root("testlist01.txt", "jump/002.mp4\n")
    footage = read_footage(root.path)
    assert {name: found[0].label for name, found in labels(footage).items()} == {
        "jump/001.mp4": "jump",
        "jump/002.mp4": "jump",
        "run/003.mp4": "run",
    }
    assert footage.unlabelled == ["run/001.mp4"] and footage.missing == ["trainlist01.txt line 3: run/002.mp4"]
    root(
        "labels.csv",
        "video,start,end,label\njump/001.mp4,0,1,jump\nrun/002.mp4,0,1,run\n003.mp4,0,1,run\n001.mp4,1,2,run\n",
    )
    footage = read_footage(root.path, layout="segments")
    assert list(labels(footage)) == ["jump/001.mp4", "run/003.mp4"] and footage.missing == [
        "labels.csv line 3: run/002.mp4"
    ]
    assert footage.refused == [
        {
            "uri": "001.mp4",
            "verdict": "missing_video",
            "reason": (
                "named by labels.csv line 5, which may mean jump/001.mp4 or run/001.mp4; add its folder and suffix"
            ),
        }
    ]


def test_ucf101_lists_as_windows_and_people_write_them(root):
    (
        root("Long Jump/v_a b_g01_c01.avi"),
        root("Long Jump/v_ab_g02_c01.avi"),
        root("Run/v_c_g01_c01.avi"),
        root("Run/clip 7.avi"),
        root("Run/müde.avi"),
    )
    root(
        "lists/TrainList01.TXT",
        '\ufeffLong Jump\\v_a b_g01_c01.avi 1\r\n\r\n"Long Jump/v_ab_g02_c01.avi" 1\r\n'
        "Run/v_c_g01_c01\t2\r\nRun/clip 7 2\r\n",
    )
    root("lists/testlist1.txt").write_bytes("Run/müde.avi\r\n".encode("cp1252"))
    footage = read_footage(root.path)
    assert footage.layout == "ucf101" and not footage.missing and not footage.unlabelled
    assert {name: (found[0].label, found[0].split) for name, found in labels(footage).items()} == {
        "Long Jump/v_a b_g01_c01.avi": ("Long Jump", "train"),
        "Long Jump/v_ab_g02_c01.avi": ("Long Jump", "train"),
        "Run/clip 7.avi": ("Run", "train"),
        "Run/müde.avi": ("Run", "test"),
        "Run/v_c_g01_c01.avi": ("Run", "train"),
    }
    assert footage.notes == ["lists/testlist1.txt is not UTF-8 and was read as Windows-1252"]


def test_ucf101_lists_that_are_there_are_never_passed_over(root):
    root("jump/a.mp4"), root("trainlist02.txt", "jump/a.mp4\n"), root("testlist02.txt")
    with pytest.raises(InputError, match=r"needs trainlist01.txt and testlist01.txt \(--split-number 1\)"):
        read_footage(root.path)
    assert read_footage(root.path, split_number=2).layout == "ucf101"
    root("old/trainlist02.txt", "jump/a.mp4\n")
    with pytest.raises(
        InputError, match=r"old/trainlist02\.txt and trainlist02\.txt are both the train list of split 2"
    ):
        read_footage(root.path, split_number=2)


def test_ucf101_lists_beside_another_layout_that_was_named(root):
    (
        root("jump/v_a_g01_c01.mp4"),
        root("run/v_b_g01_c01.mp4"),
        root("trainlist01.txt"),
        root("old/trainlist01.txt"),
        root("testlist01.txt"),
    )
    assert read_footage(root.path, layout="folders").notes == [
        "not read, because the layout is folders: old/trainlist01.txt, testlist01.txt, trainlist01.txt"
    ]


def test_kinetics_files_of_one_name_are_told_apart_by_their_folder(root):
    (
        root("train/long_jump/abc.mp4"),
        root("train/surfing/abc.mp4"),
        root("val/xyz_000000_000010.mp4"),
        root("train/xyz_000000_000010.mp4"),
    )
    root("a/lost.mp4"), root("b/lost.mp4")
    root(
        "k.csv",
        (
            "label,youtube_id,time_start,time_end,split\nlong "
            "jump,abc,0,5,train\nsurfing,abc,5,9,train\nkick,xyz,0,10,val\nkick,lost,0,1,train\n"
        ),
    )
    footage = read_footage(root.path)
    assert {name: [label.label for label in found] for name, found in labels(footage).items()} == {
        "train/long_jump/abc.mp4": ["long jump"],
        "train/surfing/abc.mp4": ["surfing"],
        "val/xyz_000000_000010.mp4": ["kick"],
    }
    (refusal,) = footage.refused
    assert (
        refusal["reason"] == "named by k.csv line 5, which may mean a/lost.mp4 or b/lost.mp4; add its folder and suffix"
    )


def test_repeated_rows_count_once_and_that_is_told(root):
    root("a.mp4"), root("s.csv", "video,start,end,label\na.mp4,0,1,kick\na.mp4,0.0,1.0,kick\n a.mp4 ,,1,kick\n")
    footage = read_footage(root.path)
    assert labels(footage) == {"a.mp4": [Label(0.0, 1.0, "kick", "a")]} and footage.notes == [
        "2 rows repeated; each counts once"
    ]


def test_labels_and_groups_that_look_alike_are_alike(root):
    root("a.mp4"), root("b.mp4")
    root(
        "s.csv",
        "video,start,end,label,split,group\na.mp4,0,1,Sprünge,,Jörg\n"
        f"b.mp4,0,1,{unicodedata.normalize('NFD', 'Sprünge,,Jörg')}\n",
    )
    assert {(label.label, label.group) for found in labels(read_footage(root.path)).values() for label in found} == {
        ("Sprünge", "Jörg")
    }
    (one,) = labels(read_footage(root.path, layout=None))["a.mp4"]
    assert unicodedata.is_normalized("NFC", one.label)


def test_names_with_line_breaks_and_escapes(root):
    (
        root("jump/a\nb.mp4"),
        root("jump/\x1b[31mred.mp4"),
        root("jump/lab\nels.csv", 'video,start,end,label\n"jump/a\nb.mp4",0,1,kick\n'),
    )
    assert labels(read_footage(root.path)) == {"jump/a\nb.mp4": [Label(0.0, 1.0, "kick", "a\nb")]}
    root("jump/lab\nels.csv", 'video,start,end,label\n\x1b[31mred.mp4,0,1,"kick\nb"\n')
    with pytest.raises(InputError, match="contains a line break or another control character; is a quote not closed"):
        read_footage(root.path)


def test_several_layouts_are_listed_and_one_is_named(root):
    (
        root("a.mp4"),
        root("s.csv", "video,start,end,label\na.mp4,0,1,kick\n"),
        root("k.csv", "label,youtube_id,time_start,time_end\njump,a,0,2\n"),
    )
    with pytest.raises(
        InputError, match=r"labels in several layouts, segments \(s.csv\), kinetics \(k.csv\); choose one with --layout"
    ):
        read_footage(root.path)
    footage = read_footage(root.path, layout="kinetics")
    assert labels(footage) == {"a.mp4": [Label(0.0, 2.0, "jump", "a")]} and footage.notes == [
        "not read, because the layout is kinetics: s.csv"
    ]
    assert labels(read_footage(f"{root.path}/s.csv")) == {"a.mp4": [Label(0.0, 1.0, "kick", "a")]}


def test_a_name_that_is_no_unicode_is_listed_and_refused_later(root, tmp_path):
    try:
        os.close(os.open(os.fsencode(tmp_path / "jump") + b"_\xff.mp4", os.O_CREAT))
    except OSError:
        pytest.skip("this file system takes no such name")
    root("jump/a.mp4")
    (bad,) = list_files(root.path)[1:]
    assert (bad.relative, bad.bytes) == ("jump_\\xff.mp4", -1) and str(bad.uri).encode()


def test_files_that_are_their_own_group_are_told(root):
    root("jump/a.mp4"), root("run/b.mp4")
    (note,) = read_footage(root.path).notes
    assert note.startswith(
        "every file is a group of its own, so two files of one recording or one athlete may be in different splits; "
    )
    assert "v_Jump_g01_c01.mp4" in note and "column group" in note
    root("s.csv", "video,start,end,label\na.mp4,0,1,kick\nb.mp4,0,1,kick\n")
    assert read_footage(root.path).notes == [
        note.partition("together, ")[0] + "together, add a column group to the table"
    ]
    root("s.csv", "video,start,end,label,group\na.mp4,0,1,kick,ann\nb.mp4,0,1,kick,bob\n")
    assert read_footage(root.path).notes == []
    root("s.csv", "video,start,end,label,split\na.mp4,0,1,kick,train\na.mp4,1,2,kick,val\nb.mp4,0,1,kick,test\n")
    assert read_footage(root.path).notes == [], "whoever names all splits has decided"


def test_files_that_name_their_group(root):
    root("jump/v_jump_g01_c01.mp4"), root("run/v_run_g02_c01.mp4")
    assert read_footage(root.path).notes == []


def test_numbers_that_begin_anew_in_every_split_are_no_groups(root):
    root("train/jump/001.mp4"), root("test/jump/001.mp4"), root("train/jump/002.mp4")
    found = labels(read_footage(root.path))
    assert {name: (label.split, label.group) for name, (label,) in found.items()} == {
        "train/jump/001.mp4": ("train", "train/jump/001"),
        "test/jump/001.mp4": ("test", "test/jump/001"),
        "train/jump/002.mp4": ("train", "jump/002"),
    }
    root(
        "s.csv",
        "video,start,end,label,split,group\ntrain/jump/001.mp4,,,kick,train,001\ntest/jump/001.mp4,,,kick,test,001\n",
    )
    assert {label.group for found in labels(read_footage(root.path)).values() for label in found} == {"001"}, (
        "somebody named that group"
    )


def test_folders_that_are_not_the_classes_are_told(root):
    root("UCF-101/Archery/a.mp4"), root("UCF-101/Surfing/b.mp4")
    assert read_footage(root.path).notes[0] == (
        "the classes are the top folders (UCF-101), not the folders inside them (Archery, Surfing); "
        "if those are the classes, give the folder that contains them"
    )
    assert not [note for note in read_footage(f"{root.path}/UCF-101").notes if "class" in note]


def test_one_class_alone_is_told(root):
    root("videos/a.mp4"), root("videos/b.mp4")
    assert (
        read_footage(root.path).notes[0]
        == "all videos have one class, videos: each class is a folder, and there is only one"
    )


CASES = Path(__file__).resolve().parents[4] / "shared" / "cases"


@pytest.mark.parametrize(
    ("case", "found"),
    [
        ("label_table/semi", {"videos/a.mp4": (0, 1, "jump", None), "videos/b.mp4": (1, 2, "throw", None)}),
        ("label_table/tab", {"videos/a.mp4": (0, 1, "jump", None), "videos/b.mp4": (1, 2, "throw", None)}),
        ("label_table/case", {"videos/a.mp4": (0, 1, "jump", None), "videos/b.mp4": (1, 2, "throw", None)}),
        (
            "ucf_same_stem",
            {
                "jump/001.mp4": (0, None, "jump", "train"),
                "jump/002.mp4": (0, None, "jump", "test"),
                "run/003.mp4": (0, None, "run", "train"),
            },
        ),
        (
            "ucf_backslashes",
            {
                f"{name}/v_{name}_g0{group}_c01.avi": (0, None, name, split)
                for name in ("Jump", "Run")
                for group, split in ((1, "train"), (2, "test"))
            },
        ),
        (
            "names",
            {
                "GOPR0001.MP4": (0, 1, "throw", None),
                "avchd.m2ts": (1, 2, "jump", None),
                unicodedata.normalize("NFD", "weitsprung_müller.mp4"): (1, 2, "jump", None),
            },
        ),
    ],
)
def test_cases_from_the_field(case, found):
    if not (CASES / case).is_dir():
        pytest.skip(f"no cases at {CASES}")
    footage = read_footage(str(CASES / case))
    assert {
        name: (label.start, label.end, label.label, label.split) for name, (label,) in labels(footage).items()
    } == found
