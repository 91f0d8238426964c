"""When passes are due, and a process that does them one after the other: APScheduler's triggers and clock, the work in
the main thread.

A time is due once. Of times that were missed (the machine slept, the clock jumped ahead) one is made up for, at once; a
clock that is set back makes nothing due again.
"""

from __future__ import annotations

import logging
import queue
import re
import threading
from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from apscheduler.events import EVENT_JOB_MAX_INSTANCES
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from posture.errors import InputError

BEAT_SECONDS = 20.0
UNITS = {"m": 60, "h": 3600, "d": 86400}
WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
"""As crontab counts them, from 0; 7 is Sunday too. (APScheduler counts from Monday.)"""
FIELDS = ("minute", "hour", "day", "month", "day_of_week")
LONGEST_DAYS = 366


def trigger_of(*, every: str | None = None, cron: str | None = None, timezone: str | None = None) -> BaseTrigger:
    """The trigger of `--every 6h` or `--cron "0 3 * * *"`, in the time zone or in this machine's. Raises InputError."""
    if (every is None) == (cron is None):
        raise InputError('give --every 6h, or --cron "0 3 * * *"' + ("" if every is None else ", not both"))
    if cron is not None:
        return Crontab.parse(cron, _zone(timezone))
    if timezone is not None:
        raise InputError(f"--timezone {timezone}: goes with --cron; --every counts hours, wherever they are")
    match = re.fullmatch(r"(\d{1,6})([mhd])", every or "")
    seconds = int(match[1]) * UNITS[match[2]] if match else 0
    if not 0 < seconds <= LONGEST_DAYS * 86400:
        raise InputError(
            f"--every {every}: write minutes, hours or days, such as 30m, 6h or 2d, at most {LONGEST_DAYS}d"
        )
    return IntervalTrigger(seconds=seconds, timezone=UTC)


class Crontab(BaseTrigger):
    """Times as crontab has them, each once by the clock on the wall: one that the clock skips in spring comes as much
    later, one that it shows twice in autumn counts the first time. (APScheduler alone counts both, and loses a midnight
    that is skipped.)
    """

    def __init__(self, wall: CronTrigger, zone: tzinfo) -> None:
        self._wall, self._zone = wall, zone

    @classmethod
    def parse(cls, text: str, zone: tzinfo) -> Crontab:
        """Raises InputError naming what cannot be understood."""
        fields = dict(zip(FIELDS, text.split(), strict=False))
        right = 'write minute, hour, day of the month, month and day of the week, such as "0 3 * * *"'
        if len(text.split()) != len(FIELDS):
            raise InputError(f"--cron {text!r} has {len(text.split())} fields instead of 5; {right}")
        if fields["day"] != "*" and fields["day_of_week"] != "*":
            raise InputError(
                f"--cron {text!r} names days of the month and of the week; give one of the two, and * for the other"
            )
        try:
            return cls(
                CronTrigger(**fields | {"day_of_week": weekdays(fields["day_of_week"].lower())}, timezone=UTC), zone
            )
        except (ValueError, TypeError) as error:
            raise InputError(f"--cron {text!r}: {error}; {right}") from None

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        after = previous_fire_time or now
        found = self._wall.get_next_fire_time(None, after.astimezone(self._zone).replace(tzinfo=UTC, fold=0))
        while found is not None:
            moment = found.replace(tzinfo=self._zone)
            if moment.timestamp() > after.timestamp() or (
                previous_fire_time is None and moment.timestamp() == after.timestamp()
            ):
                return moment
            found = self._wall.get_next_fire_time(found, found)
        return None


def weekdays(field: str) -> str:
    """The days of a crontab's fifth field by name: `1-5` -> `mon,tue,wed,thu,fri`. Raises ValueError."""
    if field == "*":
        return field
    days: set[int] = set()
    for part in field.split(","):
        match = re.fullmatch(r"(\*|(\w+)(?:-(\w+))?)(?:/([1-9]\d*))?", part)
        if match is None:
            raise ValueError(f"the day of the week {part!r}")
        whole, first, last, step = match.groups()
        begin = 0 if whole == "*" else _weekday(first)
        end = 6 if whole == "*" or (step and last is None) else begin if last is None else _weekday(last)
        days.update(range(begin, (end if end >= begin else end + 7) + 1, int(step or 1)))
    return ",".join(WEEKDAYS[day] for day in sorted({day % 7 for day in days}))


