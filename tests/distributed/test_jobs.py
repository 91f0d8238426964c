"""A Ray head with token authentication, as its users start it, and jobs handed to it over its dashboard."""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import pytest
import ray

from posture.data.store.files import read_bytes
from tests.support.processes import descendants, posture
from tests.support.small_run import SMALL_ACTION, sets

pytestmark = [pytest.mark.slow, pytest.mark.ray]

ROOT = Path(__file__).resolve().parents[2]
RAY = [sys.executable, "-m", "ray.scripts.scripts"]
TOKEN = "0123456789abcdef" * 4
SECRET = "open-sesame"
PORTS = (
    "port",
    "dashboard-port",
    "metrics-export-port",
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "runtime-env-agent-port",
    "ray-client-server-port",
    "node-manager-port",
    "object-manager-port",
)


def free_ports(count):
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in sockets]


@pytest.fixture(scope="module")
def head():
    """The environment of those who have the token, the ports by their names, and the head's folder."""
    ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # paths of sockets must be short
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": TOKEN,
        "RAY_USAGE_STATS_ENABLED": "0",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "WANDB_MODE": "disabled",
    }
    begin = [
        *RAY,
        "start",
        "--head",
        "--block",
        "--num-cpus=2",
        "--dashboard-host=127.0.0.1",
        f"--temp-dir={folder}",
        "--object-store-memory=200000000",
        *(f"--{name}={port}" for name, port in ports.items()),
    ]
    with (folder / "head.log").open("w") as log:
        process = subprocess.Popen(
            begin, env=environment | {"RAY_metrics_report_interval_ms": "500"}, stdout=log, stderr=log
        )
    try:
        assert ask(ports, "/api/jobs/", patience=120) == [] and process.poll() is None, (
            folder / "head.log"
        ).read_text()[-2000:]
        yield environment, ports, folder
    finally:
        below = descendants(process.pid)
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        for number in [process.pid, *below]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, 9)
        shutil.rmtree(folder, ignore_errors=True)


def ask(ports, path, *, patience=30):
    request = urllib.request.Request(
        f"http://127.0.0.1:{ports['dashboard-port']}{path}", headers={"Authorization": f"Bearer {TOKEN}"}
    )
    for left in range(patience, -1, -1):
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return json.loads(answer.read())
        except OSError:  # a busy head closes a connection now and then
            if not left:
                raise
            time.sleep(1)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A folder such as people submit: the code, and beside it what must not travel."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("posture", "jobs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (".gitignore", ".rayignore"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, folder / name)
    for name in (
        "footage/a.mp4",
        "footage/b.avi",
        "runs/one/run.json",
        "runs/one/checkpoints/e/model.safetensors",
        "wandb/x/run.wandb",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(os.urandom(300_000))
    return folder


def submit(head, project, number, *command, environment=None):
    mine, ports, _ = head
    return subprocess.run(
        [
            *RAY,
            "job",
            "submit",
            "--address",
            f"http://127.0.0.1:{ports['dashboard-port']}",
            "--submission-id",
            number,
            "--entrypoint-num-cpus",
            "0.5",
            "--working-dir",
            ".",
            "--",
            *command,
        ],
        env=environment or mine,
        cwd=project,
        capture_output=True,
        text=True,
        timeout=280,
    )


def numbers(ports):
    """Names of our metrics, as the node exports them now."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{ports['metrics-export-port']}/metrics", timeout=5) as answer:
            return set(re.findall(r"^ray_(posture_\w+)\{", answer.read().decode(), flags=re.MULTILINE))
    except OSError:
        return set()


def test_jobs_need_the_token_run_once_and_give_nothing_away(head, project, small_store, tmp_path):
    mine, ports, folder = head
    train = (
        sys.executable,
        "-m",
        "posture",
        "train",
        "jobs/action.py:improved",
        "--store",
        small_store,
        "--runs",
        str(tmp_path),
        "--name",
        "first",
        *sets(SMALL_ACTION | {"epochs": 6}),
    )

    without = submit(
        head, project, "first-1", *train, environment=mine | {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": ""}
    )
    assert without.returncode != 0 and re.search(r"401|[Aa]uthenti|[Uu]nauthori", without.stdout + without.stderr), (
        without.stdout + without.stderr
    )
    assert ask(ports, "/api/jobs/") == [] and not list(tmp_path.iterdir())
    if not (address := ray.util.get_node_ip_address()).startswith("127."):  # the dashboard is for loopback alone
        with pytest.raises(OSError):
            socket.create_connection((address, ports["dashboard-port"]), timeout=5).close()

    for sent, variables in (
        ("none was sent", {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": ""}),
        ("another one was sent", {"RAY_AUTH_TOKEN": "f" * 64}),
    ):
        refused = posture(
            *train[3:],
            environment=mine | {"RAY_ADDRESS": f"{ray.util.get_node_ip_address()}:{ports['port']}"} | variables,
        )
        assert (
            refused.returncode == 2
            and f"this Ray asks for a token, and {sent}; export RAY_AUTH_MODE=token" in refused.stderr
        ), refused.stderr
        assert refused.stderr.count("\n") == 1 and not list(tmp_path.iterdir())

    exported: set[str] = set()
    running = subprocess.Popen(
        [
            *RAY,
            "job",
            "submit",
            "--address",
            f"http://127.0.0.1:{ports['dashboard-port']}",
            "--submission-id",
            "first-1",
            "--entrypoint-num-cpus",
            "0.5",
            "--working-dir",
            ".",
            "--",
            *train,
        ],
        env=mine,
        cwd=project,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    while running.poll() is None:
        exported |= numbers(ports)
        time.sleep(0.3)
    said = running.stdout.read()
    assert running.returncode == 0 and "best accuracy on val" in said, said
    assert exported == {
        "posture_clips_total",
        "posture_clips_per_second",
        "posture_epoch",
        "posture_data_wait_share",
        "posture_validation",
    }

    again = submit(head, project, "first-1", *train)
    assert again.returncode != 0 and "already exists" in again.stdout + again.stderr, again.stdout + again.stderr
    (job,) = ask(ports, "/api/jobs/")
    logs = ask(ports, "/api/jobs/first-1/logs")["logs"]
    assert job["status"] == "SUCCEEDED" and "epoch   6" in logs and "\r" not in logs and "\x1b" not in logs

    record = read_bytes(str(tmp_path / "first" / "run.json")).decode()
    for place in (json.dumps(job), logs, said, record):
        assert SECRET not in place and TOKEN not in place

    (sent,) = folder.glob("session_2*/runtime_resources/working_dir_files/_ray_pkg_*/")
    files = [path for path in sent.rglob("*") if path.is_file() and path.suffix not in (".pyc", ".lock")]
    assert (sent / "posture" / "__main__.py") in files and sum(path.stat().st_size for path in files) < 5_000_000
    assert not [
        path
        for path in files
        if path.suffix in (".mp4", ".avi", ".safetensors", ".wandb") or path.relative_to(sent).parts[0] == "runs"
    ]
