"""One writer at a time, on a folder or a bucket, with a time limit: a crashed holder is taken over.

The lease is a numbered log of small files, each created only if it does not exist yet (the one conditional write that a
local disk and S3 both have). The highest number counts; whoever creates the next one holds the lease, or still holds
it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import threading
import time
import uuid
from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict  # pydantic takes no other before Python 3.12

from posture.data.store.checked import Seconds, checked_json, path_below, refuse_links
from posture.data.store.files import exists, is_remote, open_root, reachable
from posture.errors import Busy, InputError

LIMIT_SECONDS = 60.0
LONGEST_SECONDS = 86400.0
"""A lease that ends later was not written by this program, or by a clock that is days off."""
HIGHEST = 10**11
"""Number of a file of the log: one a second would take 3,000 years."""
NUMBERED = re.compile(r"(\d{12})\.json")


class LeaseEntry(TypedDict):
    """A file of the log."""

    holder: str
    host: str
    machine: str
    process: Annotated[int, Field(ge=1, lt=2**31)]
    expires: Seconds


class Lease:
    """Holds `<root>/_lease` while in a `with` block, renewed in the background. Raises Busy where somebody else holds
    it.

    `who` and `place` say in errors who else that is, and where.
    """

    def __init__(
        self, root: str, *, limit_seconds: float = LIMIT_SECONDS, who: str = "ingest", place: str = "store"
    ) -> None:
        self.root, self._who, self._place = root, who, place
        self.holder = uuid.uuid4().hex
        self._limit = limit_seconds
        self._folder = path_below(root, "_lease")
        if not is_remote(root):
            refuse_links(self._folder)
        self._files = open_root(self._folder, create=True)
        self._number = 0
        self._stop = threading.Event()
        self._lost = False
        self._renewer: threading.Thread | None = None

    def __enter__(self) -> Lease:
        with reachable(self.root):
            number, entry = self._latest()
        if entry and entry["expires"] > time.time() and not _died_here(entry):
            wait = max(1, round(entry["expires"] - time.time()))
            raise Busy(
                f"{self.root}: another {self._who} is writing to this {self._place} ({entry['host']}, process {entry['process']}); "
                f"try again when it has ended, or in {wait} s if it was killed"
            )
        with reachable(self.root, "written"):
            created = self._create(number + 1, self._limit)
        if not created:
            raise Busy(
                f"{self.root}: another {self._who} has just begun to write to this {self._place}; try again when it has ended"
            )
        self._renewer = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._renewer.start()
        return self

    def __exit__(self, *_: object) -> None:
        from obstore.exceptions import BaseError

        self._stop.set()
        if self._renewer:
            self._renewer.join()
        if not self._lost:
            with contextlib.suppress(BaseError, OSError):  # then it ends by itself, at its limit
                self._create(self._number + 1, 0.0)

    def check(self) -> None:
        """Raise Busy where the lease was lost (this process slept past its limit and another took over)."""
        if self._lost:
            raise Busy(
                f"{self.root}: another {self._who} took over this {self._place}; this one stops, what it committed stands"
            )

    def _renew(self) -> None:
        from obstore.exceptions import BaseError

        while not self._stop.wait(self._limit / 4):
            try:
                self._lost = not self._create(self._number + 1, self._limit)
            except InputError:  # the next number is taken by something that no lease wrote
                self._lost = True
            except (BaseError, OSError):  # storage is away: the next try, or the one after, may find it again
                continue
            if self._lost:
                return

    def _create(self, number: int, limit_seconds: float) -> bool:
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        entry = {
            "holder": self.holder,
            "host": socket.gethostname(),
            "machine": _machine(),
            "process": os.getpid(),
            "expires": time.time() + limit_seconds,
        }
        try:
            obstore.put(self._files, _file(number), json.dumps(entry).encode(), mode="create")
        except (AlreadyExistsError, PreconditionError):
            # else an earlier try got through, and its answer did not
            if (self._read(number) or {}).get("holder") != self.holder:
                return False
        self._number = number
        stale = [_file(other) for other in self._numbers() if other < number - 1]
        if stale:
            obstore.delete(self._files, stale)
        return True

    def _numbers(self) -> list[int]:
        import obstore

        names = [NUMBERED.fullmatch(entry["path"]) for page in obstore.list(self._files) for entry in page]
        return [int(name[1]) for name in names if name]

    def _latest(self) -> tuple[int, LeaseEntry | None]:
        """The entry that counts, and its number. Raises InputError if it is none that a lease writes."""
        for number in sorted(self._numbers(), reverse=True):
            if entry := self._read(number):
                if entry["expires"] > time.time() + LONGEST_SECONDS or number > HIGHEST:
                    raise InputError(
                        f"{self._folder}/{_file(number)}: a lease until {entry['expires']:g} s after 1970, which no {self._who} has taken; "
                        f"if none is writing to this {self._place}, remove that file"
                    )
                return number, entry
        return 0, None

    def _read(self, number: int) -> LeaseEntry | None:
        """The entry, or None if its holder has just moved on."""
        import obstore

        try:
            content = bytes(obstore.get(self._files, _file(number)).bytes())
        except FileNotFoundError:
            return None
        return checked_json(content, f"{self._folder}/{_file(number)}", LeaseEntry)


def _file(number: int) -> str:
    return f"{number:012d}.json"


def holder(root: str) -> LeaseEntry | None:
    """Who holds the lease of `root`; None if nobody does. Raises InputError."""
    if not exists(path_below(root, "_lease")):
        return None
    with reachable(root):
        _, entry = Lease(root)._latest()
    return entry if entry and entry["expires"] > time.time() and not _died_here(entry) else None


def _machine() -> str:
    """This boot of this machine, as this container sees it: process numbers mean something only here."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return uuid.uuid4().hex


def _died_here(entry: LeaseEntry) -> bool:
    """Whether the holder was a process of this machine that is gone, so that nobody need wait for its limit."""
    if entry["machine"] != _machine():
        return False
    try:
        os.kill(entry["process"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False
