"""The schedule of `posture watch`, the loop that follows it, and the heartbeats that show which watchers are alive.

A watcher writes REGISTRY/watchers/<host>-<process>.json while it lives.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import socket
import threading
import time
from collections.abc import Callable
from datetime import datetime, tzinfo
from typing import Any, Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from posture.data.store.files import exists, list_files
from posture.display.text import moment
from posture.errors import InputError
from posture.retrain.registry import JSON, Registry, remove_file

BEAT_SECONDS = 20.0
SILENT_SECONDS = 120.0
"""A watcher without a heartbeat for longer was killed, or its machine is off."""
UNITS = {"m": 60, "h": 3600, "d": 86400}
LONGEST_DAYS = 366


class Schedule(Protocol):
    """Times at which passes are due."""

    def following(self, after: float) -> float:
        """Return the first time after `after`, both in seconds since 1970."""
        ...


class FixedInterval:
    """Times `seconds` apart, counted from `start` (seconds since 1970)."""

    def __init__(self, seconds: float, *, start: float) -> None:
        self._seconds, self._start = seconds, start

    def following(self, after: float) -> float:
        return self._start + (math.floor((after - self._start) / self._seconds) + 1) * self._seconds


class Crontab:
    """Times in crontab's syntax, with daylight saving time as Debian's cron treats it.

    A time of day that the clock skips is due right after the gap; one that it shows twice is due the first time.
    """

    def __init__(self, text: str, zone: tzinfo) -> None:
        self._text, self._zone = text, zone

    def following(self, after: float) -> float:
        return next(CronSim(self._text, datetime.fromtimestamp(after, self._zone))).timestamp()


def schedule_of(
    *, every: str | None = None, cron: str | None = None, timezone: str | None = None, start: float | None = None
) -> Schedule:
    """Return the schedule of `--every 6h` or `--cron "0 3 * * *"`. Raises InputError if it cannot be understood.

    `timezone` belongs to --cron; by default it is this machine's. --every counts from `start` (seconds since 1970).
    """
    start = time.time() if start is None else start
    if (every is None) == (cron is None):
        raise InputError('give --every 6h, or --cron "0 3 * * *"' + ("" if every is None else ", not both"))
    if cron is not None:
        schedule = Crontab(cron, _zone(timezone))
        try:
            schedule.following(start)
        except (CronSimError, StopIteration) as error:
            raise InputError(
                f"--cron {cron!r}: {str(error) or 'no such date'}; write minute, hour, day of the month, month and day "
                'of the week, such as "0 3 * * *"'
            ) from None
        return schedule
    if timezone is not None:
        raise InputError(f"--timezone {timezone}: only --cron has a time zone")
    match = re.fullmatch(r"(\d{1,6})([mhd])", every or "")
    seconds = int(match[1]) * UNITS[match[2]] if match else 0
    if not 0 < seconds <= LONGEST_DAYS * 86400:
        raise InputError(
            f"--every {every}: write minutes, hours or days, such as 30m, 6h or 2d, at most {LONGEST_DAYS}d"
        )
    return FixedInterval(seconds, start=start)


def _zone(name: str | None) -> tzinfo:
    from tzlocal import get_localzone

    try:
        return get_localzone() if name is None else ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        problem = "this machine has no known time zone" if name is None else f"--timezone {name}: no such time zone"
        raise InputError(f"{problem}; name one, such as --timezone Europe/Berlin or --timezone UTC") from None


class PassWatcher:
    """Loop that calls `work` in the thread of `run` whenever the schedule says so, never twice at once.

    Of several times that were missed (the machine slept, or the clock jumped ahead), one is made up for at once. A
    clock that is set back makes nothing due again. `beat` gets {next, working_since} (seconds since 1970, or None) each
    `beat_seconds` and on each change. `report` gets lines about what is due next and what is left out. With `at_once`,
    the first pass starts now. `work` may raise only KeyboardInterrupt.
    """

    def __init__(
        self,
        schedule: Schedule,
        work: Callable[[], None],
        *,
        beat: Callable[[dict[str, Any]], None],
        report: Callable[[str], None],
        at_once: bool,
        beat_seconds: float = BEAT_SECONDS,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._schedule, self._work, self._beat, self._report = schedule, work, beat, report
        self._beat_seconds, self._now = beat_seconds, now
        self._working_since: float | None = None
        self._stopped, self._beating = threading.Event(), threading.Lock()
        self.next_time = now() if at_once else schedule.following(now())
        """Time of the next pass, in seconds since 1970."""

    def run(self) -> None:
        """Run until KeyboardInterrupt, which may come at any moment and ends `work` too."""
        threading.Thread(target=self._keep_beating, name="heartbeat", daemon=True).start()
        try:
            while True:
                while (wait := self.next_time - self._now()) > 0:
                    time.sleep(min(wait, 1.0))  # the clock may be set meanwhile
                self._working_since = self._now()
                self.next_time = self._schedule.following(max(self.next_time, self._working_since))
                self.beat()
                self._work()
                self._working_since = None
                if self.next_time <= self._now():
                    self._report("the pass was still running when the next one was due, so that one is left out")
                    self.next_time = self._schedule.following(self._now())
                self._report(f"the next pass is due {moment(self.next_time)}")
                self.beat()
        finally:
            self._stopped.set()

    def beat(self) -> None:
        """Report that this process is alive, and when the next pass is due."""
        with self._beating:
            if not self._stopped.is_set():
                self._beat({"next": self.next_time, "working_since": self._working_since})

    def _keep_beating(self) -> None:
        while not self._stopped.is_set():
            self.beat()
            self._stopped.wait(self._beat_seconds)


class Heartbeat:
    """Heartbeat file of this process. `schedule` is the description that `posture status` shows."""

    def __init__(self, registry: Registry, *, schedule: str, footage: str) -> None:
        self._registry = registry
        self._known = {
            "host": socket.gethostname(),
            "process": os.getpid(),
            "schedule": schedule,
            "footage": footage,
            "began": time.time(),
        }
        self._name = re.sub(r"[^A-Za-z0-9._-]", "-", f"{self._known['host']}-{os.getpid()}.json")

    def beat(self, state: dict[str, Any]) -> None:
        """Write `state`, {next, working_since}. A failure of the storage is ignored: the next beat tries again."""
        with contextlib.suppress(Exception):
            self._registry.write_json(self._known | state | {"beat": time.time()}, "watchers", self._name)

    def end(self) -> None:
        """Remove this file and those of dead watchers. A failure of the storage leaves them."""
        with contextlib.suppress(Exception):
            remove_file(self._registry.path("watchers", self._name))
            for watcher in watchers(self._registry):
                if not watcher["lives"]:
                    remove_file(self._registry.path("watchers", watcher["file"]))


def watchers(registry: Registry) -> list[dict[str, Any]]:
    """Return the last heartbeat of each watcher, with its `file`, and whether it `lives`."""
    folder = registry.path("watchers")
    names = [file.relative for file in list_files(folder, suffixes=JSON)] if exists(folder) else []
    found = [(name, registry.read_json("watchers", name)) for name in names]
    return [
        watcher | {"file": name, "lives": time.time() - watcher["beat"] < SILENT_SECONDS}
        for name, watcher in found
        if watcher
    ]