def _weekday(name: str) -> int:
    if name in WEEKDAYS:
        return WEEKDAYS.index(name)
    if not name.isdecimal() or int(name) > 7:
        raise ValueError(f"the day of the week {name!r}")
    return int(name)


def _zone(name: str | None) -> tzinfo:
    from tzlocal import get_localzone

    try:
        return get_localzone() if name is None else ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        what = "this machine's time zone cannot be found" if name is None else f"--timezone {name}: no such time zone"
        raise InputError(f"{what}; name one, as --timezone Europe/Berlin or --timezone UTC") from None


class PassWatcher:
    """Does `work` in the thread that calls `run` whenever `trigger` says so, never twice at once.

    `beat` is called with {next, working_since} (seconds since 1970, or None) every `beat_seconds` and whenever one of
    them changes, `tell` with a line about a time that was left out. `at_once`: the first time is now. `work` must raise
    nothing but KeyboardInterrupt.
    """

    def __init__(
        self,
        trigger: BaseTrigger,
        work: Callable[[], None],
        *,
        beat: Callable[[dict[str, Any]], None],
        tell: Callable[[str], None],
        at_once: bool,
        beat_seconds: float = BEAT_SECONDS,
    ) -> None:
        self._work, self._beat, self._tell, self._beat_seconds = work, beat, tell, beat_seconds
        self._due: queue.SimpleQueue[threading.Event] = queue.SimpleQueue()
        self._working_since: float | None = None
        self._stopped, self._beating = threading.Event(), threading.Lock()
        logging.getLogger("apscheduler").setLevel(logging.ERROR)  # what it would warn of is told
        self._scheduler = BackgroundScheduler(timezone=UTC, executors={"default": ThreadPoolExecutor(1)})
        self._scheduler.add_listener(
            lambda _: self._tell("the last pass is still at work: the one that is due now is left out"),
            EVENT_JOB_MAX_INSTANCES,
        )
        self._job = self._scheduler.add_job(
            self._hand_over, trigger, id="pass", coalesce=True, max_instances=1, misfire_grace_time=None
        )
        self._at_once = at_once

    def run(self) -> None:
        """Until KeyboardInterrupt, which may come at any moment and ends `work` too."""
        self._scheduler.start(paused=True)
        if self._at_once:
            self._job.modify(next_run_time=datetime.now(UTC))
        self._scheduler.resume()
        threading.Thread(target=self._keep_beating, name="heartbeat", daemon=True).start()
        done = threading.Event()
        try:
            while True:
                try:
                    done = self._due.get(timeout=1.0)  # a signal that another thread received is noticed in between
                except queue.Empty:
                    continue
                self._working_since = datetime.now(UTC).timestamp()
                self.beat()
                self._work()
                self._working_since = None
                done.set()
                self.beat()
        finally:
            self._stopped.set()
            done.set()
            self._scheduler.shutdown(wait=False)

    @property
    def next_time(self) -> float | None:
        """When the next is due, in seconds since 1970."""
        following = self._job.next_run_time
        return following and following.timestamp()

    def beat(self) -> None:
        """Say that this process lives, and what is next."""
        with self._beating:
            if not self._stopped.is_set():
                self._beat({"next": self.next_time, "working_since": self._working_since})

    def _hand_over(self) -> None:
        """In the scheduler's thread: the job lasts as long as the work, so that the scheduler knows of it."""
        done = threading.Event()
        self._due.put(done)
        while not done.wait(0.2) and not self._stopped.is_set():
            pass

    def _keep_beating(self) -> None:
        while not self._stopped.is_set():
            self.beat()
            self._stopped.wait(self._beat_seconds)
            self._scheduler.wakeup()  # it sleeps until the next time by a clock that may have been set since
