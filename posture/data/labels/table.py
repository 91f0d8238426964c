"""Read label tables as Excel, R, pandas, old Macs and people write them: text with one row per line.

Accepted are commas, semicolons, tabs and bars between cells, and spaces if the header is known; quotes; UTF-8, UTF-16
and UTF-32; all kinds of line ends; Excel's `sep=` line; blank lines; titles above the header; a header in any case;
decimal commas; R's row names.
"""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from posture.data.store.files import join, read_bytes
from posture.errors import InputError

SUFFIXES = frozenset({".csv", ".tsv", ".tab", ".txt"})
COLUMNS = {
    "segments": ("video", "start", "end", "label"),
    "kinetics": ("label", "youtube_id", "time_start", "time_end"),
    "boxes": ("video", "frame", "athlete", "x1", "y1", "x2", "y2"),
}
"""Required columns of each kind of table."""
OPTIONAL = {"segments": ("split", "group", "athlete"), "kinetics": ("split",), "boxes": ()}
SYNONYMS = {
    "video": ("file", "filename", "file_name", "filepath", "path", "video_file", "video_name", "video_path"),
    "start": ("start_time", "start_seconds", "start_sec", "start_s", "begin"),
    "end": ("end_time", "end_seconds", "end_sec", "end_s", "stop"),
    "label": ("class", "class_name", "action", "activity", "category"),
}
"""Other names of a column. They are accepted if the column itself is missing and only one of them is there."""
DELIMITERS = (",", ";", "\t", "|", " ")
MAX_LINES_ABOVE = 20
"""Maximum number of lines above the header: titles, dates, names of people."""
SEPARATOR_LINE = re.compile(r'\s*"?sep=(.)"?\s*', re.IGNORECASE)
SPACE_AFTER_QUOTE = re.compile(r'(?<=[^"])" +(?=[,;\t|]|$)')
NUMBER = re.compile(r"[+-]?(\d+[.,]?\d*|[.,]\d+)(e[+-]?\d+)?", re.IGNORECASE | re.ASCII)
FORMULA = re.compile(r"'*[=+\-@\t\r]")
"""Start of a cell that a spreadsheet runs as a formula, with or without apostrophes before it."""
THOUSANDS = re.compile(r"[+-]?\d{1,3},\d{3}", re.ASCII)
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
"""Byte order marks and their encodings. The mark of UTF-32 must come first: it begins like that of UTF-16."""
ARCHIVES = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
"""First bytes of spreadsheet files: .xlsx and .ods, .xls."""


@dataclass(frozen=True)
class TableLine:
    """File and line of a row, for messages, and the numbers in it."""

    file: str
    line: int
    delimiter: str = ","

    def __str__(self) -> str:
        return f"{self.file} line {self.line}"

    def number(self, name: str, text: str, what: str = "a number") -> float:
        """Return the number in a cell, written with a decimal point or comma.

        Raises InputError if it is not a number; `what` says what is expected.
        """
        text = text.strip()
        if self.delimiter == "," and THOUSANDS.fullmatch(text):
            raise InputError(f"{self}: {name} {text!r} is ambiguous; write it with a decimal point and without a comma")
        if not NUMBER.fullmatch(text):
            raise InputError(f"{self}: {name} {text[:40]!r} is not {what}")
        return float(text.replace(",", "."))

    def seconds(self, name: str, text: str) -> float | None:
        """Return a time in seconds, or None if the cell is empty."""
        if not text.strip():
            return None
        what = "a time in seconds, such as 12.5"
        value = self.number(name, text, what)
        if not 0 <= value < 1e7:
            raise InputError(f"{self}: {name} {text.strip()[:40]!r} is not {what}")
        return value


