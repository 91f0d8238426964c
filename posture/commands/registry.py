"""`posture registry`: versions and the champion among them, as tables."""

from __future__ import annotations

from typing import Any

from posture.display import console
from posture.display.text import counted, percent, stamp
from posture.errors import InputError
from posture.retrain.registry import WEIGHTS, Registry, differences


def list_versions(uri: str) -> None:
    """Every version, and every change of champion."""
    registry = Registry(uri)
    champion = registry.champion()
    rows = [
        (
            "*" if version["version"] == champion else "",
            version["version"],
            stamp(version["created"]),
            version["parent"] or "-",
            len(version["classes"]),
            version["trained_on"]["train"],
            _accuracy(version),
            version["decision"]["outcome"],
            _marks(version),
        )
        for version in registry.versions()
    ]
    if not rows:
        console.out.print(f"{registry.uri}: no version yet")
        console.suggest(f"posture retrain --footage FOOTAGE --store STORE --registry {uri}")
        return
    console.table("", "version", "made", "parent", "classes", "training clips", "accuracy", "decision", "", rows=rows)
    console.out.print()
    console.table(
        "champion",
        "since",
        "by",
        "why",
        rows=[
            (entry["version"], stamp(entry["time"]), entry["pass"] or entry["action"], entry["why"])
            for entry in registry.history()
        ],
    )
    console.suggest(f"posture registry show {uri} VERSION")


def show_version(uri: str, name: str | None) -> None:
    """One version; the champion if none is named. Raises InputError if there is none."""
    registry = Registry(uri)
    wanted = name or registry.champion()
    if wanted is None:
        raise InputError(f"{registry.uri}: there is no champion yet; posture registry list {uri} shows the versions")
    version = registry.version(wanted)
    shown = {
        "version": version["version"] + (" (champion)" if version["version"] == registry.champion() else ""),
        "made": stamp(version["created"]),
        "pass": version["pass"],
        "parent": version["parent"] or "-",
        "recipe": version["recipe"],
        "run": version["run_folder"],
        "store": version["store"],
        "tables": ", ".join(f"{table} {number}" for table, number in version["footage_versions"].items()),
        "classes": ", ".join(version["classes"]),
        "clips": ", ".join(f"{split} {count:,}" for split, count in version["trained_on"].items()),
        "hold-out": f"{counted(len(version['holdout']), 'segment')}, accuracy {_accuracy(version)}",
        "decision": version["decision"]["verdict"],
    }
    for title, text in shown.items():
        console.out.print(f"{title:10s}{text}")
    for mark in version["marks"]:
        console.out.print(
            f"{'forgotten':10s}{mark['video']}: trained on {mark['segments']} of its segments; it is forgotten since {stamp(mark['time'])}"
        )


def promote_version(uri: str, name: str, *, why: str) -> None:
    """Make it the champion. Raises Busy while a pass is under way."""
    registry = Registry(uri)
    with registry.lease():
        registry.promote(name, why=why)
    console.out.print(f"{name} is the champion")
    _tell_wandb(registry, name)


def roll_back(uri: str, *, why: str) -> None:
    """Make the former champion the champion again. Raises Busy while a pass is under way."""
    registry = Registry(uri)
    with registry.lease():
        former = registry.rollback(why=why)
    console.out.print(f"{former} is the champion again")
    _tell_wandb(registry, former)


def diff_versions(uri: str, ours: str, theirs: str) -> None:
    """What differs between two versions."""
    registry = Registry(uri)
    rows = differences(registry.version(ours), registry.version(theirs))
    console.table("field", ours, theirs, rows=rows)


def _tell_wandb(registry: Registry, champion: str) -> None:
    """Where W&B is on, its alias `champion` goes to that version too; what goes wrong there is told, and changes
    nothing here.
    """
    from posture.runs.tracking import log_version, move_alias

    version = registry.version(champion)
    problem = move_alias(registry.uri, version, alias="champion")
    if problem is None:
        with registry.checkpoint(champion) as weights:
            problem = log_version(registry.uri, weights / WEIGHTS, version, alias="champion")
    if problem:
        console.out.print(problem)


def _accuracy(version: dict[str, Any]) -> str:
    return percent(version["metrics"]["accuracy"]) if version["metrics"] else "-"


def _marks(version: dict[str, Any]) -> str:
    count = len(version["marks"])
    return f"trained on {counted(count, 'forgotten video')}" if count else ""
