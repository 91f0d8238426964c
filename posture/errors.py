"""The errors that are the user's to mend: one clear sentence, exit code 2, no traceback."""

from __future__ import annotations


class InputError(ValueError):
    """Bad input: names the file, field or value, and what would be right."""


class Unreachable(InputError):
    """Storage cannot be read or written. Nothing is wrong with what was asked: once that is mended, the same may
    succeed.
    """


class Busy(InputError):
    """Somebody else holds what this command needs (a store's lease)."""
