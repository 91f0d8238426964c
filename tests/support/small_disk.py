"""A Python script beside which a disk is full: a real one, that its process alone sees."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def run_on_small_disk(script: str, disk: Path, *arguments: str, megabytes: int) -> str:
    """What the script prints, whose arguments are the folder `disk`, of so many megabytes, and the others. Skips the
    test where none can be made.
    """
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("no disk can be made here: unshare -rm is not permitted")
    mounted = f'mount -t tmpfs -o size={megabytes}m posture "$1" && exec "$0" -c "$2" "$1" "${{@:3}}"'
    command = ["unshare", "-rm", "bash", "-c", mounted, sys.executable, str(disk), script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout
