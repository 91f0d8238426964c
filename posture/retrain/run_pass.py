"""One pass of retraining: ingest what is new, train a challenger, compare it with the champion, and promote it or not.

A pass is idempotent: if nothing is new, it ends in seconds and changes nothing. Its plan is written first
(`current.json` in the registry), so that the next pass finishes one that was killed: the challenger's name depends on
all its inputs, it resumes from its last checkpoint, a version is added once, and the pointer to the champion changes
last. One pass at a time holds the registry's lease.

The steps: `take_in` (intake.py) -> `_plan`: is it enough, and of which versions of the tables -> `train`
(challenger.py) -> `decide` (write_decision.py) -> `_conclude`: pointer, page, notifications.
"""

# the task of a run decides its type, which a checker cannot follow
# pyright: reportArgumentType=false

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from posture.config import ActionRun, override
from posture.data.store.files import absolute, exists
from posture.data.store.tables import Store
from posture.display.text import counted, duration
from posture.errors import InputError
from posture.retrain.challenger import digest_of_wish, name_of, train
from posture.retrain.intake import Intake, look_for, refuse_uncuttable, take_in
from posture.retrain.new_data import arrivals, segments_record
from posture.retrain.notify import notify
from posture.retrain.options import RetrainOptions
from posture.retrain.pass_context import PassContext, Progress, Tell, silent
from posture.retrain.registry import WEIGHTS, Registry
from posture.retrain.write_decision import decide, write_failure
from posture.runs.recipes import load_recipe


@dataclass
class PassResult:
    """Result of a pass."""

    status: str
    """promoted, refused or failed if a challenger was judged; waiting if too little is new; nothing if nothing is
    new.
    """
    sentence: str
    pass_id: str | None
    decision: dict[str, Any] | None
    look: dict[str, Any]
    """Content of the registry's last.json."""


def run_pass(options: RetrainOptions, *, tell: Tell = lambda _: None, progress: Progress = silent) -> PassResult:
    """Run one pass; `tell` gets a line per step.

    Raises Busy if another pass is running, InputError, and KeyboardInterrupt at Ctrl-C, after training has saved a
    checkpoint, from which the next pass resumes.
    """
    run = override(load_recipe(options.recipe), options.changes)
    if run.pretext or not isinstance(run, ActionRun):
        does = "learns without labels" if run.pretext else "trains a detector"
        raise InputError(
            f"{options.recipe} {does}; posture retrain is for action classifiers, such as jobs/action.py:improved"
        )
    look_for(options.inbox.footage)
    registry = Registry(options.registry, create=True)
    if not exists(registry.uri):
        refuse_uncuttable(options.inbox, Store(options.store, create=True), run)
    with registry.lease() as lease:
        store = Store(options.store, create=True)
        wish = digest_of_wish(run, store=store.uri, from_scratch=options.from_scratch)
        return _go(PassContext(options, run, registry, lease, store, registry.champion(), wish, tell, progress))


def _go(ctx: PassContext) -> PassResult:
    plan = _unfinished(ctx) or _plan(ctx, _take_in(ctx))
    if isinstance(plan, PassResult):
        return plan
    decided = ctx.registry.read_json("passes", plan["pass"], "decision.json")
    if decided is None:
        failure = train(ctx, plan)
        decided = write_failure(ctx, plan, failure) if failure else decide(ctx, plan)
    return _conclude(ctx, plan, decided)


def _take_in(ctx: PassContext) -> Intake:
    ctx.tell(f"looking for new footage in {ctx.options.inbox.footage}")
    found = take_in(
        ctx.options.inbox,
        ctx.store,
        ctx.run,
        ctx.registry.read_json("settling.json") or {},
        backend=ctx.options.backend,
        progress=ctx.progress,
    )
    ctx.write(found.memory, "settling.json")
    for report in found.reports:
        ctx.tell(
            f"ingested {counted(report.decoded, 'file')}, {counted(report.segments, 'segment')}, "
            f"{counted(report.clips, 'clip')}; "
            f"{len(report.refused):,} refused"
        )
    if found.unsettled:
        why = still_changing(found.unsettled, ctx.options.inbox.settle)
        ctx.tell(f"{why}; left for the next pass: {_some(found.unsettled)}")
    return found


def still_changing(files: list[str], settle: float) -> str:
    """Return why files are left for the next pass."""
    still = "is" if len(files) == 1 else "are"
    return (
        f"{counted(len(files), 'file')} changed in the last {duration(settle)}, or {still} still "
        f"changing (--settle {settle:g})"
    )


