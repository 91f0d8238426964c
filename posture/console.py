"""What commands print: progress, tables, sizes. Bars on a terminal, a line now and then in a log."""

from __future__ import annotations

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

LOG_EVERY_SECONDS = 10.0
LOG_COLUMNS = 160

LOG: dict[str, Any] = {"width": LOG_COLUMNS, "force_terminal": False, "color_system": None}
"""Of a console that writes to no terminal, whatever the environment says."""

UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufff9-\ufffb\ud800-\udfff]")
"""What a terminal obeys instead of showing it, and what turns the direction of writing; names of files may contain it."""


def visible(text: str, *, lines: bool = False) -> str:
    """The text with such characters as Python writes them, `\\x1b`; with `lines` line breaks and tabs stay."""
    shown = UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
    return shown if lines else shown.replace("\n", "\\n").replace("\t", "\\t")


class _Console(Console):
    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(visible(item, lines=True) if isinstance(item, str) else item for item in objects), **options)


# Names are printed as they are, lines stay whole.
out = _Console(highlight=False, markup=False, emoji=False, soft_wrap=True, **({} if sys.stdout.isatty() else LOG))


class _Lines(logging.Handler):
    """What parts that print nothing by themselves have to say, such as that Ray is being started."""

    def emit(self, record: logging.LogRecord) -> None:
        out.print(record.getMessage())


logging.getLogger("posture").addHandler(_Lines(logging.INFO))
logging.getLogger("posture").setLevel(logging.INFO)
logging.getLogger("posture").propagate = False


@contextlib.contextmanager
def progress(what: str) -> Iterator[Callable[..., None]]:
    """A function `advance(done, total, note="")` that shows how far `what` is, with the time left."""
    if out.is_terminal:
        columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}", markup=False),
                   TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
        with Progress(*columns, console=out, transient=True) as bar:
            task = bar.add_task(visible(what), total=None, note="")
            yield lambda done, total, note="": bar.update(task, completed=done, total=total, note=visible(note))
        return
    first: tuple[float, int] | None = None
    last = 0.0

    def advance(done: int, total: int, note: str = "") -> None:
        nonlocal first, last
        now = time.monotonic()
        first = first or (now, done)
        if now - last >= LOG_EVERY_SECONDS and done > first[1]:
            last = now
            left = (now - first[0]) / (done - first[1]) * (total - done)
            out.print(f"{what}: {done} of {total}{', ' + note if note else ''}, about {duration(left)} left")

    yield advance


@contextlib.contextmanager
def interruptible() -> Iterator[threading.Event]:
    """The first Ctrl-C (or SIGTERM) sets the event, the second interrupts; outside of the main thread, which alone hears signals, neither does."""
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
    """A plain table; columns whose cells are numbers are set flush right."""
    shown = Table(title=None if title is None else visible(title), title_justify="left", box=None, pad_edge=False, header_style="bold")
    for place, name in enumerate(columns):
        numeric = rows and all(isinstance(row[place], int | float) or str(row[place])[:1].isdigit() or row[place] == "-" for row in rows)
        shown.add_column(visible(name), justify="right" if numeric else "left", overflow="fold", no_wrap=bool(numeric))
    for row in rows:
        shown.add_row(*(f"{cell:,}" if isinstance(cell, int) else visible(str(cell)) for cell in row))
    out.print(shown, soft_wrap=False)


def size(count: float) -> str:
    """Bytes for people: `1.3 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def duration(seconds: float) -> str:
    """Seconds for people: `42 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