class Table:
    """A table.

    `kind` is the key of COLUMNS that its columns match, or None. `columns` are named as there. Raises InputError if the
    file is not text.
    """

    def __init__(self, name: str, content: bytes, where: str) -> None:
        self.name = name
        text, guessed = decode(content, where)
        self.notes = (
            [f"{name} is not UTF-8 and was read as {guessed}; save it as UTF-8 if names look wrong"] if guessed else []
        )
        self._lines, self._before, self.delimiter, titles = _header_at(text)
        if titles:
            self.notes.append(f"{name}: the header is line {self._before + 1}; the lines above it are not read")
        try:
            header = next(self._reader(strict=False), [])
        except csv.Error as error:
            raise InputError(f"{where}: not readable as a table: {error}") from None
        self.columns, self.kind, renamed = _known(tuple(map(_plain, header)))
        self.header = [from_text(cell.strip()) for cell in header]
        """The columns as the file names them."""
        self.notes += [f"{name}: the column {old} is read as {new}" for old, new in renamed.items()]

    def notes_for_user(self) -> list[str]:
        """Return sentences about how the table is read."""
        unused = [
            name for name in self.columns if name and self.kind and name not in COLUMNS[self.kind] + OPTIONAL[self.kind]
        ]
        return [
            *self.notes,
            *([f"{self.name}: not used: the column{'s' * (len(unused) != 1)} {', '.join(unused)}"] if unused else []),
        ]

    def require(self, kind: str, where: str) -> None:
        """Raise InputError, beginning with `where`, naming the first column of `kind` that the table lacks."""
        if self.kind != kind:
            lacking = next(name for name in COLUMNS[kind] if name not in self.columns)
            raise InputError(f"{where}: the column {lacking} is missing; its columns are {','.join(COLUMNS[kind])}")

    def rows(self) -> Iterator[tuple[TableLine, dict[str, str]]]:
        """Yield each row that is not empty, with its file and line. Missing cells are empty.

        Raises InputError naming the line if a quote is not closed, a cell is too long, or a row has more cells than the
        header.
        """
        repeated = [name for name, count in Counter(self.columns).items() if name and count > 1]
        if repeated:
            raise InputError(f"{self.name}: the column {repeated[0]} appears twice")
        reader = self._reader(strict=True)
        row_names: bool | None = None
        try:
            next(reader, None)
            for cells in reader:
                if not any(cell.strip() for cell in cells):
                    continue
                where = TableLine(self.name, self._before + reader.line_num, self.delimiter)
                if row_names is None:  # R writes a number before each row, with nothing above it
                    row_names = len(cells) == len(self.columns) + 1 and cells[0] == "1" and bool(cells[-1].strip())
                cells = cells[row_names:]
                if any(cell.strip() for cell in cells[len(self.columns) :]):
                    raise InputError(
                        f"{where}: {len(cells)} cells, but the header has {len(self.columns)}; quote a cell "
                        f"that contains {self.delimiter!r}"
                    )
                pairs = itertools.zip_longest(self.columns, cells[: len(self.columns)], fillvalue="")
                yield where, {name: from_text(cell.strip()) for name, cell in pairs if name}
        except csv.Error as error:
            raise InputError(
                f"{self.name} line {self._before + reader.line_num}: not readable as a table: {error}"
            ) from None

    def _reader(self, *, strict: bool) -> Any:
        self._lines.seek(0)
        for _ in range(self._before):
            next(self._lines)
        lines = (SPACE_AFTER_QUOTE.sub('"', line) for line in self._lines)
        return csv.reader(lines, delimiter=self.delimiter, skipinitialspace=True, strict=strict)


def table_of(source: str) -> tuple[str, str]:
    """Return the folder and the name of the table that `source` names. The name is empty if `source` is a folder."""
    if PurePosixPath(source).suffix.lower() not in SUFFIXES:
        return source, ""
    root, _, name = source.rpartition("/")
    return root, name


def read_table(root: str, name: str) -> Table:
    """Read the table at a path below `root`. Raises InputError if it is not text."""
    where = join(root, name)
    return Table(name, read_bytes(where) or b"", where)


def as_text(cell: str) -> str:
    """Return a cell as it is written: with an apostrophe if a spreadsheet would run it or `from_text` remove one."""
    return f"'{cell}" if FORMULA.match(cell) else cell


