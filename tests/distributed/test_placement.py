import json
import os
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.ray]


def test_decoding_goes_to_the_nodes_for_it_and_training_does_not(class_folders, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tests.distributed.decode_nodes", str(class_folders), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=560,
        env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_TRAIN_V2_ENABLED": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.pop("clips") == 32 and sorted(found.pop("sizes")) == [[1.0, 0.0]]
    assert found == {"ingest": ["decodes"], "flow": ["decodes"], "train": ["trains"], "score": ["trains"]}
