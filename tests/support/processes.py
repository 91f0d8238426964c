"""The command line, in a process of its own or in this one, and an S3-protocol server on loopback."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from posture.__main__ import main


@contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    """Starts the server with a bucket `lab`; yields the environment that clients need."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    environment = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_ENDPOINT_URL": url,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    try:
        for _ in range(150):
            try:
                urllib.request.urlopen(url, timeout=2).close()
                break
            except OSError:
                time.sleep(0.2)
        import boto3

        boto3.client(
            "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
        ).create_bucket(Bucket="lab")
        yield environment
    finally:
        process.kill()
        process.wait()


def posture(
    *arguments: str, environment: dict[str, str | None] | None = None, timeout: float = 280.0, **options
) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own; variables that are None in `environment` are taken away."""
    variables = os.environ | {"WANDB_MODE": "disabled"} | (environment or {})
    return subprocess.run(
        [sys.executable, "-m", "posture", *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={name: value for name, value in variables.items() if value is not None},
        **options,
    )


def posture_here(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line in this process: as `posture`, but torch is loaded and Ray is running."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    terminated = signal.getsignal(signal.SIGTERM)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main(list(arguments))
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        signal.signal(signal.SIGTERM, terminated)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def descendants(process: int) -> dict[int, str]:
    """The processes below one: {number: command}."""
    children: dict[int, list[int]] = {}
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            children.setdefault(int((place / "stat").read_text().rpartition(")")[2].split()[1]), []).append(
                int(place.name)
            )
    found: dict[int, str] = {}
    waiting = [process]
    while waiting:
        for child in children.get(waiting.pop(), []):
            with contextlib.suppress(OSError):
                found[child] = Path(f"/proc/{child}/cmdline").read_text().replace("\0", " ").strip()
            waiting.append(child)
    return found
