"""Notifications about a pass that judged a challenger: a webhook and a command. Neither can stop or delay the pass."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from typing import Annotated, Any
from urllib.parse import urlsplit

from cyclopts import Parameter

from posture.errors import InputError

SECONDS = 10.0
"""Time limit of each."""
FIELDS = ("pass", "outcome", "verdict", "champion", "challenger", "registry", "started", "ended")


@dataclass(frozen=True)
class Notification:
    """Where to send notifications. Raises InputError if the url is not http or https.

    The JSON has the fields `FIELDS`, and `text`, the verdict. The command also gets POSTURE_OUTCOME and POSTURE_VERDICT
    as variables.
    """

    url: Annotated[str | None, Parameter(name="--notify-url")] = None
    """Send the decision as JSON to this address, by POST."""
    command: Annotated[str | None, Parameter(name="--notify-command")] = None
    """Run this command with the decision as JSON on its standard input."""

    def __post_init__(self) -> None:
        if self.url is not None and not _host(self.url):
            # not shown, because it may contain a secret
            raise InputError("--notify-url: must begin with http:// or https:// and name a host")


def notify(whom: Notification, decision: dict[str, Any]) -> list[str]:
    """Send a decision; return what went wrong, in sentences."""
    content = json.dumps(
        {name: decision[name] for name in FIELDS} | {"text": f"Posture: {decision['verdict']}"}
    ).encode()
    problems = []
    if whom.url is not None:
        try:
            request = urllib.request.Request(whom.url, content, {"Content-Type": "application/json"})
            urllib.request.urlopen(request, timeout=SECONDS).close()
        except (OSError, ValueError, HTTPException) as error:
            problems.append(f"--notify-url: {_host(whom.url)} got no notification ({_why(error)})")
    if whom.command is not None:
        variables = os.environ | {"POSTURE_OUTCOME": decision["outcome"], "POSTURE_VERDICT": decision["verdict"]}
        try:
            problems += _run(whom.command, content, variables)
        except (OSError, ValueError) as error:
            problems.append(f"--notify-command cannot be run: {error}")
    return problems


def _host(url: str) -> str | None:
    """Return the host of a web address; None if it is not one."""
    try:
        parts = urlsplit(url)
        return parts.hostname if parts.scheme in ("http", "https") else None
    except ValueError:
        return None


def _why(error: Exception) -> str:
    """Return the reason without the error's own message, which may contain the url and a secret in it."""
    if isinstance(error, urllib.error.HTTPError):
        return f"it answered {error.code}"
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    return getattr(reason, "strerror", None) or type(reason).__name__


def _run(command: str, content: bytes, variables: dict[str, str]) -> list[str]:
    """Run the command until it ends or its time is up, and stop what it started; return what went wrong.

    Raises OSError or ValueError.
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
