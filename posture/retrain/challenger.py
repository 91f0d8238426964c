"""The challenger of a pass: its name and its training."""

# the task of a run decides its type, which a checker cannot follow
# pyright: reportArgumentType=false

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

from posture.config import ActionRun, identity, override
from posture.data.store.files import remove_tree
from posture.display.text import counted
from posture.errors import Busy, InputError, Unreachable
from posture.retrain.pass_context import PassContext
from posture.runs.kinds import KINDS
from posture.runs.prepare import Session, prepare


def digest_of_wish(run: ActionRun, *, store: str, from_scratch: bool) -> str:
    """Return a digest of the request without the footage; a killed pass resumes only if it is the same."""
    return _digest(identity(run, without={"tracking"}) | {"store": store, "from_scratch": from_scratch})


def name_of(
    run: ActionRun, *, wish: str, champion: str | None, versions: dict[str, int], left_out: tuple[str, ...]
) -> str:
    """Return a name that is the same for the same request (`digest_of_wish`), champion and footage.

    So nothing is trained twice.
    """
    read = {name: versions.get(name) for name in KINDS[run.task].tables(run)}
    return f"{run.name[:80]}-{_digest({'asked': wish, 'champion': champion, 'left_out': left_out, 'versions': read})}"


def train(ctx: PassContext, plan: dict[str, Any]) -> str:
    """Train the challenger from its last checkpoint. Return why it cannot be trained, or ""."""
    folder = ctx.folder(plan)
    history = folder.history()
    if plan["step"] != "train" or (folder.checkpoints() and len(history) >= folder.record().run.chosen_epochs):
        return ""
    if not folder.exists():
        remove_tree(folder.uri)  # a killed pass may have begun to write it
    warm = ctx.champion is not None and not ctx.options.from_scratch
    changes = {"weights": ctx.registry.path("versions", ctx.champion)} if warm else {}
    try:
        session = prepare(
            override(ctx.run, changes),
            ctx.options.store,
            runs=ctx.runs,
            name=plan["run"],
            resume=folder.exists(),
            versions=plan["versions"],
            left_out=tuple(plan["left_out"]),
        )
    except InputError as error:
        if folder.exists():
            raise
        ctx.registry.end_current()
        hint = (
            f"; if {ctx.options.recipe} cannot start from {ctx.champion}, use --from-scratch, or --recipe with the "
            "recipe of the champion (improved was jobs/action.py:improved_paper before December 2026)"
        )
        hint = hint if warm else ""
        raise InputError(f"{error}{hint}") from None
    ctx.tell(
        f"training challenger {plan['run']}: {counted(len(session.train), 'clip')}, "
        f"{counted(len(session.classes), 'class', 'classes')}, "
        f"{counted(session.run.chosen_epochs, 'epoch')}"
        + (f"; {session.start}" if session.start else "")
        + (f"; resumes after epoch {len(history)}" if session.resumed else "")
    )
    begun: list[str] = []

    def on_device(name: str) -> None:
        begun.append(name)
        ctx.tell(f"running on {name}")

    try:
        outcome = fit(ctx, session, on_device)
    except InputError as error:
        # not the challenger's fault: a cluster that is gone or too small, a full disk
        if not begun or isinstance(error, Unreachable | Busy):
            raise
        return str(error)
    if outcome.get("stopped") == "asked":
        raise KeyboardInterrupt
    plan["step"] = "judge"
    ctx.write(plan, "current.json")
    return ""


def fit(ctx: PassContext, session: Session, on_device: Callable[[str], None]) -> dict[str, Any]:
    """Train the challenger to its end or to Ctrl-C, and return the result of training.

    `on_device` gets the device once training has begun. Raises InputError if it cannot be trained.
    """
    with ctx.progress("training") as advance:

        def on_progress(update: dict[str, Any]) -> None:
            done = (update["epoch"] - 1) * update["steps"] + update["step"]
            advance(done, update["epochs"] * update["steps"], f"epoch {update['epoch']}")

        def on_record(record: dict[str, Any]) -> None:
            if "train_loss" in record:
                ctx.tell(
                    f"epoch {record['epoch']:3d}  train loss {record['train_loss']:.4f}  val accuracy "
                    f"{record['val_accuracy']:.4f}"
                )

        return ctx.options.backend.train(session, on_progress=on_progress, on_record=on_record, on_device=on_device)


def _digest(content: dict[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=4).hexdigest()