def from_text(cell: str) -> str:
    """Return the cell that `as_text` wrote."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell) else cell


def read_rows(root: str, name: str, kind: str) -> Iterator[tuple[TableLine, dict[str, str]]]:
    """Yield the rows of a table that must be of `kind`; none if the file is missing or empty. Raises InputError."""
    content = read_bytes(join(root, name))
    if content:
        table = Table(name, content, join(root, name))
        table.require(kind, join(root, name))
        yield from table.rows()


def decode(content: bytes, where: str) -> tuple[str, str]:
    """Return the text of a file, and its encoding if that was guessed, else "".

    Raises InputError, beginning with `where`, if it is not text.
    """
    encoding = next((name for mark, name in MARKS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        if encoding != "utf-8":
            raise InputError(
                f"{where}: it has the byte order mark of {encoding.removesuffix('-sig').upper()}, but is not such "
                "text; save it as UTF-8"
            ) from None
        text = ""
    if content.startswith(ARCHIVES):
        raise InputError(f"{where}: this is a spreadsheet or an archive, not text; save the table as CSV")
    if "\0" in text or (not text and b"\0" in content):
        raise InputError(
            f"{where}: it contains NUL bytes, so it is not text, or its encoding is unknown; save it as UTF-8"
        )
    if text or not content:
        return text, ""
    guess = "mac-roman" if b"\r" in content and b"\n" not in content else "cp1252"
    try:
        return content.decode(guess), {"cp1252": "Windows-1252", "mac-roman": "Mac Roman"}[guess]
    except UnicodeDecodeError:
        return content.decode("latin-1"), "ISO 8859-1"


def _header_at(text: str) -> tuple[io.StringIO, int, str, bool]:
    """Find the header: return the lines, the number of lines above it, the delimiter, and True if titles are above it.

    The header is the first line with all columns of a kind, else the first line.
    """
    lines = io.StringIO(text, newline=None)
    given = ""
    first: tuple[int, str] | None = None
    for before, line in enumerate(lines):
        if first and before - first[0] > MAX_LINES_ABOVE:
            break
        if match := SEPARATOR_LINE.fullmatch(line):
            given = given or match[1]
        elif line.lstrip().startswith("#") and _known_cells(line, _delimiter(line)) < 2:
            pass  # a comment
        elif line.strip("".join(DELIMITERS) + "\n\ufeff"):
            delimiter = given or _delimiter(line)
            if _known(_columns(line, delimiter))[1]:
                return lines, before, delimiter, first is not None
            first = first or (before, delimiter)
    before, delimiter = first or (text.count("\n"), given or ",")
    return lines, before, delimiter, False


def _delimiter(header: str) -> str:
    """Return the delimiter that gives most known columns, else most columns. A space needs known ones."""
    return max(
        DELIMITERS,
        key=lambda delimiter: (_known_cells(header, delimiter), header.count(delimiter) if delimiter != " " else 0),
    )


def _known_cells(header: str, delimiter: str) -> int:
    """Return how many known columns the header has."""
    names = {name for columns in (*COLUMNS.values(), *OPTIONAL.values(), *SYNONYMS.values()) for name in columns}
    return len(names.intersection(_columns(header, delimiter)))


def _columns(header: str, delimiter: str) -> tuple[str, ...]:
    """Return the columns that a line names; none if a cell is too long."""
    try:
        return tuple(map(_plain, next(csv.reader([header], delimiter=delimiter, skipinitialspace=True))))
    except csv.Error:
        return ()


def _plain(cell: str) -> str:
    """Return a column's name without case, quotes and unit: ` "Start (s)"` -> `start`."""
    name = unicodedata.normalize("NFC", cell).strip(" \t\n\"'#\ufeff").casefold()
    return re.sub(r"[\s-]+", "_", re.sub(r"\s*[(\[](s|sec|seconds)[)\]]$", "", name))


def _known(columns: tuple[str, ...]) -> tuple[tuple[str, ...], str | None, dict[str, str]]:
    """Return the columns under their usual names, the table's kind, and the columns that were renamed."""
    for kind, needed in COLUMNS.items():
        if set(needed) <= set(columns):
            return columns, kind, {}
    for kind, needed in COLUMNS.items():
        others = {
            name: [column for column in columns if column in SYNONYMS.get(name, ())]
            for name in needed
            if name not in columns
        }
        if all(len(found) == 1 for found in others.values()):
            renamed = {found[0]: name for name, found in others.items()}
            return tuple(renamed.get(column, column) for column in columns), kind, renamed
    return columns, None, {}