def _plan(ctx: PassContext, found: Intake) -> dict[str, Any] | PassResult:
    """Return and store the plan of what to train and judge; or the result if there is nothing to do."""
    passes, store = ctx.registry.passes(), ctx.store
    baseline = passes[-1] if passes else None
    known = ctx.registry.version(ctx.champion)["classes"] if ctx.champion else ()
    versions = store.versions()
    new = arrivals(
        store,
        versions,
        ctx.registry.read_json("passes", baseline, "segments.json") if baseline else None,
        recipe=ctx.run.data.recipe,
        known=known,
        min_per_class=ctx.options.min_per_class,
    )
    look = {
        "time": time.time(),
        "footage": absolute(ctx.options.inbox.footage),
        "store": store.uri,
        "unsettled": found.unsettled,
        "unlabelled": found.unlabelled,
        "refused_files": new.refused,
        "new": {"clips": new.new_clips.total(), "classes": dict(new.new_clips)},
    }
    if not ctx.options.force and new.new_clips.total() < max(1, ctx.options.min_clips):
        return _leave(ctx, look, new.left_out)
    name = name_of(ctx.run, wish=ctx.wish, champion=ctx.champion, versions=versions, left_out=tuple(new.left_out))
    plan = {
        "pass": ctx.registry.new_pass(),
        "step": "train",
        "started": time.time(),
        "asked": ctx.wish,
        "versions": versions,
        "run": name,
        "champion": ctx.champion,
        "baseline": baseline,
        "left_out": list(new.left_out),
        "look": look,
        "record": new.record(known),
    }
    ctx.write(segments_record(new, baseline), "passes", plan["pass"], "segments.json")
    ctx.registry.write_json(plan, "current.json")
    ctx.tell(
        f"new: {counted(look['new']['clips'], 'training clip')} of "
        f"{', '.join(sorted(new.new_clips)) or 'no class'}; this is pass {plan['pass']}"
    )
    return plan


def _leave(ctx: PassContext, look: dict[str, Any], left_out: dict[str, int]) -> PassResult:
    """Store and return the reason why nothing is trained."""
    clips = look["new"]["clips"]
    reasons = (
        [f"{counted(clips, 'new training clip')}, and a challenger needs {ctx.options.min_clips:,} (--min-clips)"]
        if clips
        else []
    )
    if left_out:
        reasons.append(
            f"{', '.join(left_out)}: a new class needs {counted(ctx.options.min_per_class, 'training clip')} and "
            "a held-out group"
        )
    if look["unsettled"]:
        reasons.append(still_changing(look["unsettled"], ctx.options.inbox.settle))
    status = "waiting" if reasons else "nothing"
    sentence = (
        f"waiting: {'; '.join(reasons)}"
        if reasons
        else f"nothing new; {'the champion stays' if ctx.champion else 'there is no champion yet'}"
    )
    look = look | {"status": status, "sentence": sentence, "pass": None}
    ctx.write(look, "last.json")
    return PassResult(status, sentence, None, None, look)


def _unfinished(ctx: PassContext) -> dict[str, Any] | None:
    """Return the plan of a pass that was killed if it is still valid.

    Another recipe, another champion or forgotten footage make it invalid.
    """
    plan = ctx.registry.current()
    if plan is None:
        return None
    forgotten = any(mark["time"] > plan["started"] for mark in ctx.store.forgotten().values())
    if plan["asked"] != ctx.wish or forgotten or (plan["champion"] != ctx.champion and not _concluded(ctx, plan)):
        ctx.tell(
            f"pass {plan['pass']} was not finished, and is dropped: the recipe, the champion or the footage has changed"
        )
        ctx.registry.end_current()
        return None
    ctx.tell(f"resuming pass {plan['pass']}, which was interrupted")
    return plan


def _concluded(ctx: PassContext, plan: dict[str, Any]) -> bool:
    return any(entry["pass"] == plan["pass"] for entry in ctx.registry.history())


def _conclude(ctx: PassContext, plan: dict[str, Any], decision: dict[str, Any]) -> PassResult:
    """Switch the pointer, send notifications, and end the pass. All of it may be repeated."""
    ctx.lease.check()
    if decision["outcome"] == "promoted":
        ctx.registry.promote(decision["challenger"], why=decision["verdict"], by_pass=plan["pass"])
    for problem in [*publish(ctx.registry, plan["pass"], decision), *notify(ctx.options.notification, decision)]:
        ctx.tell(problem)
    look = plan["look"] | {
        "time": time.time(),
        "status": decision["outcome"],
        "sentence": decision["verdict"],
        "pass": plan["pass"],
    }
    ctx.registry.write_json(look, "last.json")
    ctx.registry.end_current()
    return PassResult(decision["outcome"], decision["verdict"], plan["pass"], decision, look)


def publish(registry: Registry, pass_id: str, decision: dict[str, Any]) -> list[str]:
    """Publish a decision as a page and, if wanted, in W&B. Return what went wrong, in sentences; it never stops the
    pass.
    """
    from posture.retrain import page
    from posture.runs.tracking import log_version

    problems = []
    try:
        page.publish(registry, pass_id, decision)
    except Exception as error:  # the decision holds even without its page
        problems.append(f"the decision's page could not be written ({type(error).__name__}: {error})")
    if decision["challenger"] is None:
        return problems
    version = registry.version(decision["challenger"])
    with registry.checkpoint(version["version"]) as weights:
        problem = log_version(
            registry.uri,
            weights / WEIGHTS,
            version,
            alias="champion" if decision["outcome"] == "promoted" else "challenger",
        )
    return [*problems, problem] if problem else problems


def _some(uris: list[str]) -> str:
    return ", ".join(uris[:3]) + (" ..." if len(uris) > 3 else "")
