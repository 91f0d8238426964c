import contextlib
import os
import pty
import re
import subprocess
import sys
import time

import pytest

from posture.display import console
from posture.display.console import Pace, visible
from posture.display.text import counted, duration
from tests.support.footage import make_video
from tests.support.processes import posture

SCRIPT = """
from posture.display import console
with console.progress("training") as advance:
    for done in range(1, 1001):
        advance(done, 1000, "epoch 1, [red]loss[/red] 0.5 :smile: " + "long " * 60)
console.out.print("s3://" + "far/" * 100)
console.table("name", "count", rows=[("[bold]x", 3)])
"""


def test_a_log_has_whole_lines_now_and_then_whatever_the_environment_says():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": "/usr/bin:/bin", "FORCE_COLOR": "1", "TTY_COMPATIBLE": "1", "PYTHONPATH": ":".join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    assert "\r" not in done.stdout and "\x1b" not in done.stdout
    progress, address, *table = done.stdout.splitlines()
    assert progress.startswith(
        "training: 2 of 1,000, epoch 1, [red]loss[/red] 0.5 :smile: long long"
    ) and progress.endswith("left")
    assert address == "s3://" + "far/" * 100 and "[bold]x" in table[1]


HOSTILE = "\x1b]0;owned\x07[bold]clip[/bold]\x9b31m\u202egpj.\udc80:smile:\r"
SHOWN = r"\x1b]0;owned\x07[bold]clip[/bold]\x9b31m\u202egpj.\udc80:smile:\r"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (HOSTILE, SHOWN),
        ("a\nb\tc", r"a\nb\tc"),
        ("Läufer \U0001f3c3\u200d\u2642 走る", "Läufer \U0001f3c3\u200d\u2642 走る"),
        ("\u2028\u2066\x00\x7f\x85", r"\u2028\u2066\x00\x7f\x85"),
        ("C:\\x1b", "C:\\x1b"),
    ],
)
def test_what_a_terminal_would_obey_is_shown(text, shown):
    assert visible(text) == shown


def test_names_on_a_terminal_are_text():
    """Lines, tables and progress bars, on a pseudo-terminal."""
    script = f"""
from posture.display import console
name = {HOSTILE!r}
console.out.print(name)
console.table(name, rows=[(name,), ("two\\nlines",)], title=name)
with console.progress(name) as advance:
    advance(1, 2, name)
from posture.__main__ import fail
fail(name + "\\n")
"""
    mine, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=theirs,
        stderr=theirs,
        env={
            "PATH": "/usr/bin:/bin",
            "TERM": "xterm-256color",
            "COLUMNS": "400",
            "PYTHONPATH": ":".join(sys.path),
            "PYTHONUTF8": "1",
        },
    )
    os.close(theirs)
    seen = b""
    with contextlib.suppress(OSError):  # the end of a terminal that its last writer has closed
        while part := os.read(mine, 65536):
            seen += part
    assert process.wait(timeout=60) == 2
    os.close(mine)
    text = seen.decode(errors="surrogateescape")
    assert (
        "\x1b]0" not in text
        and "\x07" not in text
        and "\x9b" not in text
        and "\u202e" not in text
        and "\udc80" not in text
    )
    assert text.count("[bold]clip[/bold]") >= 6 and r"two\nlines" in text and r"posture: \x1b]0;owned" in text


def test_what_is_left_is_told_by_the_last_minute_not_by_how_the_work_began():
    """Ten minutes for the first tenth, and then a tenth in every ten seconds."""
    pace = Pace()
    assert pace.left(0, 100, 0.0) is None
    for second in range(10, 601, 10):
        slow = pace.left(second // 60, 100, float(second))
    assert slow == pytest.approx(90 * 60.0, rel=0.05)
    for second in range(610, 681, 10):
        fast = pace.left(10 + second // 10 - 60, 100, float(second))
    assert fast == pytest.approx(82 * 10.0, rel=0.05)
    for second in range(690, 800, 10):
        stuck = pace.left(18, 100, float(second))
    assert stuck is None


def test_elapsed_and_left_are_told_apart(capsys, monkeypatch):
    clock = iter(range(0, 10_000, 30))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    with console.progress("training") as advance:
        for done in range(4):
            advance(done, 10, "epoch 1")
    lines = [line for line in capsys.readouterr().out.splitlines() if "elapsed" in line]
    assert lines[-1] == "training: 3 of 10, epoch 1; 2 min elapsed, about 3 min 30 s left"


def test_a_command_says_what_it_waits_for_if_it_is_silent(capsys, monkeypatch):
    monkeypatch.setattr(console, "SILENCE_SECONDS", 0.05)
    with console.waiting("reading the store"):
        deadline = time.monotonic() + 60
        while not (said := capsys.readouterr().out) and time.monotonic() < deadline:
            time.sleep(0.01)
    assert said == "reading the store ...\n"
    with console.waiting("reading the store"):
        console.out.print("something")
        time.sleep(0.5)
    assert capsys.readouterr().out == "something\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (200, "3 min 20 s"),
        (300, "5 min"),
        (7500, "2 h 5 min"),
        (7200, "2 h"),
    ],
)
def test_durations_for_people(seconds, text):
    assert duration(seconds) == text


def test_one_of_a_thing_is_singular():
    assert [
        counted(0, "clip"),
        counted(1, "clip"),
        counted(1200, "clip"),
        counted(1, "class", "classes"),
        counted(2, "class", "classes"),
    ] == ["0 clips", "1 clip", "1,200 clips", "1 class", "2 classes"]


@pytest.mark.slow
@pytest.mark.ray
def test_one_video_of_one_class_is_told_in_the_singular_and_what_comes_next(tmp_path):
    (tmp_path / "in" / "jump").mkdir(parents=True)
    make_video(tmp_path / "in" / "jump" / "a.mp4", frames=40)
    done = posture(
        "ingest",
        str(tmp_path / "in"),
        "--store",
        str(tmp_path / "store"),
        "--size",
        "32x40",
        "--frames",
        "20",
        "--val-share",
        "0",
        "--test-share",
        "0",
    )
    said = done.stdout
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert "starting Ray on this machine ..." in said
    assert (
        not re.search(r"(?<![\d,.])1 (videos|files|segments|clips|classes|images)\b", said)
        and "1 file, 1 segment" in said
    ), said
    assert (
        said.splitlines()[-1]
        == f"next: posture show {tmp_path}/store, then posture train jobs/action.py:improved --store {tmp_path}/store"
    )
    assert "\x1b" not in said and "WARNING" not in said
