"""Output of commands: progress, tables, lines. Progress is a bar on a terminal and a line now and then in a log."""

from __future__ import annotations

import collections
import contextlib
import logging
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from posture.display.text import duration

LOG_EVERY_SECONDS = 10.0
LOG_COLUMNS = 160
PACE_SECONDS = 60.0
"""Period by which the remaining time is estimated."""
SILENCE_SECONDS = 2.5
"""Time without output after which a command says what it waits for."""

LOG: dict[str, Any] = {"width": LOG_COLUMNS, "force_terminal": False, "color_system": None}
"""Options of a console that does not write to a terminal, whatever the environment says."""

UNSEEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufff9-\ufffb\ud800-\udfff]"
)
"""Control characters of a terminal and of the direction of text, which names of files may contain."""


def visible(text: str, *, lines: bool = False) -> str:
    """Return the text with control characters escaped, as in `\\x1b`; with `lines`, line breaks and tabs stay."""
    shown = UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
    return shown if lines else shown.replace("\n", "\\n").replace("\t", "\\t")


class _Console(Console):
    printed = 0
    """Number of calls of print."""

    def print(self, *objects: Any, **options: Any) -> None:
        self.printed += 1
        super().print(*(visible(item, lines=True) if isinstance(item, str) else item for item in objects), **options)


# Names are printed as they are, lines stay whole.
out = _Console(highlight=False, markup=False, emoji=False, soft_wrap=True, **({} if sys.stdout.isatty() else LOG))


class _LineHandler(logging.Handler):
    """Handler that prints messages of parts without output of their own, such as that Ray is being started."""

    def emit(self, record: logging.LogRecord) -> None:
        out.print(record.getMessage())


logging.getLogger("posture.display.console").addHandler(_LineHandler(logging.INFO))
logging.getLogger("posture.display.console").setLevel(logging.INFO)
logging.getLogger("posture.display.console").propagate = False


class Pace:
    """Estimate of the remaining time from the last minute, since the start of the work says little about its rest."""

    def __init__(self) -> None:
        self._looks: collections.deque[tuple[float, int]] = collections.deque()

    def left(self, done: int, total: int, now: float) -> float | None:
        """Return the seconds until `total`, with `done` at the time `now`; None without progress in the last minute."""
        self._looks.append((now, done))
        while len(self._looks) > 2 and now - self._looks[1][0] >= PACE_SECONDS:
            self._looks.popleft()
        then, before = self._looks[0]
        return (now - then) / (done - before) * (total - done) if done > before else None


@contextlib.contextmanager
def waiting(what: str) -> Iterator[None]:
    """Print `what` is awaited if there is no other output within `SILENCE_SECONDS`."""
    printed, over = out.printed, threading.Event()

    def watch() -> None:
        if not over.wait(SILENCE_SECONDS) and out.printed == printed:
            out.print(f"{what} ...")

    threading.Thread(target=watch, name="waiting", daemon=True).start()
    try:
        yield
    finally:
        over.set()


@contextlib.contextmanager
def progress(what: str) -> Iterator[Callable[..., None]]:
    """Yield a function `advance(done, total, note="")` that shows progress, elapsed and remaining time of `what`."""
    if out.is_terminal:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("elapsed,"),
            TimeRemainingColumn(),
            TextColumn("left"),
        )
        with Progress(*columns, console=out, transient=True, speed_estimate_period=PACE_SECONDS) as bar:
            task = bar.add_task(visible(what), total=None, note="")
            yield lambda done, total, note="": bar.update(task, completed=done, total=total, note=visible(note))
        return
    began, last, pace = time.monotonic(), 0.0, Pace()

    def advance(done: int, total: int, note: str = "") -> None:
        nonlocal last
        now = time.monotonic()
        left = pace.left(done, total, now)
        if now - last >= LOG_EVERY_SECONDS and left is not None:
            last = now
            times = f"{duration(now - began)} elapsed, about {duration(left)} left"
            out.print(f"{what}: {done:,} of {total:,}{', ' + note if note else ''}; {times}")

    with waiting(what):
        yield advance


@contextlib.contextmanager
def status(what: str) -> Iterator[Callable[[str], None]]:
    """Yield a function that shows how work goes whose end is not known: in one line, or a line now and then."""
    if out.is_terminal:
        with out.status(visible(what)) as line:
            yield lambda text: line.update(visible(f"{what}: {text}"))
        return
    last = time.monotonic()

    def tell(text: str) -> None:
        nonlocal last
        if (now := time.monotonic()) - last >= LOG_EVERY_SECONDS:
            last = now
            out.print(f"{what}: {text}")

    yield tell


def suggest(text: str) -> None:
    """Print the next step, as the last line of a command."""
    out.print(f"next: {text}")


@contextlib.contextmanager
def interruptible() -> Iterator[threading.Event]:
    """Yield an event that the first Ctrl-C (or SIGTERM) sets; the second one interrupts.

    Only the main thread receives signals; in other threads the event is never set.
    """
    asked = threading.Event()

    def on_signal(number: int, frame: Any) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        out.print("stopping after this step; once more to stop at once")

    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)} if main else {}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def table(*columns: str, rows: list[tuple[Any, ...]], title: str | None = None) -> None:
    """Print a plain table; columns of numbers are aligned right."""
    shown = Table(
        title=None if title is None else visible(title),
        title_justify="left",
        box=None,
        pad_edge=False,
        header_style="bold",
    )
    for index, name in enumerate(columns):
        numeric = rows and all(
            isinstance(row[index], int | float) or str(row[index])[:1].isdigit() or row[index] == "-" for row in rows
        )
        shown.add_column(visible(name), justify="right" if numeric else "left", overflow="fold", no_wrap=bool(numeric))
    for row in rows:
        shown.add_row(*(f"{cell:,}" if isinstance(cell, int) else visible(str(cell)) for cell in row))
    out.print(shown, soft_wrap=False)
