import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from posture.data.labels.table import TableLine, read_rows, read_table
from posture.data.labels.videos import read_footage
from posture.errors import InputError

ROWS = [("müller.mp4", 0.0, 1.5, "jump"), ("b c.mp4", 1.25, 2.0, "throw, far")]


def read(tmp_path, content, name="labels.csv"):
    """Return the rows of a table of segments as (video, start, end, label), and the notes about it."""
    (tmp_path / name).write_bytes(content)
    table = read_table(str(tmp_path), name)
    assert table.kind == "segments", table.columns
    return [
        (row["video"], where.seconds("start", row["start"]), where.seconds("end", row["end"]), row["label"])
        for where, row in table.rows()
    ], table.notes_for_user()


def written(delimiter=",", *, comma=False, header="video,start,end,label", ends="\n"):
    lines = [header.replace(",", delimiter)]
    for video, start, end, label in ROWS:
        numbers = [f"{value:g}".replace(".", "," if comma else ".") for value in (start, end)]
        lines.append(delimiter.join(f'"{cell}"' if delimiter in cell else cell for cell in (video, *numbers, label)))
    return ends.join(lines) + ends


@pytest.mark.parametrize(
    ("delimiter", "comma", "ends", "encoding"),
    itertools.product(
        (",", ";", "\t", "|"), (False, True), ("\n", "\r\n", "\r"), ("utf-8", "utf-8-sig", "utf-16", "utf-32")
    ),
)
def test_every_delimiter_decimal_sign_line_end_and_announced_encoding(tmp_path, delimiter, comma, ends, encoding):
    assert read(tmp_path, written(delimiter, comma=comma, ends=ends).encode(encoding)) == (ROWS, [])


@pytest.mark.parametrize(
    "text",
    [
        written(header="Video,START,End,Label"),
        written(header=' video , "start" ,end,label ').replace("\n", " \n"),
        written(header="video,start (s),end [s],label"),
        "\n \n" + written(),
        ";;;\nsep=;\n" + written(";"),
        "# labelled by Ann, in May\n#\n" + written(),
        "#" + written(),
        '"sep=|"\r\n' + written("|", ends="\r\n"),
        written().replace("\n", ",\n"),
        written(";").replace("\n", ";;\n"),
        '"video" "start" "end" "label"\n"1" "müller.mp4" 0 1.5 "jump"\n"2" "b c.mp4" 1.25 2 "throw, far"\n',
        '"";"video";"start";"end";"label"\n"1";"müller.mp4";0;1,5;"jump"\n"2";"b c.mp4";1,25;2;"throw, far"\n',
        ',video,start,end,label\n0,müller.mp4,0,1.5,jump\n1,b c.mp4,1.25,2.0,"throw, far"\n',
        'label,video,end,start\njump,müller.mp4,1.5,\n\n,,,\n"throw, far",b c.mp4,2,"1,25"\n'.replace(
            "1.5,\n", "1.5,0\n"
        ),
    ],
    ids=[
        "capitals",
        "spaces",
        "units",
        "blank",
        "sep",
        "comments",
        "commented header",
        "quoted sep",
        "trailing",
        "two trailing",
        "R write.table",
        "R write.csv2",
        "pandas",
        "order",
    ],
)
def test_as_programs_and_people_write_them(tmp_path, text):
    assert read(tmp_path, text.encode()) == (ROWS, [])


@pytest.mark.parametrize(
    ("above", "delimiter"),
    [
        ("Labels of May\n\n", ","),
        ("Labels of May;;;\n;;;\n", ";"),
        ("Spring meeting, day 1, by Ann\n2024-05-01\n", "\t"),
        ('sep=;\n"Video labels, of May"\n', ";"),
        ("x\n" * 20, ","),
    ],
)
def test_titles_above_the_header_are_passed_over_and_told(tmp_path, above, delimiter):
    line = above.count("\n") + 1
    assert read(tmp_path, (above + written(delimiter)).encode()) == (
        ROWS,
        [f"labels.csv: the header is line {line}; the lines above it are not read"],
    )
    with pytest.raises(InputError, match=f"^labels.csv line {line + 1}: end 'x' is not a time"):
        read(tmp_path, (above + written(delimiter).replace("1.5", "x")).encode())


def test_a_header_is_looked_for_in_the_first_lines_alone(tmp_path):
    (tmp_path / "labels.csv").write_text("x\n" * 21 + written())
    assert read_table(str(tmp_path), "labels.csv").columns == ("x",)


def test_an_encoding_that_is_not_announced_is_guessed_and_told(tmp_path):
    for encoding, ends, name in (("cp1252", "\n", "Windows-1252"), ("mac-roman", "\r", "Mac Roman")):
        rows, told = read(tmp_path, written(ends=ends).encode(encoding))
        assert rows == ROWS and told == [
            f"labels.csv is not UTF-8 and was read as {name}; save it as UTF-8 if names look wrong"
        ]


