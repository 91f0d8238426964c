"""Tables beside videos that are not read. Those that seem to hold labels stop the ingest; the others are reported."""

from __future__ import annotations

import csv
import html
import io
import re
import zipfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from posture.data.labels.names import VideoNames, first_few
from posture.data.labels.table import COLUMNS, DELIMITERS, SUFFIXES, Table, decode, read_table
from posture.data.store.files import File, join, read_bytes
from posture.errors import InputError

SPREADSHEETS = frozenset({".xlsx", ".xlsm", ".xls", ".ods", ".numbers"})
MAX_TEXTS = 200
"""Maximum number of .txt files that are opened to see if they are tables."""
MAX_BYTES = 1 << 30
DOCUMENTS = frozenset({".json", ".jsonl", ".ndjson", ".xml", ".eaf", ".yaml", ".yml"})
"""Files in which other programs keep labels of videos. No layout reads them."""
MAX_DOCUMENTS = 50
MIN_NAME_LENGTH = 5
"""Minimum characters of a word in such a file to be compared with video names."""
MAX_SHEET_BYTES = 4 << 20
LINES_LOOKED_AT = 200


def open_tables(root: str, files: Iterable[File]) -> tuple[list[Table], dict[str, str]]:
    """Return the tables among the files, and for each file that cannot be opened, its path and the reason."""
    tables: list[Table] = []
    broken: dict[str, str] = {}

    def opened(file: File) -> Table | InputError:
        try:
            if file.bytes > MAX_BYTES:
                raise InputError(
                    f"{join(root, file.relative)}: {file.bytes:,} bytes; a table may have at most {MAX_BYTES:,}"
                )
            return read_table(root, file.relative)
        except InputError as error:
            return error

    chosen = _examined(files)
    with ThreadPoolExecutor(max_workers=8) as pool:
        for file, found in zip(chosen, pool.map(opened, chosen), strict=True):
            if isinstance(found, Table):
                tables.append(found)
            else:
                broken[file.relative] = str(found)
    return tables, broken


def unread(
    root: str,
    tables: list[Table],
    broken: dict[str, str],
    files: list[File],
    names: VideoNames,
    *,
    layout: str,
    guessed: bool,
) -> list[str]:
    """Return sentences about the tables that are not read as labels of this `layout`.

    Raises InputError if the layout is `guessed` and a table may hold the labels: it cannot be opened, has some columns
    of a label table, or (layout `folders`) names videos.
    """
    strange = {table.name: ",".join(filter(None, table.columns))[:200] for table in tables if table.kind is None}
    lacking = [table.name for table in tables if table.name in strange and _has_label_columns(table)]
    naming = [
        table.name
        for table in tables
        if table.name in strange and table.name not in lacking and _names_videos(root, table, names)
    ]
    sheets = [file for file in files if file.suffix in SPREADSHEETS]
    documents = [file for file in _documents(files) if _names_several(file, names)] if layout == "folders" else []
    if guessed:
        for message in (message for name, message in broken.items() if not _is_text(name)):
            raise InputError(message)
        _refuse_suspects(
            root, strange, [*lacking, *(naming if layout == "folders" else ())], sheets, documents, names, layout
        )
    notes = [
        f"{name} was not read: it seems to hold labels, but its columns are {strange[name]}"
        for name in lacking + naming
    ]
    notes += [f"{file.relative} was not read: it names videos that are here" for file in documents]
    others = [table.name for table in tables if table.kind not in (None, "boxes", layout)]
    if others:
        notes.append(f"not read, because the layout is {layout}: {first_few(others)}")
    quiet = [name for name in [*strange, *broken] if name not in lacking + naming and not _is_text(name)] + [
        file.relative for file in sheets
    ]
    if quiet:
        notes.append(
            f"not read, because they are not label tables: {first_few(quiet)}"
            + ("; save a spreadsheet that holds labels as CSV" if sheets else "")
        )
    skipped = sum(_is_text(file.relative) for file in files) - MAX_TEXTS
    return notes + ([f"{skipped:,} of the .txt files were not examined"] if skipped > 0 else [])


