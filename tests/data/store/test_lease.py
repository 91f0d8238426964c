import json
import os
import subprocess
import sys
import time

import pytest

from posture.data.store.lease import Lease
from posture.errors import Busy
from tests.support.store_checks import check_lease


def test_one_holder_at_a_time(tmp_path):
    check_lease(str(tmp_path))


def test_a_holder_that_overslept_loses_it(tmp_path):
    sleepy = Lease(str(tmp_path), limit_seconds=0.4)
    sleepy._renew = lambda: None  # as if the process had been stopped
    with sleepy:
        time.sleep(0.5)
        with Lease(str(tmp_path), limit_seconds=5):
            sleepy._limit = 0.04
            Lease._renew(sleepy)  # when it wakes up, its next number is taken
            with pytest.raises(Busy, match="another ingest took over"):
                sleepy.check()


def test_a_killed_holder_on_this_machine_is_taken_over_at_once(tmp_path):
    code = "from posture.data.store.lease import Lease; import os; "
    code += f"Lease({str(tmp_path)!r}, limit_seconds=9000).__enter__(); os._exit(9)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 9
    with Lease(str(tmp_path)):  # otherwise it would wait for longer than a test may take
        assert (tmp_path / "_lease").exists()


def test_a_holder_elsewhere_is_waited_for(tmp_path):
    (tmp_path / "_lease").mkdir()
    entry = {
        "holder": "x",
        "host": "elsewhere",
        "machine": "another boot",
        "process": os.getpid(),
        "expires": time.time() + 30,
    }
    (tmp_path / "_lease" / f"{4:012d}.json").write_text(json.dumps(entry))
    with pytest.raises(Busy, match="elsewhere"):
        Lease(str(tmp_path)).__enter__()
