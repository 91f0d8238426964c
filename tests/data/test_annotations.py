import pytest

from posture.data.annotations import Label, read_footage
from posture.errors import InputError


@pytest.fixture
def root(tmp_path):
    """A folder and a way to put files in it: listing needs names only, not videos."""
    def put(name, content=""):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return path
    put.path = str(tmp_path)
    return put


def labels(footage):
    return {video.file.relative: list(video.labels) for video in footage.videos}


def test_one_folder_per_class(root):
    root("jump/a.mp4"), root("run/v_run_g03_c01.mp4"), root("stray.mp4"), root("jump/notes.txt")
    footage = read_footage(root.path)
    assert footage.layout == "folders"
    assert labels(footage) == {"jump/a.mp4": [Label(0.0, None, "jump", "jump/a")], "run/v_run_g03_c01.mp4": [Label(0.0, None, "run", "run_g03")]}
    assert footage.unlabelled == ["stray.mp4"]


def test_split_folders_above_class_folders(root):
    root("train/jump/a.mp4"), root("validation/jump/b.mp4"), root("test/run/c.mp4")
    assert [video.labels[0].split for video in read_footage(root.path).videos] == ["test", "train", "val"]


def test_segments_csv(root):
    root("clips/a.mp4"), root("b.mp4")
    root("segments.csv", "video,start,end,label,split,group\nclips/a.mp4,1.5,3,kick,train,ann\na.mp4,4,,throw,,\nb.mp4,,,idle,test,bob\ngone.mp4,0,1,kick,,\n")
    footage = read_footage(root.path)
    assert footage.layout == "segments"
    assert labels(footage) == {"b.mp4": [Label(0.0, None, "idle", "bob", "test")],
                               "clips/a.mp4": [Label(1.5, 3.0, "kick", "ann", "train"), Label(4.0, None, "throw", "a")]}
    assert footage.missing == ["segments.csv line 5: gone.mp4"]
    assert read_footage(f"{root.path}/segments.csv").videos == footage.videos


def test_kinetics_csv_with_trimmed_and_whole_files(root):
    root("val/abc_000010_000020.mp4"), root("xyz.mp4")
    root("annotations.csv", "label,youtube_id,time_start,time_end,split\nlong jump,abc,10,20,validate\nsurfing,xyz,3,13,train\nsurfing,lost,1,11,train\n")
    footage = read_footage(root.path)
    assert footage.layout == "kinetics"
    assert labels(footage) == {"val/abc_000010_000020.mp4": [Label(0.0, None, "long jump", "abc", "val")],
                               "xyz.mp4": [Label(3.0, 13.0, "surfing", "xyz", "train")]}
    assert footage.missing == ["annotations.csv line 4: lost"]


def test_ucf101_lists_match_whatever_the_suffix(root):
    for name in ("v_Archery_g01_c01", "v_Archery_g08_c02", "v_Archery_g09_c01"):
        root(f"UCF-101/Archery/{name}.mp4")
    root("ucfTrainTestlist/trainlist01.txt", "Archery/v_Archery_g08_c02.avi 1\nArchery/v_Archery_g10_c01.avi 1\n")
    root("ucfTrainTestlist/testlist01.txt", "Archery/v_Archery_g01_c01.avi\n")
    footage = read_footage(root.path)
    assert footage.layout == "ucf101"
    assert [(video.labels[0].group, video.labels[0].split) for video in footage.videos] == [("Archery_g01", "test"), ("Archery_g08", "train")]
    assert footage.missing == ["ucfTrainTestlist/trainlist01.txt line 2: Archery/v_Archery_g10_c01.avi"]
    assert footage.unlabelled == ["UCF-101/Archery/v_Archery_g09_c01.mp4"]


def test_real_ucf101(ucf101):
    footage = read_footage(str(ucf101))
    assert (footage.layout, len(footage.videos), footage.missing) == ("ucf101", 270, [])


@pytest.mark.parametrize(("row", "complaint"), [
    ("a.mp4,3,2,kick", "segments.csv line 2: end 2.0 is not after start 3.0"),
    ("a.mp4,x,2,kick", "segments.csv line 2: start 'x' is not a time in seconds"),
    ("a.mp4,-1,2,kick", "segments.csv line 2: start '-1' is not a time"),
    ("a.mp4,nan,2,kick", "segments.csv line 2: start 'nan' is not a time"),
    ("a.mp4,0,2, ", "segments.csv line 2: label is empty"),
    ("a.mp4,0,2,kick\na.mp4,0,2,jump", "a.mp4: 0.0 s to 2.0 is labelled twice: jump"),
    ("b.mp4,0,2,kick", "not one label names a video that is here"),
])
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
