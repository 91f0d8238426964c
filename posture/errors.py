"""Errors that a user can mend (InputError: one clear sentence, exit code 2, no traceback), and the verdict on a file."""

from __future__ import annotations


class InputError(ValueError):
    """Bad input: names the file, field or value, and what would be right."""


class Unreachable(InputError):
    """Storage cannot be read or written. Nothing is wrong with what was asked: once that is mended, the same may
    succeed.
    """


class Busy(InputError):
    """Somebody else holds what this command needs (a store's lease)."""


class Unreadable(Exception):
    """A file without usable frames. `verdict` is one of `posture.data.store.schema.VERDICTS`."""

    def __init__(self, verdict: str, reason: str) -> None:
        super().__init__(reason)
        self.verdict = verdict
