"""When passes are due: each time once, whatever clocks do."""

import itertools
import signal
import threading
import time
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from apscheduler.schedulers import base
from apscheduler.triggers.date import DateTrigger

from posture.errors import InputError
from posture.retrain.watch import PassWatcher, trigger_of, weekdays

BERLIN = ZoneInfo("Europe/Berlin")


def due(trigger, start, until):
    """When the trigger is due, each asked for at the one before, as the scheduler does."""
    times, previous, now = [], None, start
    while (found := trigger.get_next_fire_time(previous, now)) is not None and found <= until:
        times.append(found)
        previous = now = found
    return times


@pytest.mark.parametrize(
    ("cron", "day", "zone"),
    [
        ("30 2 * * *", "2026-10-25", "Europe/Berlin"),
        ("30 2 * * *", "2026-03-29", "Europe/Berlin"),
        ("30 2 * * *", "2026-07-01", "Europe/Berlin"),
        ("0 3 * * *", "2026-10-25", "Europe/Berlin"),
        ("0 3 * * *", "2026-03-29", "Europe/Berlin"),
        ("30 1 * * *", "2026-11-01", "America/New_York"),
        ("30 2 * * *", "2026-03-08", "America/New_York"),
        ("30 2 * * 0", "2026-10-25", "Europe/Berlin"),
        ("45 1 * * *", "2026-10-04", "Australia/Lord_Howe"),
        ("0 0 * * *", "2026-04-24", "Africa/Cairo"),
    ],
)
def test_a_time_of_day_is_due_once_a_day_also_where_summer_time_begins_or_ends(cron, day, zone):
    start = datetime.fromisoformat(f"{day}T00:00").replace(tzinfo=ZoneInfo(zone)) - timedelta(minutes=1)
    times = due(trigger_of(cron=cron, timezone=zone), start, start + timedelta(hours=24))
    assert len(times) == 1 and len({time.astimezone(UTC) for time in times}) == 1


@pytest.mark.parametrize(("day", "hours"), [("2026-10-25", 24), ("2026-03-29", 23), ("2026-07-01", 24)])
def test_every_hour_on_the_wall_counts_once(day, hours):
    start = datetime.fromisoformat(f"{day}T00:00").replace(tzinfo=BERLIN)
    times = [
        time.timestamp()
        for time in due(
            trigger_of(cron="0 * * * *", timezone="Europe/Berlin"), start, start + timedelta(hours=23, minutes=30)
        )
    ]
    assert len(times) == hours and all(later > sooner for sooner, later in itertools.pairwise(times))


@pytest.mark.parametrize("hour", [15, 3])
def test_a_watch_begun_in_the_second_of_two_hours_does_not_miss_the_day(hour):
    start = datetime(2026, 10, 25, 2, 40, tzinfo=BERLIN, fold=1)
    times = due(trigger_of(cron=f"0 {hour} * * *", timezone="Europe/Berlin"), start, start + timedelta(hours=20))
    assert [(time.day, time.hour) for time in times] == [(25, hour)]


@pytest.mark.parametrize(
    ("field", "days"),
    [
        ("*", "*"),
        ("1", "mon"),
        ("0", "sun"),
        ("7", "sun"),
        ("1-5", "mon,tue,wed,thu,fri"),
        ("sat,sun", "sun,sat"),
        ("5-7", "sun,fri,sat"),
        ("fri-mon", "sun,mon,fri,sat"),
        ("*/3", "sun,wed,sat"),
        ("1-5/2", "mon,wed,fri"),
    ],
)
def test_days_of_the_week_are_crontabs(field, days):
    assert weekdays(field) == days


