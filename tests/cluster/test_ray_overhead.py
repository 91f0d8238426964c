import os

import pytest

from cluster.ray_overhead import HEADER, SET, line, measure


def test_a_line_says_blocks_per_second():
    row = {"nodes": 4, "way": "tasks", "blocks": 1000, "seconds": 2.0, "driver_ms": 0.25, "control_ms": 1.5}
    assert line(row) == "| 4 | tasks | 1,000 | 500 | 0.25 | 1.50 |"
    assert line(row).count("|") == HEADER.splitlines()[0].count("|")


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
    assert all(row["seconds"] > 0 and row["driver_ms"] > 0 and row["control_ms"] > 0 for row in rows)
