import subprocess
import sys

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
