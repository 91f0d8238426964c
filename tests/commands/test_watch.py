"""The watching process as it is: started, asked about, interrupted."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from posture.__main__ import main
from posture.retrain.registry import Registry
from posture.retrain.watch import Heartbeat, watchers

LIMIT = 120


@pytest.fixture
def places(tmp_path):
    (tmp_path / "footage").mkdir()
    return {name: str(tmp_path / name) for name in ("footage", "store", "registry")}


def options(places):
    return [part for name, uri in places.items() for part in (f"--{name}", uri)]


def start(places, *schedule):
    command = [sys.executable, "-m", "posture", "watch", *options(places), "--local", "--settle", "0", *schedule]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"WANDB_MODE": "disabled"},
    )


def wait_for(condition, process):
    limit = time.monotonic() + LIMIT
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < limit, "it never came"
        time.sleep(0.1)


def status(places, capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["status", "--registry", places["registry"]])
    return " ".join(capsys.readouterr().out.split())


def test_a_watch_passes_tells_where_it_is_and_ends_with_ctrl_c(places, tmp_path, capsys):
    process = start(places, "--every", "6h")
    try:
        last, folder = tmp_path / "registry" / "last.json", tmp_path / "registry" / "watchers"
        wait_for(
            lambda: (
                last.exists()
                and any(json.loads(file.read_text())["working_since"] is None for file in folder.glob("*.json"))
            ),
            process,
        )
        said = status(places, capsys)
        assert (
            "no champion yet" in said
            and "watched by" in said
            and f"process {process.pid}, every 6h: the next pass is due" in said
        )
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=LIMIT)
    finally:
        process.kill()
    assert process.returncode == 130 and "Traceback" not in output and output.rstrip().endswith("the watch has ended")
    assert "the next pass is due" in output and not list(folder.glob("*.json"))
    assert "watched by" not in status(places, capsys)


def test_a_pass_that_fails_is_told_and_the_watch_goes_on(places, tmp_path):
    with Registry(places["registry"], create=True).lease():
        process = start(places, "--every", "1m")
        try:
            lines = []
            while not lines or "the next pass is due" not in lines[-1]:
                lines.append(process.stdout.readline())
                assert lines[-1], "it ended: " + "".join(lines)
            assert (
                "the pass did not run:" in "".join(lines)
                and "another pass" in "".join(lines)
                and process.poll() is None
            )
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=LIMIT)
        finally:
            process.kill()
    assert process.returncode == 130


def test_a_watcher_that_fell_silent_is_told_and_cleared_away(places, capsys):
    registry = Registry(places["registry"], create=True)
    registry.write_json(
        {
            "time": 0.0,
            "sentence": "Nothing new.",
            "status": "nothing",
            "unlabelled": ["/f/a.mp4", "/f/b.mp4"],
            "unsettled": [],
        },
        "last.json",
    )
    killed = {
        "host": "there",
        "process": 7,
        "schedule": "every 6h",
        "footage": "f",
        "next": 1e9,
        "working_since": None,
        "beat": time.time() - 1000,
    }
    registry.write_json(killed, "watchers", "there-7.json")
    said = status(places, capsys)
    assert (
        "a watcher (there, process 7, every 6h) was heard of last" in said
        and "2 files without a label: posture review asks for them (a.mp4, b.mp4)" in said
    )
    heart = Heartbeat(registry, schedule="every 1h", footage="f")
    heart.beat({"next": None, "working_since": None})
    assert [watcher["lives"] for watcher in watchers(registry)].count(True) == 1
    heart.end()
    assert watchers(registry) == []


@pytest.mark.parametrize(
    "schedule",
    [
        ["--every", "soon"],
        ["--cron", "0 3 * *"],
        [],
        ["--every", "1h", "--settle", "-1"],
        ["--every", "1h", "--set", "optim.rl=1"],
    ],
)
def test_a_schedule_or_an_option_that_cannot_be_understood_ends_at_once(places, schedule, capsys):
    with pytest.raises(SystemExit) as end:
        main(["watch", *options(places), *schedule])
    assert end.value.code == 2 and capsys.readouterr().err.startswith("posture: ")


def test_footage_that_is_not_there_leaves_nothing_behind(places, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main(["watch", *options(places | {"footage": str(tmp_path / "nowhere")}), "--every", "1h"])
    assert end.value.code == 2 and "nowhere: no such folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["footage"]
