"""Reports of ingests, as the table `ingests` stores them."""

from __future__ import annotations

from typing import Any

from typing_extensions import TypedDict  # pydantic takes no other before Python 3.12

from posture.data.ingest.clip_ledger import ClipReport
from posture.data.ingest.image_ledger import ImageReport
from posture.data.store.checked import checked_json, checked_value
from posture.data.store.tables import Store


class Refused(TypedDict):
    """A refused file, label or box in a report."""

    uri: str
    verdict: str
    reason: str


def last_report(store: Store) -> ClipReport | ImageReport | None:
    """Return the report of the newest ingest that changed the store or refused something."""
    table = store.read("ingests")
    if not table.num_rows:
        return None
    return read_report(table.sort_by([("time", "descending")])["report"][0].as_py(), store)


def read_report(text: str, store: Store) -> ClipReport | ImageReport:
    """Read a stored report, without fields that this version does not know. Raises InputError if it is not one."""
    content = _report(text, store)
    return checked_value(content, _where(store), ImageReport if "pictures" in content else ClipReport)


def read_refused(text: str, store: Store) -> list[Refused]:
    """Read what was refused from a stored report. Raises InputError if it is not one."""
    return _report(text, store)["refused"]


def _report(text: str, store: Store) -> dict[str, Any]:
    content = checked_json(text, _where(store), dict[str, Any])
    checked_value(content.get("refused", []), _where(store), list[Refused])
    return content


def _where(store: Store) -> str:
    return f"{store.uri}: the report of an ingest"
