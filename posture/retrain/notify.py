"""Word of a pass that judged a challenger: a webhook, a command. Neither can stop the pass, or hold it up for long."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from posture.errors import InputError

SECONDS = 10.0
"""Neither may take longer."""
TOLD = ("pass", "outcome", "verdict", "champion", "challenger", "registry", "started", "ended")


@dataclass(frozen=True)
class Notification:
    """Who is told. Raises InputError where the url is none of http or https."""

    url: str | None = None
    """Gets a POST of a short JSON: `TOLD`, and `text`, the verdict."""
    command: str | None = None
    """Run by the shell with the same JSON on its standard input, and in POSTURE_OUTCOME and POSTURE_VERDICT the most of
    it.
    """

    def __post_init__(self) -> None:
        if self.url is not None and not _host(self.url):
            # it may hold a secret, so it is not shown
            raise InputError("--notify-url: must begin with http:// or https:// and name a host")


def notify(whom: Notification, decision: dict[str, Any]) -> list[str]:
    """Tell them of a decision; returns what went wrong, in sentences."""
    content = json.dumps({name: decision[name] for name in TOLD} | {"text": f"Posture: {decision['verdict']}"}).encode()
    problems = []
    if whom.url is not None:
        try:
            request = urllib.request.Request(whom.url, content, {"Content-Type": "application/json"})
            urllib.request.urlopen(request, timeout=SECONDS).close()
        except (OSError, ValueError, HTTPException) as error:
            problems.append(f"--notify-url: {_host(whom.url)} was not told ({_why(error)})")
    if whom.command is not None:
        variables = os.environ | {"POSTURE_OUTCOME": decision["outcome"], "POSTURE_VERDICT": decision["verdict"]}
        try:
            problems += _run(whom.command, content, variables)
        except (OSError, ValueError) as error:
            problems.append(f"--notify-command cannot be run: {error}")
    return problems


def _host(url: str) -> str | None:
    """The host of a web address; None where it is none."""
    try:
        parts = urlsplit(url)
        return parts.hostname if parts.scheme in ("http", "https") else None
    except ValueError:
        return None


def _why(error: Exception) -> str:
    """Without what the error itself says, which may have the url in it, and with it a secret."""
    if isinstance(error, urllib.error.HTTPError):
        return f"it answered {error.code}"
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    return getattr(reason, "strerror", None) or type(reason).__name__


def _run(command: str, content: bytes, variables: dict[str, str]) -> list[str]:
    """Run it to its end, or until its time is up, when all that it started is stopped too; returns what went wrong.
    Raises OSError, ValueError.
    """
    with subprocess.Popen(
        command,
        shell=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=variables,
        start_new_session=True,
    ) as running:
        try:
            running.communicate(content, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)
            return [f"--notify-command took longer than {SECONDS:.0f} s and was stopped"]
        except BaseException:  # Ctrl-C
            os.killpg(running.pid, signal.SIGKILL)
            raise
    return [f"--notify-command ended with exit code {running.returncode}"] if running.returncode else []
