"""`posture registry`: list, show, compare, promote and roll back the versions of a registry."""

from __future__ import annotations

from typing import Any

from cyclopts import App, Group

from posture.display import console
from posture.display.text import counted, percent, stamp
from posture.errors import InputError
from posture.retrain.registry import WEIGHTS, Registry, differences

command = App(
    name="registry", group_commands=Group("Commands"), help_epilogue="Example: posture registry list REGISTRY"
)


@command.command(name="list", help_epilogue="Example: posture registry list REGISTRY")
def list_registry(registry: str, /) -> None:
    """List every version, and every change of champion.

    Parameters
    ----------
    registry
        Folder or s3:// prefix of the registry.
    """
    list_versions(registry)


@command.command(name="show", help_epilogue="Example: posture registry show REGISTRY v0003")
def show(registry: str, version: str | None = None, /) -> None:
    """Show one version: the footage it was trained on, its results, and why it was promoted or not.

    Parameters
    ----------
    registry
        Folder or s3:// prefix of the registry.
    version
        Name of the version, such as v0003; by default the champion.
    """
    show_version(registry, version)
    console.suggest(f"posture registry diff {registry} VERSION OTHER")


@command.command(name="promote", help_epilogue="Example: posture registry promote REGISTRY v0002")
def promote(registry: str, version: str, /, *, why: str = "by hand") -> None:
    """Make a version the champion, whatever was decided.

    Parameters
    ----------
    registry
        Folder or s3:// prefix of the registry.
    version
        Name of the version, such as v0003.
    why
        Reason, which is kept with the change.
    """
    promote_version(registry, version, why=why)
    console.suggest(f"posture registry rollback {registry} undoes it")


@command.command(name="rollback", help_epilogue="Example: posture registry rollback REGISTRY --why 'too slow'")
def rollback(registry: str, /, *, why: str = "by hand") -> None:
    """Make the previous champion the champion again.

    Parameters
    ----------
    registry
        Folder or s3:// prefix of the registry.
    why
        Reason, which is kept with the change.
    """
    roll_back(registry, why=why)
    console.suggest(f"posture registry list {registry}")


@command.command(name="diff", help_epilogue="Example: posture registry diff REGISTRY v0001 v0002")
def diff(registry: str, ours: str, theirs: str, /) -> None:
    """Show what differs between two versions: configuration, footage, metrics.

    Parameters
    ----------
    registry
        Folder or s3:// prefix of the registry.
    ours
        Name of a version, such as v0001.
    theirs
        Name of the other version.
    """
    diff_versions(registry, ours, theirs)
    console.suggest(f"posture registry promote {registry} VERSION")


def list_versions(uri: str) -> None:
    """Print every version, and every change of champion."""
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
    """Print one version, by default the champion. Raises InputError if there is none."""
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
            f"{'forgotten':10s}{mark['video']}: trained on {mark['segments']} of its segments; "
            f"forgotten on {stamp(mark['time'])}"
        )


def promote_version(uri: str, name: str, *, why: str) -> None:
    """Make a version the champion. Raises Busy while a pass is running."""
    registry = Registry(uri)
    with registry.lease():
        registry.promote(name, why=why)
    console.out.print(f"{name} is the champion")
    _tell_wandb(registry, name)


def roll_back(uri: str, *, why: str) -> None:
    """Make the previous champion the champion again. Raises Busy while a pass is running."""
    registry = Registry(uri)
    with registry.lease():
        former = registry.rollback(why=why)
    console.out.print(f"{former} is the champion again")
    _tell_wandb(registry, former)


def diff_versions(uri: str, ours: str, theirs: str) -> None:
    """Print what differs between two versions."""
    registry = Registry(uri)
    rows = differences(registry.version(ours), registry.version(theirs))
    console.table("field", ours, theirs, rows=rows)


def _tell_wandb(registry: Registry, champion: str) -> None:
    """Move W&B's alias `champion` to the version if W&B is on. A problem there is reported, and changes nothing
    here.
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
