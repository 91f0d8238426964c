import zipfile

import pytest

from posture.data.labels.videos import read_footage
from posture.errors import InputError

SHEET = "<worksheet><c><is><t>{}</t></is></c></worksheet>"


@pytest.fixture
def root(root):
    root("videos/a.mp4"), root("videos/b.mp4")
    return root


def sheet(path, text, member="xl/worksheets/sheet1.xml"):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as book:
        book.writestr(member, SHEET.format(text))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("labels.csv", "Datei;Beginn;Ende;Klasse\na.mp4;0;1;jump\nb.mp4;0;1;run\n"),
        ("labels.csv", "a.mp4,0,1,jump\nb.mp4,0,1,run\n"),
        ("labels.csv", "video,start,end,lable\nc.mp4,0,1,jump\n"),
        ("labels.tsv", "video\tlabel\na.mp4\tjump\n"),
        ("deep/labels.TXT", "videos/a.mp4 jump\nvideos/b.mp4 run\n"),
        ("labels.txt", "a jump\nb run\n"),
        ("labels.tab", '"a.mp4","jump"\n'),
        ("labels.csv", b"PK\x03\x04"),
        ("labels.csv", "video,start,end,label\n".encode("utf-16-be")),
    ],
)
def test_what_may_hold_the_labels_is_an_error_that_names_it_unless_the_layout_is_named(root, name, content):
    root(name, content)
    with pytest.raises(InputError, match=f"/{name}: "):
        read_footage(root.path)
    footage = read_footage(root.path, layout="folders")
    assert (
        len(footage.videos) == 2
        and any("was not read" in note or "not read, because" in note for note in footage.notes)
        and name in str(footage.notes)
    )


@pytest.mark.parametrize(
    ("name", "member", "text"),
    [("labels.xlsx", "xl/sharedStrings.xml", "a.mp4"), ("labels.ods", "content.xml", "videos/a.mp4")],
)
def test_a_spreadsheet_that_names_videos(root, tmp_path, name, member, text):
    sheet(tmp_path / name, text, member)
    with pytest.raises(InputError, match=f"/{name}: this spreadsheet names videos that are here; save it as CSV"):
        read_footage(root.path)
    assert name in str(read_footage(root.path, layout="folders").notes)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (
            "activitynet.json",
            '{"database": {"first": {"annotations": [{"label": "jump", "segment": [0, 1]}]}, "second": {}}}',
        ),
        ("lines.jsonl", '{"path": "videos\\\\first.mp4", "label": "jump"}\n{"path": "videos\\\\second.mp4"}\n'),
        (
            "elan.eaf",
            '<ANNOTATION_DOCUMENT><MEDIA_DESCRIPTOR MEDIA_URL="file:///C:/videos/first.mp4"/>'
            '<X URL="videos/second.mp4"/></ANNOTATION_DOCUMENT>',
        ),
        ("labels.yaml", "first.mp4: jump\nsecond.mp4: run\n"),
    ],
)
def test_labels_in_other_formats(root, name, content):
    root("videos/first.mp4"), root("videos/second.mp4"), root(name, content)
    with pytest.raises(InputError, match=f"/{name}: this file names videos that are here, but no layout reads it"):
        read_footage(root.path)
    assert f"{name} was not read: it names videos that are here" in read_footage(root.path, layout="folders").notes
    root("labels.csv", "video,start,end,label\nfirst.mp4,0,1,jump\n")
    assert read_footage(root.path).layout == "segments"


def test_files_that_speak_of_one_video_or_of_boxes_are_no_labels(root):
    root("videos/first.mp4"), root("videos/first.json", '{"file": "first.mp4"}'), root("config.yaml", "size: 128\n")
    root("boxes.xml", "<annotations><meta><source>first.mp4</source><source>videos/a.mp4</source></meta></annotations>")
    assert read_footage(root.path).layout == "folders"


def test_other_tables_are_told(root, tmp_path):
    (
        root("prices.csv", "item,price\nball,3\n"),
        root("notes.txt", "Recorded in May.\nWith one camera, see a.mp4\nand nothing else.\n"),
        root("broken.xls", "x"),
    )
    root("photo.txt", bytes(range(256)))
    sheet(tmp_path / "money.xlsx", "ball")
    footage = read_footage(root.path)
    assert footage.layout == "folders"
    assert footage.notes[1:-1] == [
        "not read, because they are not label tables: prices.csv, broken.xls, money.xlsx; "
        "save a spreadsheet that holds labels as CSV"
    ]


def test_beside_labels_that_are_understood(root):
    (
        root("labels.csv", "video,start,end,label\na.mp4,0,1,jump\n"),
        root("cameras.csv", "video,fps\na.mp4,25\nb.mp4,25\n"),
    )
    footage = read_footage(root.path)
    assert footage.layout == "segments"
    assert footage.notes == ["cameras.csv was not read: it seems to hold labels, but its columns are video,fps"]
    root("more.csv", "video,start,end,lable\nb.mp4,0,1,jump\n")
    with pytest.raises(
        InputError, match=r"/more\.csv: this seems to be a label table, but its columns are video,start,end,lable"
    ):
        read_footage(root.path)
    assert "labels.csv" in str(read_footage(root.path, layout="folders").notes), (
        "understood, but not the layout that was asked for"
    )


def test_many_texts_cost_little_and_are_told(root):
    for number in range(205):
        root(f"words/{number}.txt", "a jump\n")
    root("labels.csv", "video,start,end,label\na.mp4,0,1,jump\n")
    assert "5 of the .txt files were not examined" in read_footage(root.path).notes