def test_monday_is_monday():
    start = datetime(2026, 11, 25, tzinfo=UTC)  # a Wednesday
    assert [
        time.isoweekday()
        for time in due(trigger_of(cron="0 3 * * 1", timezone="UTC"), start, start + timedelta(days=14))
    ] == [1, 1]


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({}, "give --every 6h, or --cron"),
        ({"every": "6h", "cron": "0 3 * * *"}, "not both"),
        ({"every": "6"}, "--every 6: write minutes"),
        ({"every": "0h"}, "--every 0h"),
        ({"every": "400d"}, "at most 366d"),
        ({"cron": "0 3 * *"}, "has 4 fields"),
        ({"cron": "0 25 * * *"}, "--cron '0 25 "),
        ({"cron": "0 3 1 * 1"}, "names days of the month and of the week"),
        ({"cron": "0 3 * * 8"}, "the day of the week '8'"),
        ({"cron": "0 3 * * *", "timezone": "Mars/Base"}, "no such time zone"),
        ({"every": "6h", "timezone": "UTC"}, "--timezone UTC: goes with --cron"),
    ],
)
def test_what_cannot_be_understood_is_named(given, complaint):
    with pytest.raises(InputError) as error:
        trigger_of(**given)
    assert complaint in str(error.value)


class Clock(datetime):
    """The clock that the scheduler reads, set ahead or back by `ahead`."""

    ahead = timedelta()

    @classmethod
    def now(cls, tz=None):
        return datetime.now(tz) + cls.ahead


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.setattr(Clock, "ahead", timedelta())
    monkeypatch.setattr(base, "datetime", Clock)
    return Clock


class Interrupting:
    """Runs a watcher in this thread until `seconds` have passed; notes when it worked, and its heartbeats."""

    def __init__(self, trigger, *, at_once=False, lasts=0.0):
        self.worked, self.beats, self.told, self.at_work, self.most_at_work = [], [], [], 0, 0
        self._lasts = lasts
        self.watcher = PassWatcher(
            trigger, self._work, beat=self.beats.append, tell=self.told.append, at_once=at_once, beat_seconds=0.05
        )

    def _work(self):
        self.at_work += 1
        self.most_at_work = max(self.most_at_work, self.at_work)
        self.worked.append(threading.current_thread())
        time.sleep(self._lasts)
        self.at_work -= 1

    def run(self, seconds, *then):
        """`then`: (after so many seconds, do that)."""
        timers = [
            threading.Timer(after, action)
            for after, action in (*then, (seconds, lambda: signal.raise_signal(signal.SIGINT)))
        ]
        for timer in timers:
            timer.start()
        with pytest.raises(KeyboardInterrupt):
            self.watcher.run()
        for timer in timers:
            timer.cancel()
        return self


def test_a_clock_that_jumps_ahead_makes_up_for_what_was_due_once(clock):
    ran = Interrupting(trigger_of(every="1h")).run(1.5, (0.3, lambda: setattr(Clock, "ahead", timedelta(hours=50))))
    assert len(ran.worked) == 1, "fifty hours were skipped: one pass makes up for all"


def test_a_clock_that_is_set_back_makes_nothing_due_again(clock):
    clock.ahead = timedelta(hours=50)
    trigger = trigger_of(every="1h")
    ran = Interrupting(trigger, at_once=True).run(
        1.5,
        *[
            (0.4 + 0.2 * step, lambda step=step: setattr(Clock, "ahead", timedelta(hours=50 - 10 * step)))
            for step in range(4)
        ],
    )
    assert len(ran.worked) == 1


def test_passes_never_overlap_and_a_time_that_falls_into_one_is_told_and_left_out():
    from apscheduler.triggers.interval import IntervalTrigger

    ran = Interrupting(IntervalTrigger(seconds=1, timezone=UTC), at_once=True, lasts=1.6).run(3.0)
    assert ran.most_at_work == 1 and 1 <= len(ran.worked) <= 2 and any("left out" in line for line in ran.told)
    assert set(ran.worked) == {threading.main_thread()}, "the work is done where Ctrl-C arrives"


def test_the_heart_beats_while_it_waits_and_while_it_works():
    later = datetime.now(UTC) + timedelta(hours=1)
    waiting = Interrupting(DateTrigger(later, timezone=UTC)).run(0.5)
    assert len(waiting.beats) >= 3 and all(
        beat == {"next": pytest.approx(later.timestamp()), "working_since": None} for beat in waiting.beats[1:]
    )
    working = Interrupting(trigger_of(every="1h"), at_once=True, lasts=0.6).run(1.2)
    assert (
        sum(beat["working_since"] is not None for beat in working.beats) >= 3
        and working.beats[-1]["working_since"] is None
    )
