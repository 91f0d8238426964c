"""`posture watch`: passes on a schedule in this process. `posture status`: what a registry is up to."""

from __future__ import annotations

import sys
import traceback
from datetime import UTC, datetime

from posture.commands.retrain import retrain_once
from posture.config import override
from posture.data.store.lease import holder
from posture.display import console
from posture.display.text import NOTHING, counted, moment, percent
from posture.errors import InputError
from posture.retrain.heartbeats import Heartbeat, watchers
from posture.retrain.intake import look_for
from posture.retrain.registry import Registry
from posture.retrain.run_pass import RetrainOptions
from posture.retrain.watch import PassWatcher, trigger_of
from posture.runs.recipes import load_recipe

PASSES_SHOWN = 5
URIS_SHOWN = 3


def watch_footage(options: RetrainOptions, *, every: str | None, cron: str | None, timezone: str | None) -> None:
    """Passes until KeyboardInterrupt. Raises InputError for footage that is not there, and for a schedule, a recipe
    or a change of it that cannot be understood."""
    override(load_recipe(options.recipe), options.changes)  # now, not at three in the morning
    look_for(options.footage)
    trigger = trigger_of(every=every, cron=cron, timezone=timezone)
    schedule = f"every {every}" if every else f"cron {cron}, {timezone or 'local time'}"
    registry = Registry(options.registry, create=True)
    heartbeat = Heartbeat(registry, schedule=schedule, footage=options.footage)
    watcher = PassWatcher(
        trigger, lambda: _pass(options, watcher), beat=heartbeat.beat, tell=_say, at_once=every is not None
    )
    _say(
        f"watching {options.footage} ({schedule}); Ctrl-C ends it, and a pass that it interrupts is finished by the next one"
    )
    try:
        watcher.run()
    finally:
        heartbeat.end()
        _say("the watch has ended")


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
            f"pass {current['pass']} was interrupted at the step {current['step']}; the next posture retrain finishes it"
        )
    for watcher in watchers(registry):
        console.out.print(_told(watcher))
    _print_waiting(registry)


def _pass(options: RetrainOptions, watcher: PassWatcher) -> None:
    """One pass, whose failure is told and no more."""
    try:
        retrain_once(options)
    except InputError as error:
        _say(f"the pass was not done: {error}")
    except SystemExit:  # a challenger that could not be trained: the pass has said so
        pass
    except Exception:
        traceback.print_exc()
        _say(f"the pass failed: {traceback.format_exc(limit=0).strip().splitlines()[-1]}")
    finally:
        if "ray" in sys.modules:
            from posture.distributed.cluster import disconnect

            disconnect()  # it would hold memory until the next one
    if following := watcher.next_time:
        _say(f"the next pass is due {moment(following)}")


def _say(line: str) -> None:
    console.out.print(f"{moment(datetime.now(UTC))}: {line}")


def _print_champion(registry: Registry) -> None:
    champion, history = registry.champion(), registry.history()
    if champion is None:
        console.out.print(f"{registry.uri}: no champion yet")
        return
    version = registry.version(champion)
    accuracy = percent((version["metrics"] or {}).get("accuracy"))
    console.out.print(
        f"champion: {champion} since {moment(history[-1]['time'])}; {counted(len(version['classes']), 'class', 'classes')}, "
        f"accuracy {accuracy} on its hold-out"
    )
    if version["marks"]:
        console.out.print(f"it was trained on {counted(len(version['marks']), 'video')} forgotten since")


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


def _told(watcher: dict[str, object]) -> str:
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
