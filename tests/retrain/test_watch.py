"""When passes are due: each time once, whatever clocks do."""

import itertools
import signal
import threading
import time
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from posture.errors import InputError
from posture.retrain.watch import FixedInterval, PassWatcher, schedule_of

pytestmark = pytest.mark.long

BERLIN = ZoneInfo("Europe/Berlin")


def due(schedule, start, until):
    """When passes are due after `start`, each asked for at the one before, as the watcher does."""
    times, last = [], start.timestamp()
    while (last := schedule.following(last)) <= until.timestamp():
        times.append(datetime.fromtimestamp(last, start.tzinfo))
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
    times = due(schedule_of(cron=cron, timezone=zone), start, start + timedelta(hours=24))
    assert len(times) == 1 and len({time.astimezone(UTC) for time in times}) == 1


@pytest.mark.parametrize(("day", "hours"), [("2026-10-25", 25), ("2026-03-29", 23), ("2026-07-01", 24)])
def test_every_hour_counts_once(day, hours):
    start = datetime.fromisoformat(f"{day}T00:00").replace(tzinfo=BERLIN)
    schedule = schedule_of(cron="0 * * * *", timezone="Europe/Berlin")
    times = [
        time.timestamp()
        for time in due(schedule, start - timedelta(minutes=1), start + timedelta(hours=23, minutes=30))
    ]
    assert len(times) == hours and all(later - sooner == 3600 for sooner, later in itertools.pairwise(times))


@pytest.mark.parametrize("hour", [15, 3])
def test_a_watch_begun_in_the_second_of_two_hours_does_not_miss_the_day(hour):
    start = datetime(2026, 10, 25, 2, 40, tzinfo=BERLIN, fold=1)
    times = due(schedule_of(cron=f"0 {hour} * * *", timezone="Europe/Berlin"), start, start + timedelta(hours=20))
    assert [(time.day, time.hour) for time in times] == [(25, hour)]


@pytest.mark.parametrize(
    ("field", "days"),
    [
        ("1", "1"),
        ("0", "7"),
        ("7", "7"),
        ("1-5", "12345"),
        ("sat,sun", "67"),
        ("5-7", "567"),
        ("*/3", "367"),
        ("1-5/2", "135"),
    ],
)
def test_days_of_the_week_are_crontabs(field, days):
    start = datetime(2026, 11, 2, tzinfo=UTC)  # a Monday
    times = due(schedule_of(cron=f"0 3 * * {field}", timezone="UTC"), start, start + timedelta(days=7))
    assert "".join(str(time.isoweekday()) for time in times) == days


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({}, "give --every 6h, or --cron"),
        ({"every": "6h", "cron": "0 3 * * *"}, "not both"),
        ({"every": "6"}, "--every 6: write minutes"),
        ({"every": "0h"}, "--every 0h"),
        ({"every": "400d"}, "at most 366d"),
        ({"cron": "0 3 * *"}, "Wrong number of fields; write minute, hour"),
        ({"cron": "0 25 * * *"}, "--cron '0 25 "),
        ({"cron": "0 3 31 2 *"}, "--cron '0 3 31 2 *': "),
        ({"cron": "0 3 * * 8"}, "Bad day-of-week"),
        ({"cron": "0 3 * * *", "timezone": "Mars/Base"}, "no such time zone"),
        ({"every": "6h", "timezone": "UTC"}, "--timezone UTC: only --cron has a time zone"),
    ],
)
def test_what_cannot_be_understood_is_named(given, complaint):
    with pytest.raises(InputError) as error:
        schedule_of(**given)
    assert complaint in str(error.value)


class Clock:
    """The watcher's clock, set ahead or back by `ahead` seconds."""

    def __init__(self, ahead=0.0):
        self.ahead = ahead

    def __call__(self):
        return time.time() + self.ahead

    def jump(self, hours):
        self.ahead = 3600.0 * hours


class Interrupting:
    """Run a watcher in this thread until `seconds` have passed; note when it worked, and its heartbeats."""

    def __init__(self, schedule, *, at_once=False, lasts=0.0, clock=time.time):
        self.worked, self.beats, self.lines, self.at_work, self.most_at_work = [], [], [], 0, 0
        self._lasts = lasts
        self.watcher = PassWatcher(
            schedule,
            self._work,
            beat=self.beats.append,
            report=self.lines.append,
            at_once=at_once,
            beat_seconds=0.05,
            now=clock,
        )

    def _work(self):
        self.at_work += 1
        self.most_at_work = max(self.most_at_work, self.at_work)
        self.worked.append(threading.current_thread())
        time.sleep(self._lasts)
        self.at_work -= 1

    def run(self, seconds, *then):
        """`then`: (after this many seconds, call this)."""
        actions = (*then, (seconds, lambda: signal.raise_signal(signal.SIGINT)))
        timers = [threading.Timer(after, action) for after, action in actions]
        for timer in timers:
            timer.start()
        with pytest.raises(KeyboardInterrupt):
            self.watcher.run()
        for timer in timers:
            timer.cancel()
        return self


def test_a_clock_that_jumps_ahead_makes_up_for_what_was_due_once():
    clock = Clock()
    ran = Interrupting(schedule_of(every="1h"), clock=clock).run(2.5, (0.3, lambda: clock.jump(50)))
    assert len(ran.worked) == 1, "fifty hours were skipped: one pass makes up for all"
    assert 0 < ran.watcher.next_time - clock() <= 3600


def test_a_clock_that_is_set_back_makes_nothing_due_again():
    clock = Clock(50 * 3600)
    schedule = schedule_of(every="1h", start=clock())
    back = [(0.4 + 0.2 * step, lambda step=step: clock.jump(50 - 10 * step)) for step in range(4)]
    assert len(Interrupting(schedule, at_once=True, clock=clock).run(1.5, *back).worked) == 1


def test_passes_never_overlap_and_a_time_that_falls_into_one_is_reported_and_left_out():
    start = time.time()
    ran = Interrupting(FixedInterval(1.0, start=start), at_once=True, lasts=1.6).run(3.0)
    assert ran.most_at_work == 1 and 1 <= len(ran.worked) <= 2 and any("left out" in line for line in ran.lines)
    assert set(ran.worked) == {threading.main_thread()}, "the work is done where Ctrl-C arrives"


def test_the_heart_beats_while_it_waits_and_while_it_works():
    start = time.time()
    waiting = Interrupting(FixedInterval(3600, start=start)).run(0.5)
    assert len(waiting.beats) >= 3
    assert all(beat == {"next": pytest.approx(start + 3600), "working_since": None} for beat in waiting.beats)
    working = Interrupting(schedule_of(every="1h"), at_once=True, lasts=0.6).run(1.2)
    assert sum(beat["working_since"] is not None for beat in working.beats) >= 3
    assert working.beats[-1]["working_since"] is None
