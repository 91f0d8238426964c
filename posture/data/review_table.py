"""What people answered in `posture review`: the file review.csv beside the footage, in the layout `segments`.

A row is a stretch of a video with its label; one whose label is empty shows nothing to learn from, and is not asked about again. A person may
edit the file: columns and rows that are there already stay as they are.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import Any

from posture.data.files import join, read_bytes, write_bytes
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
    """Put the answer for `stretch` into review.csv, in place of an earlier one; None takes the answer away. A reader sees the old file or the new one."""
    columns, rows = _read(root)
    key = (stretch.video, *stretch.times)
    kept = [row for row in rows if (row["video"].strip(), row["start"].strip(), row["end"].strip()) != key]
    if label is not None:
        start, end = stretch.times
        kept.append({"video": stretch.video, "start": start, "end": end, "label": label, "split": "", "group": stretch.group})
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(kept)
    write_bytes(join(root, REVIEWED), text.getvalue().encode())


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


def _read(root: str) -> tuple[list[str], list[dict[str, str]]]:
    content = read_bytes(join(root, REVIEWED))
    if content is None:
        return list(COLUMNS), []
    try:
        reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig")), skipinitialspace=True)
    except UnicodeDecodeError:
        raise InputError(f"{join(root, REVIEWED)}: the file is not UTF-8 text") from None
    columns = [(name or "").strip() for name in reader.fieldnames or ()]
    if missing := [name for name in ("video", "start", "end", "label") if name not in columns]:
        raise InputError(f"{join(root, REVIEWED)}: the column {missing[0]} is missing; its columns are {','.join(COLUMNS)}")
    rows = [{(key or "").strip(): value or "" for key, value in row.items() if isinstance(value, str | None)} for row in reader]
    return columns + [name for name in COLUMNS if name not in columns], rows
