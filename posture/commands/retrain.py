"""`posture retrain` as a person, or a log, meets it: a line per step, the figures, the verdict."""

from __future__ import annotations

import sys
from typing import Any

from posture.data.store.files import join
from posture.display import console
from posture.display.text import counted, percent, signed
from posture.retrain.page import PAGE
from posture.retrain.run_pass import PassResult, RetrainOptions, run_pass

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
    """Both models on each part of the hold-out, and the recall of each class."""
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
