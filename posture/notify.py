"""Word of a pass that judged a challenger: a webhook, a command. Neither can stop the pass, or hold it up for long."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.request
from dataclasses import dataclass
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
    """Run by the shell with the same JSON on its standard input, and in POSTURE_OUTCOME and POSTURE_VERDICT the most of it."""

    def __post_init__(self) -> None:
        if self.url is not None and (urlsplit(self.url).scheme not in ("http", "https") or not urlsplit(self.url).hostname):
            raise InputError(f"--notify-url {self.url}: must begin with http:// or https:// and name a host")


def notify(whom: Notification, decision: dict[str, Any]) -> list[str]:
    """Tell them of a decision; returns what went wrong, in sentences."""
    content = json.dumps({name: decision[name] for name in TOLD} | {"text": f"Posture: {decision['verdict']}"}).encode()
    problems = []
    if whom.url is not None:
        request = urllib.request.Request(whom.url, content, {"Content-Type": "application/json"})
        try:
            urllib.request.urlopen(request, timeout=SECONDS).close()
        except (OSError, ValueError) as error:  # what a server answers may stand in neither message nor log: the url may hold a secret
            problems.append(f"--notify-url: {urlsplit(whom.url).hostname} was not told ({type(error).__name__}: {error})")
    if whom.command is not None:
        variables = os.environ | {"POSTURE_OUTCOME": decision["outcome"], "POSTURE_VERDICT": decision["verdict"]}
        try:
            done = subprocess.run(whom.command, shell=True, input=content, env=variables, timeout=SECONDS, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            if done.returncode:
                problems.append(f"--notify-command ended with exit code {done.returncode}")
        except subprocess.TimeoutExpired:
            problems.append(f"--notify-command took longer than {SECONDS:.0f} s and was stopped")
    return problems
