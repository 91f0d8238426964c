"""The decision of a pass: both models' answers, the new version, decision.json and its evidence."""

# the task of a run decides its type, which a checker cannot follow
# pyright: reportArgumentType=false, reportOptionalSubscript=false

from __future__ import annotations

import time
from typing import Any

import numpy as np

from posture.config import validate
from posture.data.feed.origins import places_of
from posture.retrain.comparison import Answers
from posture.retrain.decision import judge
from posture.retrain.holdout import Model, ask, figures, write_predictions
from posture.retrain.pass_context import PassContext
from posture.retrain.registry import WEIGHTS
from posture.runs.floor import floor_run, floor_weights
from posture.runs.folder import RunRecord
from posture.runs.prepare import software

FORMAT = 1
"""Format of decision.json."""


def decide(ctx: PassContext, plan: dict[str, Any]) -> dict[str, Any]:
    """Judge the challenger beside the champion, add it as a version, and write and return decision.json."""
    folder = ctx.folder(plan)
    record = folder.record()
    before = ctx.registry.version(ctx.champion) if ctx.champion else None
    challenger = Model(record.run, record.classes, folder.checkpoint("best"))
    champion = before and Model(
        validate(before["run"]), tuple(before["classes"]), ctx.registry.checkpoint(before["version"])
    )
    alone = champion is None and not record.run.model.solved
    floor = Model(floor_run(record), record.classes, floor_weights(folder)) if alone else None
    said = ctx.registry.read_json("passes", plan["pass"], "segments.json")["segments"]
    held_out = {segment: of for segment, of in said.items() if of[1] == "test"}
    frozen = frozenset(before["holdout"] if before else ())
    answers = ask(
        ctx.store,
        plan["versions"],
        held_out,
        frozen,
        challenger,
        champion,
        floor=floor,
        backend=ctx.options.backend,
        workers=ctx.run.scale.sizes[0],
        progress=ctx.progress,
    )
    return _record(
        ctx, plan, record, answers, judge(answers, ctx.options.limits), missing=len(frozen - set(answers.segments))
    )


def _record(
    ctx: PassContext, plan: dict[str, Any], record: RunRecord, answers: Answers, judged: dict[str, Any], *, missing: int
) -> dict[str, Any]:
    """Add the version; write the decision and its evidence."""
    folder = ctx.folder(plan)
    history = folder.history()
    best = max(history, key=lambda row: row[f"val_{ctx.run.metric}"])
    metrics = {
        "challenger": figures(answers, answers.challenger, answers.known),
        "champion": figures(answers, answers.champion, answers.known_before),
    }
    version = {
        "parent": plan["champion"],
        "pass": plan["pass"],
        "run": record.run.model_dump(mode="json"),
        "recipe": ctx.options.recipe,
        "run_folder": folder.uri,
        "store": ctx.store.uri,
        "footage_versions": plan["versions"],
        "classes": record.classes,
        "left_out": plan["left_out"],
        "metrics": metrics["challenger"],
        "decision": {name: judged[name] for name in ("outcome", "verdict")},
        "holdout": answers.segments,
        "trained_on": {split: counts["clips"] for split, counts in record.footage.items()},
        "software": software(),
    }
    ctx.lease.check()
    with folder.checkpoint("best") as weights:
        name = ctx.registry.add(version, weights / WEIGHTS)
    write_predictions(ctx.registry.path("passes", plan["pass"], "predictions.parquet"), answers)
    parts = {"frozen": answers.frozen, "new": ~answers.frozen}
    holdout = {
        part: {
            "segments": [answers.segments[row] for row in np.flatnonzero(chosen)],
            "groups": len({answers.groups[row] for row in np.flatnonzero(chosen)}),
        }
        for part, chosen in parts.items()
    }
    holdout["frozen"]["missing"] = missing
    training = {
        "epochs": len(history),
        "best_epoch": best["epoch"],
        "metric": ctx.run.metric,
        "best": best[f"val_{ctx.run.metric}"],
        **version["trained_on"],
        "seconds": sum(row["seconds"] for row in history),
    }
    return _written(
        ctx,
        plan,
        judged
        | {
            "challenger": name,
            "start_sentence": record.start,
            "holdout": holdout,
            "training": training,
            "changed": _placed(ctx, judged["changed"], plan),
            "challenger_metrics": metrics["challenger"],
            "champion_metrics": metrics["champion"],
        },
    )


def write_failure(ctx: PassContext, plan: dict[str, Any], why: str) -> dict[str, Any]:
    """Write the decision about a challenger that could not be trained; it is not tried again until something is
    new.
    """
    verdict = f"Failed: the challenger could not be trained: {why}."
    none = ("rule", "level", "challenger", "training", "challenger_metrics", "champion_metrics")
    return _written(
        ctx,
        plan,
        {"outcome": "failed", "verdict": verdict, "reasons": [why], "rule_sentence": "", "start_sentence": ""}
        | {"classes": {"shared": [], "new": [], "gone": []}, "limits": {}, "sets": {}, "holdout": {}}
        | {"checks": [], "per_class": [], "changed": [], **dict.fromkeys(none)},
    )


def _written(ctx: PassContext, plan: dict[str, Any], judged: dict[str, Any]) -> dict[str, Any]:
    look = {name: plan["look"][name] for name in ("unsettled", "unlabelled")}
    decision = (
        {
            "format": FORMAT,
            "pass": plan["pass"],
            "started": plan["started"],
            "ended": time.time(),
            "registry": ctx.registry.uri,
            "store": ctx.store.uri,
            "footage": plan["look"]["footage"],
            "recipe": ctx.options.recipe,
            "run_folder": ctx.folder(plan).uri,
            "versions": plan["versions"],
            "champion": plan["champion"],
            "baseline": plan["baseline"],
            "start": "scratch" if ctx.champion is None or ctx.options.from_scratch else "champion",
        }
        | plan["record"]
        | look
        | judged
    )
    ctx.write(decision, "passes", plan["pass"], "decision.json")
    return decision


def _placed(ctx: PassContext, changed: list[dict[str, Any]], plan: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the segments whose prediction changed, with their place in a video."""
    places = places_of(ctx.store, [item["segment"] for item in changed], versions=plan["versions"])
    return [
        item
        | {"video": (place := places[item["segment"]]).video, "uri": place.uri, "start": place.start, "end": place.end}
        for item in changed
    ]
