import subprocess
import sys

SCRIPT = """
import sys
from posture.distributed.metrics import Throughput, emit, emit_epoch, emit_trials
Throughput("decode", "a").reached(3, 1.5)
emit("posture_epoch", None, run="a")
emit_epoch("a", {"epoch": 1, "data_wait_share": float("nan"), "val_map": None, "val_accuracy": 0.5})
emit_trials("a", ["running"])
assert "ray" not in sys.modules
"""


def test_without_ray_nothing_is_exported_and_ray_not_even_loaded():
    """What a real Ray exports: tests/distributed/test_jobs.py."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
