"""What people answered in `posture review`: the file review.csv beside the footage, in the layout `segments`.

A row is a stretch of a video with its label; one whose label is empty shows nothing to learn from, and is not asked
about again. A person may edit the file: columns and rows that are there already stay. Several people may answer at
once, in a folder and in a bucket: no answer is lost. A cell that a spreadsheet would run as a formula is written with
an apostrophe before it, and read without.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import Any

from posture.data.labels.table import Table, as_text
from posture.data.store.files import join, update_bytes
from posture.errors import InputError

REVIEWED = "review.csv"
COLUMNS = ("video", "start", "end", "label", "split", "group")
LONGEST_LABEL = 100


@dataclass(frozen=True)
class Stretch:
    """A part of one video that is asked about; `end` None: to the video's end."""

    video: str
    """Path below the footage's root."""
    start: float
    """Seconds."""
    end: float | None
    group: str
    """What never stands on two sides of a split: all stretches of one video, or of one athlete."""

    @property
    def times(self) -> tuple[str, str]:
        """`start` and `end` as the file has them; both empty for the whole video."""
        whole = self.start == 0 and self.end is None
        return "" if whole else _seconds(self.start), "" if self.end is None else _seconds(self.end)


def write_answer(root: str, stretch: Stretch, label: str | None) -> None:
    """Put the answer for `stretch` into review.csv, in place of an earlier one; None takes the answer away. A reader
    sees the old file or the new one.

    Raises InputError if the file is no table of answers, or cannot be written; it is then as it was.
    """
    update_bytes(join(root, REVIEWED), lambda content: _answered(content, join(root, REVIEWED), stretch, label))


def _answered(content: bytes | None, where: str, stretch: Stretch, label: str | None) -> bytes:
    columns, rows = _read(content, where)
    key = (stretch.video, *stretch.times)
    kept = [row for row in rows if (row["video"].strip(), row["start"].strip(), row["end"].strip()) != key]
    if label is not None:
        start, end = stretch.times
        kept.append({
            "video": stretch.video,
            "start": start,
            "end": end,
            "label": label,
            "split": "",
            "group": stretch.group,
        })
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(as_text, columns))
    writer.writerows([as_text(row.get(name, "")) for name in columns] for row in kept)
    return text.getvalue().encode()


def checked_label(label: Any) -> str:
    """The label as it is stored. Raises InputError where it is none."""
    if not isinstance(label, str) or not label.strip():
        raise InputError("a label needs at least one letter")
    label = " ".join(label.split())
    if len(label) > LONGEST_LABEL or not label.isprintable():
        raise InputError(f"a label is one line of at most {LONGEST_LABEL} letters")
    return label


def _seconds(value: float) -> str:
    """To the millisecond, without trailing zeros."""
    return f"{value:.3f}".rstrip("0").rstrip(".")


def _read(content: bytes | None, where: str) -> tuple[list[str], list[dict[str, str]]]:
    if content is None:
        return list(COLUMNS), []
    table = Table(REVIEWED, content, where)
    table.require("segments", where)
    known = {*COLUMNS, ""}
    columns = [name if name in known else title for name, title in zip(table.columns, table.header, strict=True)]
    rows = [
        {title: row[name] for name, title in zip(table.columns, columns, strict=True) if name}
        for _, row in table.rows()
    ]
    if table.delimiter != ",":  # as spreadsheets write tables where a comma divides a number
        rows = [row | {name: row[name].replace(",", ".") for name in ("start", "end")} for row in rows]
    columns = [name for name in columns if name]
    return columns + [name for name in COLUMNS if name not in columns], rows