def _refuse_suspects(
    root: str,
    strange: dict[str, str],
    tables: list[str],
    sheets: list[File],
    documents: list[File],
    names: VideoNames,
    layout: str,
) -> None:
    """Raise InputError naming the first file that may hold the labels. `strange` are the columns of unknown tables."""
    suspects = {
        name: f"this seems to be a label table, but its columns are {strange[name]}; rename them to" for name in tables
    }
    if layout == "folders":
        for file in (file for file in sheets if _sheet_names_videos(file, names)):
            suspects[file.relative] = "this spreadsheet names videos that are here; save it as CSV with the columns"
    for file in documents:
        suspects[file.relative] = (
            "this file names videos that are here, but no layout reads it; write a CSV with the columns"
        )
    for name, message in suspects.items():
        raise InputError(
            f"{join(root, name)}: {message} {','.join(COLUMNS['segments'])} or {','.join(COLUMNS['kinetics'])}, "
            f"or leave it out with --layout {layout}"
        )


def _examined(files: Iterable[File]) -> list[File]:
    """Return all tables, and of the .txt files those nearest to the root."""
    tables = [file for file in files if file.suffix in SUFFIXES]
    texts = sorted(
        (file for file in tables if _is_text(file.relative)), key=lambda file: (file.relative.count("/"), file.relative)
    )
    return [file for file in tables if not _is_text(file.relative)] + texts[:MAX_TEXTS]


def _is_text(name: str) -> bool:
    return name.lower().endswith(".txt")


def _has_label_columns(table: Table) -> bool:
    """Return True if the table has two or more columns of a label table, which is too many for chance."""
    return len(set(COLUMNS["segments"] + COLUMNS["kinetics"]).intersection(table.columns)) > 1


def _names_videos(root: str, table: Table, names: VideoNames) -> bool:
    """Return True if at least 80 % of its first lines, without the header, name a video that is here."""
    text, _ = decode(read_bytes(join(root, table.name)) or b"", table.name)
    lines = [line for line in text[: 1 << 20].splitlines()[:LINES_LOOKED_AT] if line.strip()]
    naming = sum(any(names.candidates(cell, table.name) for cell in _cells(line)) for line in lines)
    return naming >= max(1, 0.8 * (len(lines) - 1))


def _sheet_names_videos(file: File, names: VideoNames) -> bool:
    """Return True if a text in the first pages of an .xlsx or .ods file is the name of a video that is here."""
    left = MAX_SHEET_BYTES
    try:
        with zipfile.ZipFile(io.BytesIO(read_bytes(file.uri) or b"")) as book:
            for member in book.namelist():
                if left > 0 and member.endswith(".xml"):
                    with book.open(member) as page:
                        text = page.read(left).decode("utf-8", errors="replace")
                    left -= len(text)
                    if any(
                        names.candidates(html.unescape(cell), file.relative) for cell in re.findall(r">([^<>]+)<", text)
                    ):
                        return True
    except Exception:  # zipfile raises many kinds of errors for damaged files
        return False
    return False


def _documents(files: list[File]) -> list[File]:
    """Return the largest JSON, XML and YAML files: small ones beside each video describe only that video."""
    found = [file for file in files if file.suffix in DOCUMENTS]
    return sorted(found, key=lambda file: (-file.bytes, file.relative))[:MAX_DOCUMENTS]


def _names_several(file: File, names: VideoNames) -> bool:
    """Return True if a file that is not a table names two videos that are here, or the only one.

    CVAT's XML is excepted: it says where athletes are, not what they do.
    """
    text = (read_bytes(file.uri) or b"")[: 1 << 20].decode("utf-8", errors="replace")
    words = {word.strip() for word in re.split(r"[\"'<>\n:,\[\]{}]+", text) if len(word.strip()) >= MIN_NAME_LENGTH}
    found = {video.uri for word in words for video in names.candidates(word, file.relative)}
    return len(found) >= min(2, names.count) and re.search(r"<annotations[\s>]", text) is None


def _cells(line: str) -> set[str]:
    """Return possible cells of the line. Between spaces only the first counts, because prose may name a video too."""
    try:
        cells = {
            delimiter: next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
            for delimiter in DELIMITERS
        }
        return {cell for delimiter, found in cells.items() for cell in (found[:1] if delimiter == " " else found)}
    except csv.Error:
        return set()
