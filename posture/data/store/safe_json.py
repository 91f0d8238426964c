"""Read JSON and YAML from others within limits: no small file may take minutes or gigabytes, or end in a traceback."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from posture.errors import InputError

MAX_JSON_BYTES = 2 << 30
"""COCO's own largest file has 0.5 GB, LVIS's 1.1 GB."""
MAX_YAML_BYTES = 4 << 20
MAX_YAML_VALUES = 100_000
"""Maximum keys and values in a YAML file; anchors count wherever they are used."""
MAX_DEPTH = 64
"""Maximum nesting of lists and objects."""
MAX_DIGITS = 40
"""Maximum digits of a whole number. Longer ones fit no column, and converting them takes quadratic time."""
MAX_CLASSES = 25_000
"""Maximum classes of a data set. V3Det, the largest published one, has 13,204."""


def load_json(content: bytes | str, where: str, *, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """Return the value of a JSON text; bytes may be UTF-8, UTF-16 or UTF-32, with or without a byte order mark.

    Raises InputError, beginning with `where`, if the text is not JSON or is larger than `max_bytes`. The same holds for
    more than MAX_DEPTH levels, whole numbers of more than MAX_DIGITS digits, and half of a surrogate pair.
    """
    _refuse_long(content, where, max_bytes)
    try:
        text = (
            content.decode(json.detect_encoding(content))
            if isinstance(content, bytes)
            else content.removeprefix("\ufeff")
        )
        value = json.loads(text, parse_int=_whole)
    except UnicodeDecodeError:
        raise InputError(f"{where}: the file is not UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{where} line {error.lineno}: not JSON ({error.msg})") from None
    except RecursionError:
        raise InputError(_too_deep(where)) from None
    except ValueError as error:
        raise InputError(f"{where}: {error}") from None
    _refuse_deep(value, where)
    if re.search(r"\\u[dD][89a-fA-F]", text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise InputError(
                f"{where}: a text contains half of a surrogate pair (\\ud800 to \\udfff), which is not a character"
            ) from None
    return value


def load_yaml(text: str, where: str) -> Any:
    """Return the lists, dictionaries and texts of a YAML document.

    Every scalar stays the text that was written: a class may be named `no` or `01`. Raises InputError, beginning with
    `where`, if the text is not YAML, or has more than MAX_YAML_BYTES, MAX_DEPTH levels or MAX_YAML_VALUES values.
    """
    import yaml

    _refuse_long(text, where, MAX_YAML_BYTES)
    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    try:
        _refuse_large(yaml, yaml.parse(text, Loader=loader), where)
        return yaml.load(text, Loader=loader)  # this loader makes only lists, dictionaries and texts
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        raise InputError(
            f"{where}{line}: not YAML ({getattr(error, 'problem', None) or 'it cannot be read'})"
        ) from None


def _refuse_large(yaml: Any, events: Any, where: str) -> None:
    """Raise InputError if a YAML document would expand too much: ten lines of anchors can mean a billion values.

    Anchors are counted wherever they are used, before any value is made. A key that a mapping has twice is refused too,
    because only one of its values would be read.
    """
    sizes: dict[str, int] = {}
    opened: list[_Opened] = []
    count = 0
    for event in events:
        if isinstance(event, yaml.CollectionEndEvent):
            ended = opened.pop()
            sizes |= {ended.anchor: count - ended.before} if ended.anchor else {}
            continue
        if isinstance(event, yaml.NodeEvent) and opened and opened[-1].is_repeated(getattr(event, "value", None)):
            raise InputError(
                f"{where} line {event.start_mark.line + 1}: the key {event.value[:40]!r} appears twice; keep "
                "one of them"
            )
        if isinstance(event, yaml.AliasEvent):
            if any(outer.anchor == event.anchor for outer in opened):
                raise InputError(f"{where} line {event.start_mark.line + 1}: the anchor {event.anchor} contains itself")
            count += sizes.get(event.anchor, 1)
        elif isinstance(event, yaml.CollectionStartEvent):
            opened.append(_Opened(event.anchor, count, set() if isinstance(event, yaml.MappingStartEvent) else None))
            count += 1
        elif isinstance(event, yaml.ScalarEvent):
            count += 1
            sizes |= {event.anchor: 1} if event.anchor else {}
        if len(opened) > MAX_DEPTH:
            raise InputError(_too_deep(where))
        if count > MAX_YAML_VALUES:
            raise InputError(
                f"{where}: more than {MAX_YAML_VALUES:,} values, counting anchors wherever they are used; a data "
                "set's description is shorter"
            )


@dataclass
class _Opened:
    """List or mapping that is not closed yet."""

    anchor: str | None
    before: int
    """Number of values before it."""
    keys: set[str] | None
    """Keys so far, if it is a mapping."""
    is_key_next: bool = True

    def is_repeated(self, key: str | None) -> bool:
        """Count the next value; return True if it repeats a key."""
        if self.keys is None:
            return False
        is_key, self.is_key_next = self.is_key_next, not self.is_key_next
        if not is_key or key is None:
            return False
        repeated = key in self.keys
        self.keys.add(key)
        return repeated


def _refuse_long(content: bytes | str, where: str, max_bytes: int) -> None:
    if len(content) > max_bytes:
        raise InputError(f"{where}: {len(content):,} bytes; the maximum is {max_bytes:,}")


def _refuse_deep(value: Any, where: str) -> None:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise InputError(_too_deep(where))


def _too_deep(where: str) -> str:
    return f"{where}: lists and objects are nested more than {MAX_DEPTH} levels deep"


def _whole(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a whole number of {len(digits):,} digits; the maximum is {MAX_DIGITS}")
    return int(digits)
