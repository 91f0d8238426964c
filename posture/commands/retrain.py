"""`posture retrain`: arguments, a line for each step, the figures and the decision."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from posture.commands.options import Sets, read_sets
from posture.data.store.files import join
from posture.display import console
from posture.display.text import counted, percent, signed
from posture.distributed.backend import backend
from posture.retrain.options import RetrainOptions
from posture.retrain.page import PAGE
from posture.retrain.run_pass import PassResult, run_pass
from posture.runs.recipes import full_path

command = App(
    name="retrain", help_epilogue="Example: posture retrain --footage INBOX --store STORE --registry REGISTRY"
)


TRAINING = Parameter(group="Training")


@Parameter(name="*")
@dataclass(frozen=True)
class RetrainArguments:
    """Options of both `posture retrain` and `posture watch`: those of a pass, and those that choose its changes and
    its backend.
    """

    options: RetrainOptions
    epochs: Annotated[int | Literal["auto"] | None, TRAINING] = None
    """Epochs of the challenger, as --set epochs=N."""
    sets: Annotated[Sets, TRAINING] = ()
    """Change a field of the recipe: --set optim.lr=0.01 (repeatable)."""
    workers: Annotated[int | None, TRAINING] = None
    """Number of Ray Train workers (data-parallel)."""
    local: Annotated[bool, TRAINING] = False
    """Decode, train and score in this process, without Ray."""

    def complete(self, **more: Any) -> RetrainOptions:
        """Return the options of a pass. Raises InputError."""
        return replace(
            self.options,
            recipe=full_path(self.options.recipe, task="action"),
            changes=read_sets(self.sets, epochs=self.epochs, workers=self.workers),
            backend=backend(local=self.local),
            **more,
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
    retrain_once(arguments.complete(force=force))
    console.suggest(
        f"posture registry list {arguments.options.registry}; the same command again if new footage arrives, or "
        "posture watch"
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
        interval, detectable = (
            ("", "")
            if found is None or found["accuracy"]["low"] is None
            else (
                f"{signed(100 * found['accuracy']['low'])} .. {signed(100 * found['accuracy']['high'])}",
                f"{100 * part['detectable']:.1f}",
            )
        )
        rows.append({
            "hold-out": name,
            "segments": part["segments"],
            "groups": part["groups"],
            "champion": "-" if before is None else percent(before["accuracy"]["value"]),
            "challenger": percent(part["challenger"]["accuracy"]["value"]),
            "points": "" if found is None else signed(100 * found["accuracy"]["difference"]),
            "95 % CI": interval,
            "could have seen": detectable,
        })
    if rows:
        console.table(*rows[0], rows=[tuple(row.values()) for row in rows])
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
