"""`posture watch`: passes on a schedule, in this process."""

from __future__ import annotations

import sys
import traceback
from datetime import UTC, datetime

from cyclopts import App

from posture.commands.retrain import RetrainArguments, retrain_once
from posture.config import override
from posture.display import console
from posture.display.text import moment
from posture.errors import InputError
from posture.retrain.intake import look_for
from posture.retrain.options import RetrainOptions
from posture.retrain.registry import Registry
from posture.retrain.watch import Heartbeat, PassWatcher, schedule_of
from posture.runs.recipes import load_recipe

command = App(
    name="watch", help_epilogue="Example: posture watch --footage INBOX --store STORE --registry REGISTRY --every 6h"
)


@command.default
def watch(
    *, arguments: RetrainArguments, every: str | None = None, cron: str | None = None, timezone: str | None = None
) -> None:
    """Repeat the pass of `posture retrain` on a schedule, in this process, until Ctrl-C. A pass that fails is reported,
    and the schedule continues.

    Parameters
    ----------
    every
        Start a pass now, and then after each interval: 30m, 6h, 2d ...
    cron
        Start passes at these times, in the syntax of crontab: `"0 3 * * *"` is every day at three.
    timezone
        Time zone of --cron, such as Europe/Berlin; by default this machine's.
    """
    watch_footage(arguments.complete(), every=every, cron=cron, timezone=timezone)


def watch_footage(options: RetrainOptions, *, every: str | None, cron: str | None, timezone: str | None) -> None:
    """Run passes until KeyboardInterrupt.

    Raises InputError for missing footage, and for a schedule, a recipe or a change of it that is not valid.
    """
    override(load_recipe(options.recipe), options.changes)  # now, not at three in the morning
    look_for(options.inbox.footage)
    schedule = schedule_of(every=every, cron=cron, timezone=timezone)
    words = f"every {every}" if every else f"cron {cron}, {timezone or 'local time'}"
    registry = Registry(options.registry, create=True)
    heartbeat = Heartbeat(registry, schedule=words, footage=options.inbox.footage)
    watcher = PassWatcher(schedule, lambda: _pass(options), beat=heartbeat.beat, report=_say, at_once=every is not None)
    _say(
        f"watching {options.inbox.footage} ({words}); Ctrl-C ends this, and the next pass finishes a pass that it "
        "interrupts"
    )
    try:
        watcher.run()
    finally:
        heartbeat.end()
        _say("the watch has ended")


def _pass(options: RetrainOptions) -> None:
    """Run one pass; report its failure without raising it."""
    try:
        retrain_once(options)
    except InputError as error:
        _say(f"the pass did not run: {error}")
    except SystemExit:  # the pass has reported why its challenger could not be trained
        pass
    except Exception:
        traceback.print_exc()
        _say(f"the pass failed: {traceback.format_exc(limit=0).strip().splitlines()[-1]}")
    finally:
        if "ray" in sys.modules:
            from posture.distributed.cluster import disconnect

            disconnect()  # Ray would hold memory until the next pass


def _say(line: str) -> None:
    console.out.print(f"{moment(datetime.now(UTC))}: {line}")
