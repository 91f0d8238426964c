import csv
import multiprocessing

import pytest

from posture.data.labels.records import Label
from posture.data.labels.review_csv import Stretch, checked_label, write_answer
from posture.data.labels.table import as_text, from_text
from posture.data.labels.videos import NoLabels, find_unlabelled, read_footage
from posture.data.store.files import read_bytes
from posture.errors import InputError
from tests.support.processes import s3_server


@pytest.fixture
def root(root, tmp_path):
    root.table = tmp_path / "review.csv"
    return root


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
    assert labels(footage) == {
        "jump/a.mp4": [Label(0.0, None, "jump", "jump/a")],
        "new.mp4": [Label(0.0, None, "throw", "new")],
        "run/b.mp4": [Label(0.0, None, "run", "run/b")],
        "unlabelled/game.mp4": [Label(10.0, 20.5, "jump", "game")],
    }
    assert footage.notes[1:] == ["review.csv labels 2 segments of 2 files that had no label"]
    assert [file.relative for file in find_unlabelled(root.path)[1]] == [
        "new.mp4",
        "other.mp4",
        "unlabelled/game.mp4",
    ], "other stretches of a file stay open"


def test_answers_beside_every_other_layout(root):
    root("v_A_g01_c01.mp4"), root("v_A_g02_c01.mp4"), root("new.mp4")
    write_answer(root.path, Stretch("new.mp4", 0, None, "new"), "A")
    root("trainlist01.txt", "A/v_A_g01_c01.avi 1\n"), root("testlist01.txt", "A/v_A_g02_c01.avi\n")
    ucf101 = read_footage(root.path)
    assert ucf101.layout == "ucf101" and labels(ucf101)["new.mp4"] == [Label(0.0, None, "A", "new")]
    root("labels.csv", "video,start,end,label\nv_A_g01_c01.mp4,,,A\n")
    with pytest.raises(
        InputError, match=r"labels in several layouts, segments \(labels.csv\), ucf101 \(testlist01.txt\)"
    ):
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
    assert (footage.layout, labels(footage), footage.unlabelled) == (
        "segments",
        {"a.mp4": [Label(0.0, None, "jump", "a")]},
        ["b.mp4"],
    )


def test_a_label_of_the_layout_goes_over_an_answer(root):
    root("jump/a.mp4"), root("b.mp4")
    # it was at the root when it was asked about, and was moved later
    write_answer(root.path, Stretch("a.mp4", 0, None, "a"), "run")
    footage = read_footage(root.path)
    assert labels(footage) == {"jump/a.mp4": [Label(0.0, None, "jump", "jump/a")]} and "review.csv" not in str(
        footage.notes
    )


def test_an_answer_replaces_the_earlier_one_and_leaves_other_rows_as_they_are(root):
    root("review.csv", 'video,start,end,label,split,group,who\n"a, b.mp4",0,2,jump,train,ann,me\n')
    stretch = Stretch("c.mp4", 3.25, 12345.678, "c")
    write_answer(root.path, stretch, "run")
    write_answer(root.path, stretch, 'a "new", one')
    rows = list(csv.DictReader(root.table.read_text().splitlines()))
    assert rows[0] == {
        "video": "a, b.mp4",
        "start": "0",
        "end": "2",
        "label": "jump",
        "split": "train",
        "group": "ann",
        "who": "me",
    }
    assert rows[1:] == [
        {
            "video": "c.mp4",
            "start": "3.25",
            "end": "12345.678",
            "label": 'a "new", one',
            "split": "",
            "group": "c",
            "who": "",
        }
    ]
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


