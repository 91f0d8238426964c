"""Files of the inbox that are complete; a file that is still being copied is left for the next pass.

A file has settled if its last change is more than `settle` seconds ago, and if two looks at it are the same. A copied
file may have a time in the future, and clocks may jump: such a file has settled if passes at least `settle` seconds
apart, by this machine's clock, found the same size and time.
"""

# what may be None here depends on other values
# pyright: reportOptionalSubscript=false

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from posture.data.store.files import File

LOOK_AGAIN_SECONDS = 2.0
"""Seconds between the two looks of one pass."""

Looks = dict[str, dict[str, Any]]
"""Last look at files that have not settled, by uri: {bytes, modified, since}."""


def settled(
    first: Iterable[File],
    look_again: Callable[[], Iterable[File]],
    before: Looks,
    *,
    settle: float,
    now: float | None = None,
) -> tuple[set[str], Looks]:
    """Return the uris of the files that have settled, and the looks at the others for the next pass.

    `before` has the looks of the last pass. `look_again` lists the same files once more; it is called only if some
    could have settled. With `settle` 0 all files have settled.
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
    """Return this look at the file; `since` starts again if the file changed, or if the clock was set back."""
    same = (
        before is not None
        and (before["bytes"], before["modified"]) == (file.bytes, file.modified)
        and before["since"] <= now
    )
    return {"bytes": file.bytes, "modified": file.modified, "since": before["since"] if same else now}
