import os
import shutil
import subprocess

import pytest

from cluster.ray_overhead import HEADER, SET, _control_seconds, _cost, line, measure


def test_a_line_says_blocks_per_second():
    row = {"nodes": 4, "way": "tasks", "blocks": 1000, "seconds": 2.0, "driver_ms": 0.25, "control_ms": 1.5}
    assert line(row) == "| 4 | tasks | 1,000 | 500 | 0.25 | 1.50 |"
    assert line(row).count("|") == HEADER.splitlines()[0].count("|")


def test_a_process_of_an_earlier_cluster_that_ends_meanwhile_does_not_count(tmp_path):
    earlier = subprocess.Popen([
        shutil.copy(shutil.which("sh") or "", tmp_path / "raylet"),
        "-c",
        "while :; do :; done",
    ])

    def end(_: int) -> None:
        earlier.kill()
        earlier.wait()

    try:
        while sum(_control_seconds().values()) < 0.1:
            assert earlier.poll() is None
        assert _cost(end, 1)["control_ms"] == 0
    finally:
        earlier.kill()


@pytest.mark.ray
@pytest.mark.slow
def test_a_small_run_measures_every_combination(monkeypatch):
    monkeypatch.setenv(SET[1], "127.0.0.1:1")
    before = [os.environ.get(name) for name in SET]
    # so many that Ray's processes take some of the hundredths of a second that the system counts in
    rows = list(measure([1, 2], [400]))
    assert [os.environ.get(name) for name in SET] == before
    assert [(row["nodes"], row["way"], row["blocks"]) for row in rows] == [
        (count, way, 400) for count in (1, 2) for way in ("tasks", "Ray Data")
    ]
    assert all(row["seconds"] > 0 and row["driver_ms"] > 0 for row in rows), rows
    assert all(row["control_ms"] >= 0 for row in rows) and any(row["control_ms"] > 0 for row in rows), rows