def test_a_table_that_a_spreadsheet_saved_takes_more_answers(root):
    root.table.write_bytes("Video;Start;End;Label;Who is it\r\nmüller.mp4;0;1,5;jump;Ann\r\n".encode("utf-16"))
    write_answer(root.path, Stretch("b.mp4", 0.5, 1, "b"), "run")
    assert root.table.read_text() == (
        "video,start,end,label,Who is it,split,group\nmüller.mp4,0,1.5,jump,Ann,,\nb.mp4,0.5,1,run,,,b\n"
    )
    write_answer(root.path, Stretch("müller.mp4", 0, 1.5, ""), None)
    assert root.table.read_text() == "video,start,end,label,Who is it,split,group\nb.mp4,0.5,1,run,,,b\n"


FORMULAS = [
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "=cmd|' /C calc'!A0",
    "'=1",
    "''=1",
    "'quoted'",
    "'",
    "-jump.mp4",
    '="a,b"',
]


@pytest.mark.parametrize("cell", [*FORMULAS, "jump", "", "a=b", "1-2", "ü", "a\nb", 'a "b"'])
def test_a_cell_is_read_as_it_was_and_no_spreadsheet_runs_it(cell):
    assert from_text(as_text(cell)) == cell
    assert as_text(cell)[:1] not in ("=", "+", "-", "@", "\t", "\r")


def test_formulas_in_answers_are_text_in_the_file_and_come_back_as_they_were(root):
    names = [f"{cell}.mp4" for cell in FORMULAS if "/" not in cell and cell.strip() == cell and cell != "'"]
    for number, name in enumerate(names):
        root(name)
        write_answer(root.path, Stretch(name, 0, None, f"+group{number}"), f"@label {number}")
        write_answer(root.path, Stretch(name, 0, None, f"+group{number}"), f"=label {number}")
    cells = [cell for row in csv.reader(root.table.read_text().splitlines()) for cell in row]
    assert len(cells) == (len(names) + 1) * 6 and not [
        cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    ]
    assert labels(read_footage(root.path)) == {
        name: [Label(0.0, None, f"=label {number}", f"+group{number}")] for number, name in enumerate(names)
    }


def test_a_formula_that_somebody_typed_is_text_after_the_next_answer(root):
    root("review.csv", "video,start,end,label,=note\na.mp4,,,=1+1,@x\n")
    write_answer(root.path, Stretch("b.mp4", 0, None, "b"), "run")
    assert root.table.read_text() == "video,start,end,label,'=note,split,group\na.mp4,,,'=1+1,'@x,,\nb.mp4,,,run,,,b\n"


def answer_many(place, first, count):
    for number in range(first, first + count):
        write_answer(place, Stretch(f"{number}.mp4", 0, None, "g"), f"label {number}")


def check_writers(place, context, processes=3, count=20):
    """Let several processes answer at once; no answer is lost."""
    workers = [context.Process(target=answer_many, args=(place, count * number, count)) for number in range(processes)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * processes
    rows = list(csv.DictReader((read_bytes(f"{place}/review.csv") or b"").decode().splitlines()))
    assert sorted((row["video"], row["label"]) for row in rows) == sorted(
        (f"{number}.mp4", f"label {number}") for number in range(processes * count)
    )


def test_writers_at_the_same_time_lose_no_answer(tmp_path):
    check_writers(str(tmp_path), multiprocessing.get_context("spawn"))
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == ["review.csv"]


@pytest.mark.slow
def test_writers_to_a_bucket_lose_no_answer(monkeypatch):
    with s3_server() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        check_writers("s3://lab/footage", multiprocessing.get_context("spawn"))


@pytest.mark.parametrize(
    "content",
    [
        b"video,start,end,label\n" + b"x" * 200_000,
        b"\xff\xfe\x00",
        b'video,start,end,label\n"a',
        b"video,start,end,label\na\0b,,,x\n",
    ],
)
def test_a_table_that_is_damaged_stays_as_it_is(root, content):
    root.table.write_bytes(content)
    try:
        write_answer(root.path, Stretch("b.mp4", 0, None, "b"), "run")
    except InputError as error:
        assert "review.csv" in str(error) and root.table.read_bytes() == content
    else:
        assert root.table.read_text().endswith("b.mp4,,,run,,b\n")
