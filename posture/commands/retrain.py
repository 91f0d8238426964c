"""`posture retrain`: arguments, a line for each step, the figures and the decision."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from posture.commands.options import Sets, between, read_sets
from posture.data.store.files import join
from posture.display import console
from posture.display.text import counted, percent, signed
from posture.distributed.backend import backend
from posture.retrain.decision import DecisionLimits
from posture.retrain.notify import Notification
from posture.retrain.page import PAGE
from posture.retrain.run_pass import PassResult, RetrainOptions, run_pass
from posture.runs.recipes import full_path

command = App(
    name="retrain", help_epilogue="Example: posture retrain --footage INBOX --store STORE --registry REGISTRY"
)
TRAINING, NEW_DATA, DECISION, MESSAGES = (
    Parameter(group=name) for name in ("Training", "New footage", "Decision", "Messages")
)


@Parameter(name="*")
@dataclass(frozen=True)
class RetrainArguments:
    """Options of both `posture retrain` and `posture watch`.

    Parameters
    ----------
    footage
        Folder or s3:// prefix where new footage arrives.
    store
        Folder or s3:// prefix of the store.
    registry
        Folder or s3:// prefix of the registry: versions, champion, decisions.
    recipe
        FILE.py:function of the challenger.
    epochs
        Epochs of the challenger, as --set epochs=N.
    sets
        Change a field of the recipe: --set optim.lr=0.01 (repeatable).
    workers
        Number of Ray Train workers (data-parallel).
    local
        Decode, train and score in this process, without Ray.
    runs
        Folder or s3:// prefix for the challengers' runs; by default in the registry.
    from_scratch
        Start from random weights instead of the champion's.
    layout
        How labels are given; recognised by default.
    split_number
        Which of the three official splits of UCF101 to use.
    settle
        Leave files that changed in the last N seconds to the next pass.
    min_clips
        Minimum number of new training clips for a challenger.
    min_per_class
        Minimum number of training clips of a new class. With fewer, or without a held-out group, the class waits.
    val_share
        Share of the new groups of each class that becomes val, if the footage names no val.
    test_share
        Share of the new groups of each class that becomes hold-out, if the footage names no test.
    margin
        Minimum gain in accuracy on the classes that the champion knows.
    tolerance
        Maximum loss in accuracy on the frozen hold-out that cannot be ruled out.
    recall_floor
        Minimum recall of each new class.
    max_class_drop
        Maximum loss in recall of any class, beyond chance.
    notify_url
        Send the decision as JSON to this address, by POST.
    notify_command
        Run this command with the decision as JSON on its standard input.
    """

    footage: str
    store: str
    registry: str
    recipe: Annotated[str, TRAINING] = "jobs/action.py:improved"
    epochs: Annotated[int | None, TRAINING] = None
    sets: Annotated[Sets, TRAINING] = ()
    workers: Annotated[int | None, TRAINING] = None
    local: Annotated[bool, TRAINING] = False
    runs: Annotated[str | None, TRAINING] = None
    from_scratch: Annotated[bool, TRAINING] = False
    layout: Annotated[
        Literal["segments", "kinetics", "ucf101", "label-studio", "folders", "cvat", "ucf101_24"] | None, NEW_DATA
    ] = None
    split_number: Annotated[int, NEW_DATA, between(1, 3)] = 1
    settle: Annotated[float, NEW_DATA, between(0, 7 * 86400)] = 300.0
    min_clips: Annotated[int, NEW_DATA, between(0)] = 20
    min_per_class: Annotated[int, NEW_DATA, between(1)] = 8
    val_share: Annotated[float, NEW_DATA, between(0, 0.9)] = 0.2
    test_share: Annotated[float, NEW_DATA, between(0, 0.9)] = 0.2
    margin: Annotated[float, DECISION, between(0, 1)] = 0.01
    tolerance: Annotated[float, DECISION, between(0, 1)] = 0.05
    recall_floor: Annotated[float, DECISION, between(0, 1)] = 0.5
    max_class_drop: Annotated[float, DECISION, between(0, 1)] = 0.1
    notify_url: Annotated[str | None, MESSAGES] = None
    notify_command: Annotated[str | None, MESSAGES] = None

    def options(self, *, force: bool = False) -> RetrainOptions:
        """Return what a pass is asked. Raises InputError."""
        return RetrainOptions(
            self.footage,
            self.store,
            self.registry,
            full_path(self.recipe, task="action"),
            read_sets(self.sets, epochs=self.epochs, workers=self.workers),
            backend=backend(local=self.local),
            runs=self.runs,
            layout=self.layout,
            split_number=self.split_number,
            settle=self.settle,
            min_clips=self.min_clips,
            min_per_class=self.min_per_class,
            from_scratch=self.from_scratch,
            force=force,
            val_share=self.val_share,
            test_share=self.test_share,
            limits=DecisionLimits(self.margin, self.tolerance, self.recall_floor, self.max_class_drop),
            notification=Notification(self.notify_url, self.notify_command),
        )


@command.default
def retrain(*, arguments: RetrainArguments, force: bool = False) -> None:
    """Do one pass: take in new footage, train a challenger, judge it beside the champion, and promote it or say why
    not. With nothing new the pass does nothing.

    The exit code is 0 whatever the decision, 1 if the challenger could not be trained, and 2 if another pass is running
    or something is wrong.

    Parameters
    ----------
    force
        Train a challenger even if too little is new: with another recipe, or after posture forget.
    """
    retrain_once(arguments.options(force=force))
    console.suggest(
        f"posture registry list {arguments.registry}; the same command again if new footage arrives, or posture watch"
    )


CHANGES_SHOWN = 10


def retrain_once(options: RetrainOptions) -> PassResult:
    """One pass. Exits with 1 where the challenger could not be trained. Raises InputError, KeyboardInterrupt as
    `run_pass` does.
    """
    outcome = run_pass(options, tell=console.out.print, progress=console.progress)
    if outcome.decision is not None:
        print_decision(outcome.decision)
    for item in outcome.look["refused_files"][:CHANGES_SHOWN]:
        console.out.print(f"refused: {item['uri']}: {item['verdict']}, {item['reason']}")
    console.out.print(outcome.sentence)
    if outcome.status == "failed":
        sys.exit(1)
    return outcome


def print_decision(decision: dict[str, Any]) -> None:
    """Print both models' accuracy on each part of the hold-out, and the recall of each class."""
    rows = []
    for name, part in decision["sets"].items():
        if part is None:
            continue
        before, found = part["champion"], part["difference"]
        interval = (
            ("", "")
            if found is None or found["accuracy"]["low"] is None
            else (
                f"{signed(100 * found['accuracy']['low'])} .. {signed(100 * found['accuracy']['high'])}",
                f"{100 * part['detectable']:.1f}",
            )
        )
        rows.append((
            name,
            part["segments"],
            part["groups"],
            "-" if before is None else percent(before["accuracy"]["value"]),
            percent(part["challenger"]["accuracy"]["value"]),
            "" if found is None else signed(100 * found["accuracy"]["difference"]),
            *interval,
        ))
    if rows:
        console.table(
            "hold-out",
            "segments",
            "groups",
            "champion",
            "challenger",
            "points",
            "95 % CI",
            "could have seen",
            rows=rows,
        )
    classes = [
        (row["class"], row["status"], *_recall(row["frozen"]), *_recall(row["new"])) for row in decision["per_class"]
    ]
    if classes:
        console.table(
            "recall", "class is", "frozen: champion", "challenger", "new: champion", "challenger", rows=classes
        )
    if decision["changed"]:
        console.out.print(f"answered differently: {counted(len(decision['changed']), 'clip')}")
    if decision["rule_sentence"]:
        console.out.print(decision["rule_sentence"])
    console.out.print(join(decision["registry"], "passes", decision["pass"], PAGE))


def _recall(part: dict[str, Any] | None) -> tuple[str, str]:
    return ("-", "-") if part is None else (percent(part["champion"]), percent(part["challenger"]))
