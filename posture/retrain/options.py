"""Options of a pass: fields for Python, and flags for the command line."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from posture.display.ranges import between
from posture.retrain.decision import DecisionLimits
from posture.retrain.notify import Notification
from posture.runs.backend import LOCAL, Backend

TRAINING, NEW_DATA = Parameter(group="Training"), Parameter(group="New footage")
SHARE = between(0, 0.9)


@dataclass(frozen=True)
class InboxOptions:
    """The inbox, and how its footage is ingested."""

    footage: str
    """Folder or s3:// prefix where new footage arrives."""
    layout: Annotated[
        Literal["segments", "kinetics", "ucf101", "label-studio", "folders", "cvat", "ucf101_24"] | None, NEW_DATA
    ] = None
    """How labels are given; recognised by default."""
    split_number: Annotated[int, NEW_DATA, between(1, 3)] = 1
    """Which of the three official splits of UCF101 to use."""
    settle: Annotated[float, NEW_DATA, between(0, 7 * 86400)] = 300.0
    """Leave files that changed in the last N seconds to the next pass."""
    val_share: Annotated[float, NEW_DATA, SHARE] = 0.2
    """Share of the new groups of each class that becomes val, if the footage names no val."""
    test_share: Annotated[float, NEW_DATA, SHARE] = 0.2
    """Share of the new groups of each class that becomes hold-out, if the footage names no test."""
    seed: Annotated[int, Parameter(parse=False)] = 0


@Parameter(name="*")
@dataclass(frozen=True)
class RetrainOptions:
    """Options of `posture retrain` and `posture watch`."""

    inbox: Annotated[InboxOptions, Parameter(name="*")]
    store: str
    """Folder or s3:// prefix of the store."""
    registry: str
    """Folder or s3:// prefix of the registry: versions, champion, decisions."""
    recipe: Annotated[str, TRAINING] = "jobs/action.py:improved"
    """FILE.py:function of the challenger."""
    changes: Annotated[dict[str, Any], Parameter(parse=False)] = field(default_factory=dict)
    """Changes of the recipe by dotted path."""
    backend: Annotated[Backend, Parameter(parse=False)] = LOCAL
    """Where to decode, train and score."""
    runs: Annotated[str | None, TRAINING] = None
    """Folder or s3:// prefix for the challengers' runs; by default in the registry."""
    from_scratch: Annotated[bool, TRAINING] = False
    """Start from random weights instead of the champion's."""
    min_clips: Annotated[int, NEW_DATA, between(0)] = 20
    """Minimum number of new training clips for a challenger."""
    min_per_class: Annotated[int, NEW_DATA, between(1)] = 8
    """Minimum number of training clips of a new class. With fewer, or without a held-out group, the class waits."""
    force: Annotated[bool, Parameter(parse=False)] = False
    """Train a challenger even if too little is new."""
    limits: Annotated[DecisionLimits, Parameter(name="*", group="Decision")] = DecisionLimits()
    notification: Annotated[Notification, Parameter(name="*", group="Messages")] = Notification()
