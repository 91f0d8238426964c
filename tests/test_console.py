import contextlib
import os
import pty
import subprocess
import sys

import pytest

from posture.console import visible

SCRIPT = """
from posture import console
with console.progress("training") as advance:
    for done in range(1, 1001):
        advance(done, 1000, "epoch 1, [red]loss[/red] 0.5 :smile: " + "long " * 60)
console.out.print("s3://" + "far/" * 100)
console.table("name", "count", rows=[("[bold]x", 3)])
"""


def test_a_log_has_whole_lines_now_and_then_whatever_the_environment_says():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60,
                          env={"PATH": "/usr/bin:/bin", "FORCE_COLOR": "1", "TTY_COMPATIBLE": "1", "PYTHONPATH": ":".join(sys.path)})
    assert done.returncode == 0, done.stderr
    assert "\r" not in done.stdout and "\x1b" not in done.stdout
    progress, address, *table = done.stdout.splitlines()
    assert progress.startswith("training: 2 of 1000, epoch 1, [red]loss[/red] 0.5 :smile: long long") and progress.endswith("left")
    assert address == "s3://" + "far/" * 100 and "[bold]x" in table[1]


HOSTILE = "\x1b]0;owned\x07[bold]clip[/bold]\x9b31m\u202egpj.\udc80:smile:\r"
SHOWN = r"\x1b]0;owned\x07[bold]clip[/bold]\x9b31m\u202egpj.\udc80:smile:\r"


@pytest.mark.parametrize(("text", "shown"), [(HOSTILE, SHOWN), ("a\nb\tc", r"a\nb\tc"),
                                             ("Läufer \U0001f3c3\u200d\u2642 走る", "Läufer \U0001f3c3\u200d\u2642 走る"),
                                             ("\u2028\u2066\x00\x7f\x85", r"\u2028\u2066\x00\x7f\x85"), ("C:\\x1b", "C:\\x1b")])
def test_what_a_terminal_would_obey_is_shown(text, shown):
    assert visible(text) == shown


def test_names_on_a_terminal_are_text():
    """Lines, tables and progress bars, on a pseudo-terminal."""
    script = f"""
from posture import console
name = {HOSTILE!r}
console.out.print(name)
console.table(name, rows=[(name,), ("two\\nlines",)], title=name)
with console.progress(name) as advance:
    advance(1, 2, name)
from posture.cli import fail
fail(name + "\\n")
"""
    mine, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", script], stdout=theirs, stderr=theirs,
                               env={"PATH": "/usr/bin:/bin", "TERM": "xterm-256color", "COLUMNS": "400", "PYTHONPATH": ":".join(sys.path), "PYTHONUTF8": "1"})
    os.close(theirs)
    seen = b""
    with contextlib.suppress(OSError):  # the end of a terminal that its last writer has closed
        while part := os.read(mine, 65536):
            seen += part
    assert process.wait(timeout=60) == 2
    os.close(mine)
    text = seen.decode(errors="surrogateescape")
    assert "\x1b]0" not in text and "\x07" not in text and "\x9b" not in text and "\u202e" not in text and "\udc80" not in text
    assert text.count("[bold]clip[/bold]") >= 6 and r"two\nlines" in text and r"posture: \x1b]0;owned" in text
