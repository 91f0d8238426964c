"""Tests pass where the parent ignores Ctrl-C, as under `nohup`."""

import signal
import subprocess
import sys


def test_what_tests_start_can_be_interrupted():
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], stderr=subprocess.DEVNULL)
    sleeper.send_signal(signal.SIGINT)
    assert sleeper.wait(timeout=60) != 0


def test_also_if_the_parent_ignores_sigint(tmp_path):
    inner = f"{__file__}::test_what_tests_start_can_be_interrupted"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path}/inner", inner],
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout
