"""Which files of a drop folder are whole: a file that is still being copied is left for the next pass.

A file has settled when it was changed last more than `settle` seconds ago, and nothing of it changes while it is looked
at twice. Copies may bring a time along that lies in the future, or clocks may jump: such a file has settled when passes
that lie `settle` seconds apart, by the clock of this machine, found the same size and time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from posture.data.store.files import File

LOOK_AGAIN_SECONDS = 2.0
"""Between the two looks of one pass."""

Looks = dict[str, dict[str, Any]]
"""What was seen of files that had not settled, by uri: {bytes, modified, since}."""


def settled(
    first: Iterable[File],
    look_again: Callable[[], Iterable[File]],
    before: Looks,
    *,
    settle: float,
    now: float | None = None,
) -> tuple[set[str], Looks]:
    """The uris of those of the files `first` that have settled; and what is to be remembered of the others until the
    next pass.

    `before` is what the last pass remembered; `look_again` lists the same files once more, and is called only where
    some could have settled. Where nothing need be waited for (`settle` 0), all have.
    """
    files, now = list(first), time.time() if now is None else now
    if not settle:
        return {file.uri for file in files}, {}
    looks = {file.uri: _look(file, before.get(file.uri), now) for file in files}
    quiet = {
        file.uri
        for file in files
        if (now - file.modified if file.modified <= now else now - looks[file.uri]["since"]) >= settle
    }
    if quiet:
        time.sleep(min(settle, LOOK_AGAIN_SECONDS))
        seen = {file.uri: (file.bytes, file.modified) for file in look_again()}
        quiet = {file.uri for file in files if file.uri in quiet and seen.get(file.uri) == (file.bytes, file.modified)}
    return quiet, {uri: look for uri, look in looks.items() if uri not in quiet}


def _look(file: File, before: dict[str, Any] | None, now: float) -> dict[str, Any]:
    """When this state of the file was seen first; a time that has not come yet is of a clock that has gone back since."""
    same = (
        before is not None
        and (before["bytes"], before["modified"]) == (file.bytes, file.modified)
        and before["since"] <= now
    )
    return {"bytes": file.bytes, "modified": file.modified, "since": before["since"] if same else now}
