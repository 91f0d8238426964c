"""One writer at a time in a folder or bucket, with a time limit: the lease of a crashed holder is taken over.

The lease is a numbered log of small files. Each is created only if it does not exist yet, the one conditional write
that both a local disk and S3 have. The highest number counts: who creates the next one gets or keeps the lease.
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
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from posture.data.store.checked import Seconds, checked_json, path_below, refuse_links
from posture.data.store.files import exists, is_remote, open_root, reachable
from posture.errors import Busy, InputError

LIMIT_SECONDS = 60.0
MAX_LEASE_SECONDS = 86400.0
"""A lease that ends later was written by another program, or by a clock that is days off."""
HIGHEST = 10**11
"""Highest number of a file in the log; one per second takes 3,000 years."""
NUMBERED = re.compile(r"(\d{12})\.json")


class LeaseEntry(TypedDict):
    """File of the log."""

    holder: str
    host: str
    machine: str
    process: Annotated[int, Field(ge=1, lt=2**31)]
    expires: Seconds


class Lease:
    """Hold `<root>/_lease` in a `with` block; a thread renews it. Raises Busy if another process holds it.

    `who` and `place` name the other process and the folder in errors.
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
                f"{self.root}: another {self._who} is writing to this {self._place} ({entry['host']}, process "
                f"{entry['process']}); try again when it has ended, or in {wait} s if it was killed"
            )
        with reachable(self.root, "written"):
            created = self._create(number + 1, self._limit)
        if not created:
            raise Busy(
                f"{self.root}: another {self._who} has just started writing to this {self._place}; try again when "
                "it has ended"
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
            with contextlib.suppress(BaseError, OSError):  # then it expires by itself
                self._create(self._number + 1, 0.0)

    def check(self) -> None:
        """Raise Busy if the lease was lost: this process slept past its limit and another one took over."""
        if self._lost:
            raise Busy(
                f"{self.root}: another {self._who} took over this {self._place}, so this one stops; its commits "
                "are kept"
            )

    def _renew(self) -> None:
        from obstore.exceptions import BaseError

        while not self._stop.wait(self._limit / 4):
            try:
                self._lost = not self._create(self._number + 1, self._limit)
            except InputError:  # a file that no lease wrote has the next number
                self._lost = True
            except (BaseError, OSError):  # storage is away; one of the next tries may work
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
            # otherwise an earlier try was written, but its answer was lost
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
        """Return the valid entry and its number. Raises InputError if no lease writes such an entry."""
        for number in sorted(self._numbers(), reverse=True):
            if entry := self._read(number):
                if entry["expires"] > time.time() + MAX_LEASE_SECONDS or number > HIGHEST:
                    raise InputError(
                        f"{self._folder}/{_file(number)}: a lease until {entry['expires']:g} s after 1970, which "
                        f"no {self._who} writes; if nothing is writing to this {self._place}, remove that file"
                    )
                return number, entry
        return 0, None

    def _read(self, number: int) -> LeaseEntry | None:
        """Return the entry, or None if its holder has just written the next one."""
        import obstore

        try:
            content = bytes(obstore.get(self._files, _file(number)).bytes())
        except FileNotFoundError:
            return None
        return checked_json(content, f"{self._folder}/{_file(number)}", LeaseEntry)


def _file(number: int) -> str:
    return f"{number:012d}.json"


def holder(root: str) -> LeaseEntry | None:
    """Return the entry of the process that holds the lease of `root`, or None. Raises InputError."""
    if not exists(path_below(root, "_lease")):
        return None
    with reachable(root):
        _, entry = Lease(root)._latest()
    return entry if entry and entry["expires"] > time.time() and not _died_here(entry) else None


def _machine() -> str:
    """Return an id of this boot and container; process numbers are valid only within it."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return uuid.uuid4().hex


def _died_here(entry: LeaseEntry) -> bool:
    """Return True if the holder was a process of this machine that has ended. Then its limit need not be awaited."""
    if entry["machine"] != _machine():
        return False
    try:
        os.kill(entry["process"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False
