"""Write answers from `posture review` to review.csv beside the footage, in the layout `segments`.

A row is a segment of a video with its label. An empty label means that the segment shows nothing to learn from; it is
not asked about again. People may edit the file: existing columns and rows are kept. Several people may answer at once,
in a folder or a bucket, and no answer is lost. A cell that a spreadsheet would run as a formula is written with an
apostrophe, which is removed when it is read.
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
MAX_LABEL_LENGTH = 100


@dataclass(frozen=True)
class Stretch:
    """A segment of one video that is asked about. It reaches the video's end if `end` is None."""

    video: str
    """Path below the footage's root."""
    start: float
    """Seconds."""
    end: float | None
    group: str
    """Group that stays in one split: all segments of a video, or of an athlete."""

    @property
    def times(self) -> tuple[str, str]:
        """Return `start` and `end` as the file writes them; both are empty for the whole video."""
        whole = self.start == 0 and self.end is None
        return "" if whole else _seconds(self.start), "" if self.end is None else _seconds(self.end)


def write_answer(root: str, stretch: Stretch, label: str | None) -> None:
    """Write the answer for `stretch` to review.csv, in place of an earlier one. None removes the answer.

    A reader sees the old file or the new one. Raises InputError, and leaves the file as it was, if it is not a table of
    answers or cannot be written.
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
    """Return the label as it is stored. Raises InputError if it is not a label."""
    if not isinstance(label, str) or not label.strip():
        raise InputError("a label needs at least one character")
    label = " ".join(label.split())
    if len(label) > MAX_LABEL_LENGTH or not label.isprintable():
        raise InputError(f"a label is one line of at most {MAX_LABEL_LENGTH} characters")
    return label


def _seconds(value: float) -> str:
    """Return seconds with at most three decimals, without trailing zeros."""
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
    if table.delimiter != ",":  # spreadsheets write semicolons where the comma is the decimal sign
        rows = [row | {name: row[name].replace(",", ".") for name in ("start", "end")} for row in rows]
    columns = [name for name in columns if name]
    return columns + [name for name in COLUMNS if name not in columns], rows