def test_other_names_of_a_column_are_told_and_never_guessed_among_several(tmp_path):
    assert read(tmp_path, written(header="File Name,start_time,end_sec,class").encode()) == (
        ROWS,
        [
            f"labels.csv: the column {old} is read as {new}"
            for new, old in (("video", "file_name"), ("start", "start_time"), ("end", "end_sec"), ("label", "class"))
        ],
    )
    rows, told = read(tmp_path, b"video,start,end,label,class,fps\na.mp4,0,1,jump,sports,25\n")
    assert rows == [("a.mp4", 0, 1, "jump")] and told == ["labels.csv: not used: the columns class, fps"]
    (tmp_path / "two.csv").write_bytes(b"video,start,end,class,action\na.mp4,0,1,jump,run\n")
    assert read_table(str(tmp_path), "two.csv").kind is None


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (
            b"video,start,end,label\na.mp4,0,1,5,jump\n",
            r"labels.csv line 2: 5 cells, but the header has 4; quote a cell that contains ','",
        ),
        (
            b'video,start,end,label\na.mp4,0,1,"jump\nb.mp4,0,1,run\n',
            "labels.csv line 3: not readable as a table: unexpected end of data",
        ),
        (
            b"video,start,end,label\na.mp4,0,1," + b"x" * 131_073 + b"\n",
            r"labels.csv line 2: not readable as a table: field larger than field limit \(131072\)",
        ),
        (b"x" * 131_073 + b",label\n", r"labels.csv: not readable as a table: field larger than field limit"),
        (b"video,start,end,label,Label\na.mp4,0,1,a,b\n", "labels.csv: the column label appears twice"),
        (
            b"PK\x03\x04" + bytes(100),
            "labels.csv: this is a spreadsheet or an archive, not text; save the table as CSV",
        ),
        ("video,start,end,label\n".encode("utf-16-le"), "labels.csv: it contains NUL bytes"),
        (b"\xff\xfev", "labels.csv: it has the byte order mark of UTF-16, but is not such text; save it as UTF-8"),
        (b'video,start,end,label\na.mp4,0,"1,500",jump\n', "labels.csv line 2: end '1,500' is ambiguous"),
        (
            b"video;start;end;label\na.mp4;0;1.500,5;jump\n",
            "labels.csv line 2: end '1.500,5' is not a time in seconds, such as 12.5",
        ),
        (b"video,start,end,label\na.mp4,0,1_0,jump\n", "labels.csv line 2: end '1_0' is not a time"),
        ("video,start,end,label\na.mp4,0,１２,jump\n".encode(), "labels.csv line 2: end '１２' is not a time"),
        (b"video,start,end,label\na.mp4,0,1e999,jump\n", "labels.csv line 2: end '1e999' is not a time"),
        (b"video,start,end,label\na.mp4,0,0:12,jump\n", "labels.csv line 2: end '0:12' is not a time"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(tmp_path, content, complaint):
    with pytest.raises(InputError, match=f"^(.*/)?{complaint}") as raised:
        read(tmp_path, content)
    assert "\n" not in str(raised.value)


JUNK = [
    '"',
    "'",
    "\r",
    "\n",
    "\0",
    ",",
    ";",
    "\t",
    "|",
    "\ufeff",
    "sep=;\n",
    "-1",
    "1e999",
    "nan",
    " ",
    "\x1b[31m",
    "9" * 500,
    "x" * 140_000,
    "\u2028",
    "..",
    "/",
    "\\",
    "é",
    "label",
    "1,5",
]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["labels.csv", "trainlist01.txt", "review.csv", "boxes.csv", "k.tsv"]),
    st.sampled_from(["utf-8", "utf-16", "cp1252", "latin-1"]),
    st.sampled_from([
        written(),
        written(";"),
        "label,youtube_id,time_start,time_end\njump,b c,0,1\n",
        "jump/a.mp4 1\n",
    ]),
    st.lists(st.tuples(st.sampled_from(JUNK), st.floats(0, 1)), max_size=5),
    st.floats(0, 1),
)
def test_whatever_a_table_holds_it_is_read_or_refused_in_a_sentence(tmp_path, name, encoding, text, junk, end):
    for video in ("müller.mp4", "jump/b c.mp4"):
        (tmp_path / video).parent.mkdir(exist_ok=True)
        (tmp_path / video).touch()
    for piece, share in junk:
        place = round(share * len(text))
        text = text[:place] + piece + text[place:]
    content = text.encode(encoding, errors="replace")
    (tmp_path / name).write_bytes(content[: round((0.5 + end) * len(content))])
    try:
        footage = read_footage(str(tmp_path))
    except InputError as error:
        assert str(error)
    else:
        assert footage.videos and all(
            label.label and label.start >= 0 for video in footage.videos for label in video.labels
        )
    finally:
        (tmp_path / name).unlink()


def test_a_semicolon_says_what_three_digits_after_a_comma_are(tmp_path):
    assert read(tmp_path, b"video;start;end;label\na.mp4;0;1,500;jump\n")[0] == [("a.mp4", 0.0, 1.5, "jump")]
    assert TableLine("x", 1, ";").number("x1", "-,5") == -0.5


def test_a_table_that_must_be_of_a_kind(tmp_path):
    assert list(read_rows(str(tmp_path), "none.csv", "segments")) == []
    (tmp_path / "empty.csv").touch()
    assert list(read_rows(str(tmp_path), "empty.csv", "segments")) == []
    (tmp_path / "other.csv").write_text("video,start,end\n")
    with pytest.raises(
        InputError, match=r"other\.csv: the column label is missing; its columns are video,start,end,label"
    ):
        list(read_rows(str(tmp_path), "other.csv", "segments"))
