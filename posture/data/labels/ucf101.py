"""UCF101's lists of videos, such as `trainlist01.txt`: one `Class/video.avi` per line, perhaps with a class number."""

from __future__ import annotations

import io
import re

from posture.data.labels.table import TableLine, decode
from posture.data.store.files import File, join, read_bytes
from posture.errors import InputError

LIST = re.compile(r"(train|val|test)list_?(\d*)\.txt", re.IGNORECASE)
CLASS_NUMBER = re.compile(r"(.*\S)[\s,;]+\d+")


def is_list(file: File) -> bool:
    """Return True if a file has the name of a list of videos."""
    return LIST.fullmatch(file.name) is not None


def lists_of(files: list[File], number: int) -> dict[str, File]:
    """Return the lists of split `number` under the keys `train`, `val` and `test`.

    A list without a number belongs to the first split. Raises InputError if two lists are the same part.
    """
    found: dict[str, File] = {}
    for file in files:
        match = LIST.fullmatch(file.name)
        if match and int(match[2] or 1) == number:
            split = match[1].lower()
            if split in found:
                raise InputError(
                    f"{found[split].relative} and {file.relative} are both the {split} list of split {number}; "
                    "give the folder of one data set"
                )
            found[split] = file
    return found


def listed(root: str, name: str) -> tuple[list[tuple[TableLine, list[str]]], str]:
    """Return the names that each line of a list may mean, the most likely last, and the list's encoding if it was
    guessed.

    A line may be a name, or a name and a class number. Raises InputError if the file is not text.
    """
    text, guessed = decode(read_bytes(join(root, name)) or b"", join(root, name))
    lines = [
        (TableLine(name, number), line.strip())
        for number, line in enumerate(io.StringIO(text, newline=None), start=1)
        if line.strip()
    ]
    return [
        (where, [_path(line), *(_path(match[1]) for match in [CLASS_NUMBER.fullmatch(line)] if match)])
        for where, line in lines
    ], guessed


def _path(text: str) -> str:
    return text.strip(" \t\"',;").replace("\\", "/")
