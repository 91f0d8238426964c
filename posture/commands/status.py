"""`posture status`: the champion of a registry, its last passes, who is at work, what is next and what waits."""

from __future__ import annotations

from cyclopts import App

from posture.data.store.lease import holder
from posture.display import console
from posture.display.text import NOTHING, counted, moment, percent
from posture.retrain.registry import Registry
from posture.retrain.watch import watchers

PASSES_SHOWN = 5
URIS_SHOWN = 3

command = App(name="status", help_epilogue="Example: posture status --registry REGISTRY")


@command.default
def status(*, registry: str) -> None:
    """Show the champion, the last passes, who is at work, when the next pass is due, and what waits for it.

    Parameters
    ----------
    registry
        Folder or s3:// prefix of the registry.
    """
    print_status(registry)
    console.suggest(f"posture registry list {registry}")


def print_status(registry_uri: str) -> None:
    """Champion, passes, who is at work, what is next and what waits. Raises InputError where there is no registry."""
    registry = Registry(registry_uri)
    _print_champion(registry)
    _print_passes(registry)
    current, held = registry.current(), holder(registry.uri)
    if held:
        what = f"pass {current['pass']}, step {current['step']}" if current else "looking for new footage"
        console.out.print(f"at work: {held['host']}, process {held['process']}: {what}")
    elif current:
        console.out.print(
            f"pass {current['pass']} was interrupted at the step {current['step']}; "
            "the next posture retrain finishes it"
        )
    for watcher in watchers(registry):
        console.out.print(_described(watcher))
    _print_waiting(registry)


def _print_champion(registry: Registry) -> None:
    champion, history = registry.champion(), registry.history()
    if champion is None:
        console.out.print(f"{registry.uri}: no champion yet")
        return
    version = registry.version(champion)
    accuracy = percent((version["metrics"] or {}).get("accuracy"))
    console.out.print(
        f"champion: {champion} since {moment(history[-1]['time'])}; "
        f"{counted(len(version['classes']), 'class', 'classes')}, accuracy {accuracy} on its hold-out"
    )
    if version["marks"]:
        console.out.print(f"it was trained on {counted(len(version['marks']), 'video')}, forgotten later")


def _print_passes(registry: Registry) -> None:
    rows = []
    for name in reversed(registry.passes()[-PASSES_SHOWN:]):
        decision = registry.decision(name)
        rows.append((
            name,
            decision["outcome"],
            decision["champion"] or NOTHING,
            decision["challenger"] or NOTHING,
            decision["verdict"],
        ))
    if rows:
        console.table("pass", "outcome", "champion", "challenger", "verdict", rows=rows)
    if last := registry.last():
        console.out.print(f"last look: {moment(last['time'])}: {last['sentence']}")


def _described(watcher: dict[str, object]) -> str:
    where = f"{watcher['host']}, process {watcher['process']}, {watcher['schedule']}"
    if not watcher["lives"]:
        return f"a watcher ({where}) was heard of last {moment(watcher['beat'])}: it was killed, or its machine is off"  # type: ignore[arg-type]
    following = "nothing is due" if watcher["next"] is None else f"the next pass is due {moment(watcher['next'])}"  # type: ignore[arg-type]
    return f"watched by {where}: {following}" + ("; one is at work" if watcher["working_since"] else "")


def _print_waiting(registry: Registry) -> None:
    last = registry.last() or {}
    for name, hint in (
        ("unlabelled", "without a label: posture review asks for them"),
        ("unsettled", "just changed: left for the next pass"),
    ):
        if uris := last.get(name):
            shown = ", ".join(uri.rpartition("/")[2] for uri in uris[:URIS_SHOWN])
            console.out.print(
                f"{counted(len(uris), 'file')} {hint} ({shown}{' ...' if len(uris) > URIS_SHOWN else ''})"
            )
    if last.get("status") == "waiting":
        console.out.print(f"{counted(last['new']['clips'], 'new clip')}, too few for a challenger yet")
