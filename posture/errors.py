"""Errors that a user can mend (InputError: one clear sentence, exit code 2, no traceback); verdicts on files."""

from __future__ import annotations


class InputError(ValueError):
    """Bad input: names the file, field or value, and what would be right."""


class Unreachable(InputError):
    """Storage cannot be read or written. The request is right, so it may succeed later."""


class Busy(InputError):
    """Another process holds what this command needs, such as a store's lease."""


class Unreadable(Exception):
    """A file without usable frames. `verdict` is one of `posture.data.store.schema.VERDICTS`."""

    def __init__(self, verdict: str, reason: str) -> None:
        super().__init__(reason)
        self.verdict = verdict
