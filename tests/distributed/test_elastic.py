import json
import os
import subprocess
import sys

import numpy as np
import pytest

from posture.runs.backend import Local
from posture.runs.prepare import prepare
from tests.distributed.changing_nodes import LONG

pytestmark = [pytest.mark.slow, pytest.mark.ray]


def test_an_elastic_run_outlives_its_nodes_and_sees_every_clip(small_store, tmp_path):
    """Footage is in memory, so the losses equal those of one process: every step had all of its clips."""
    alone = prepare("jobs/action.py:improved_paper", small_store, runs=str(tmp_path), name="alone", changes=LONG)
    Local().train(alone, on_progress=lambda update: None, on_record=lambda record: None, on_device=lambda name: None)
    expected = alone.folder.read_json("history.json")
    done = subprocess.run(
        [sys.executable, "-m", "tests.distributed.changing_nodes", small_store, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=560,
        env=os.environ
        | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_TRAIN_V2_ENABLED": "1", "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "0.5"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("{")]  # Ray may say more at the end
    found = json.loads(line)
    for name, run in found.items():
        assert run["outcome"]["epoch"] == LONG["epochs"] and run["outcome"]["stopped"] == "", name
        workers = [2 if device.startswith("2 x") else 1 for device in run["devices"]]
        assert workers[0] == 2, (name, run["devices"])
        # a fast machine is through before the node that was told of goes
        assert name == "told" or workers[-1] == 1, run["devices"]
        for key in ("train_loss", "val_loss"):
            np.testing.assert_allclose(
                [row[key] for row in run["history"]], [row[key] for row in expected], rtol=1e-3, err_msg=name
            )
    assert not any("-step-" in tag for tag in found["lost"]["checkpoints"])
    assert any("-step-" in tag for tag in found["told"]["checkpoints"]), "the notice was not heeded"
