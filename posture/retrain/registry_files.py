"""The files of a registry, as types that reading checks them against."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field
from typing_extensions import TypedDict  # pydantic takes no other before Python 3.12

from posture.data.store.checked import Count, Name, Seconds

RECORD = "version.json"


class Change(TypedDict):
    """A change of champion."""

    version: Name
    former: Name | None
    action: str
    time: Seconds
    why: str
    # The pass that promoted it is the field `pass`, a word that Python keeps for itself.


class Pointer(TypedDict):
    """champion.json."""

    version: Name
    history: Annotated[list[Change], Field(min_length=1)]


ClassRecall = TypedDict("ClassRecall", {"class": str, "recall": float | None}, total=False)


class Measured(TypedDict, total=False):
    """The figures of a version that are shown in tables."""

    accuracy: float
    per_class: list[ClassRecall]


class Verdict(TypedDict):
    """Decision of a pass, in a version's record."""

    outcome: str
    verdict: str


Version = TypedDict(
    "Version",
    {
        "version": Name,
        "created": Seconds,
        "parent": Name | None,
        "pass": Name,
        "run": dict[str, Any],
        "recipe": str,
        "run_folder": str,
        "store": str,
        "footage_versions": dict[str, Count],
        "classes": list[str],
        "left_out": list[str],
        "metrics": Measured | None,
        "decision": Verdict,
        "holdout": list[Name],
        "trained_on": dict[str, Count],
        "software": dict[str, str],
    },
    total=False,
)
"""version.json."""


class Forgotten(TypedDict):
    """A mark beside a version: a video that it was trained on and that was forgotten since."""

    video: Name
    time: Seconds
    segments: Count
    splits: list[str]


class Segments(TypedDict):
    """segments.json of a pass: label, split and group of each segment, the new ones, and all refusals up to then."""

    segments: dict[Name, Annotated[list[str], Field(min_length=3, max_length=3)]]
    new: list[Name]
    baseline: Name | None
    refused: list[list[str]]
    ingests: list[str]


Plan = TypedDict(
    "Plan",
    {
        "pass": Name,
        "step": str,
        "started": Seconds,
        "asked": str,
        "versions": dict[str, Count],
        "run": Name,
        "champion": Name | None,
        "baseline": Name | None,
        "left_out": list[str],
        "look": dict[str, Any],
        "record": dict[str, Any],
    },
    total=False,
)
"""current.json."""

Look = TypedDict(
    "Look",
    {
        "time": Seconds,
        "status": str,
        "sentence": str,
        "pass": Name | None,
        "unsettled": list[str],
        "unlabelled": list[str],
    },
    total=False,
)
"""last.json."""

Decision = TypedDict(
    "Decision",
    {
        "pass": Name,
        "started": Seconds,
        "ended": Seconds,
        "outcome": str,
        "verdict": str,
        "challenger": Name | None,
        "champion": Name | None,
        "changed": list[dict[str, Any]],
        "store": str,
        "versions": dict[str, Count],
    },
    total=False,
)
"""decision.json of a pass."""


class Seen(TypedDict):
    """Look at a file that had not settled."""

    bytes: int
    modified: float
    since: float


class Settling(TypedDict, total=False):
    """settling.json: state of the last look at the inbox; `seen` has bytes and modification time by uri."""

    looks: dict[str, Seen]
    seen: dict[str, Annotated[list[float], Field(min_length=2, max_length=2)]]
    unlabelled: list[str]


class RegistryWatcher(TypedDict, total=False):
    """Heartbeat of a `posture watch`."""

    host: str
    process: Count
    schedule: str
    footage: str
    began: Seconds
    beat: Seconds
    next: Seconds | None
    working_since: Seconds | None


KINDS = {
    "champion.json": Pointer,
    RECORD: Version,
    "segments.json": Segments,
    "current.json": Plan,
    "last.json": Look,
    "decision.json": Decision,
    "settling.json": Settling,
}
"""Type of each file of a registry by its name; files in the folders `forgotten` and `watchers` have any name."""
FOLDERS = {"forgotten": Forgotten, "watchers": RegistryWatcher}
