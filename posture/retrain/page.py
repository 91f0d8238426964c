"""The page of a decision of `posture retrain`: verdict, champion against challenger, classes, clips with changed
predictions, new footage, drift.
"""

# the task of a run decides its type, which a checker cannot follow
# pyright: reportArgumentType=false, reportOperatorIssue=false

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from posture.config import ActionRun, validate
from posture.data.feed.clips import index_footage
from posture.data.feed.shards import open_index
from posture.data.store.files import write_bytes
from posture.data.store.schema import SPLITS
from posture.data.store.tables import Store
from posture.display import html, text
from posture.display.charts import Chart, ChartLine, Interval, Intervals, ticks
from posture.display.text import NOTHING, THIN_SPACE, counted, decimal, listed, percent, short, signed
from posture.retrain.decision import beyond_chance
from posture.retrain.drift import BINS, describe_segments, measure
from posture.retrain.holdout import only_segments
from posture.retrain.registry import Registry

PAGE, DRIFT = "decision.html", "drift.json"
PARTS = {"frozen": "frozen", "new": "new", "both": "both"}
MAX_STRIPS = 12
"""Maximum number of clips of each kind: those that got worse, better, or are wrong in another way."""
MAX_REFUSED = 50
STRIP_FRAMES = 5

Frames = Mapping[str, Sequence[np.ndarray]]
"""{segment id: images, uint8 (H, W, 3)}."""


def publish(registry: Registry, pass_id: str, decision: Mapping[str, Any]) -> str:
    """Write the page of a pass, with drift and images from its store, and drift.json beside it; return the page's uri.

    Raises InputError if the store or a version is missing.
    """
    store = Store(decision["store"])
    drift = _drift(registry, pass_id, decision, store)
    if drift is not None:
        registry.write_json(drift, "passes", pass_id, DRIFT)
    frames: Frames = {}
    if decision["challenger"] is not None:
        run = validate(registry.version(decision["challenger"])["run"])
        frames = _images(
            store,
            run,
            [item["segment"] for _, items in _changed(decision["changed"]) for item in items],
            decision["versions"],
        )
    uri = registry.path("passes", pass_id, PAGE)
    write_bytes(uri, render(decision, drift=drift, frames=frames).encode("utf-8", "replace"))
    return uri


def render(decision: Mapping[str, Any], *, drift: Mapping[str, Any] | None = None, frames: Frames = {}) -> str:  # noqa: B006
    """Return the page of a decision.json. `drift` is the result of `posture.retrain.drift.measure`."""
    changed = _changed(decision["changed"])
    balances = [
        (title, _balance(decision["balance"][side], decision["balance"]))
        for title, side in (("Before", "before"), ("After", "after"))
    ]
    parts = ("frozen", "new") if decision["champion"] else ("new",)
    return html.render(
        "decision.html",
        decision=decision,
        title=title_of(decision),
        subtitle=_subtitle(decision),
        tiles=_tiles(decision),
        sets=_sets(decision["sets"]),
        differences=_differences(decision["sets"]),
        parts=parts,
        per_class=[_class_row(row, parts) for row in decision["per_class"]],
        changed=[
            (
                heading,
                [
                    item
                    | {
                        "frames": frames.get(item["segment"], ()),
                        "origin": html.origin(item["uri"], item["start"]),
                        "was_right": item["champion"] == item["truth"],
                        "is_right": item["challenger"] == item["truth"],
                    }
                    for item in items
                ],
            )
            for heading, items in changed
        ],
        lost_count=sum(item["champion"] == item["truth"] for item in decision["changed"]),
        gained_count=sum(item["challenger"] == item["truth"] for item in decision["changed"]),
        came_in=_came_in(decision["came_in"]),
        balances=balances,
        split_names=SPLITS,
        largest=max((row["total"] for _, rows in balances for row in rows), default=1) or 1,
        left_out=_left_out(decision["left_out"]),
        refused=decision["refused_files"][:MAX_REFUSED],
        verdicts=", ".join(
            f"{verdict}: {count}"
            for verdict, count in Counter(row["verdict"] for row in decision["refused_files"]).most_common()
        ),
        waiting=_waiting(decision),
        drift=drift,
        drift_sentence=drift_sentence(drift) if drift else "",
        confidence=_confidence(drift) if drift else None,
        facts=_facts(decision),
    )


def title_of(decision: Mapping[str, Any]) -> str:
    """Return `v0003 replaces v0002`, `v0002 stays`, ..."""
    champion, challenger = decision["champion"], decision["challenger"]
    if decision["outcome"] == "promoted":
        return f"{challenger} replaces {champion}" if champion else f"{challenger} is the first champion"
    return f"{champion} stays" if champion else "No champion yet"


def drift_sentence(drift: Mapping[str, Any]) -> str:
    """Return the drift in sentences."""
    confidence, sentences = drift["confidence"], []
    if not drift["shared"]:
        unknown, old = (percent(confidence["mean"][side]) for side in ("unknown", "old"))
        return (
            "All new footage is of classes that the frozen hold-out does not have: the champion's confidence is "
            f"{unknown} there, {old} on the frozen hold-out."
        )
    if drift["too_few"]:
        sentences.append(f"Drift of the features cannot be measured: {drift['too_few']}.")
    else:
        auc = drift["auc"]
        measured = f"AUC {auc['value']:.2f}, 95{THIN_SPACE}% interval {auc['low']:.2f} to {auc['high']:.2f}"
        shifted = [row["class"] for row in drift["classes"] if row["shifted"]]
        if auc["low"] > 0.5:
            mostly = f", mostly in {_listed(shifted[:3])}" if shifted else ""
            sentences.append(f"The new footage differs from the old ({measured}){mostly}.")
        else:
            sentences.append(f"The new footage does not differ from the old beyond chance ({measured}).")
    if (change := confidence["difference"]) is not None:
        direction = "falls" if change["high"] < 0 else "rises" if change["low"] > 0 else None
        beyond = (
            f"{direction} by {100 * abs(change['value']):.1f} points" if direction else "does not change beyond chance"
        )
        means = (percent(confidence["mean"][side]) for side in ("old", "new"))
        sentences.append("The champion's confidence {} ({} on the old footage, {} on the new).".format(beyond, *means))
    return " ".join(sentences)


def _drift(registry: Registry, pass_id: str, decision: Mapping[str, Any], store: Store) -> dict[str, Any] | None:
    """Measure the drift between the frozen hold-out and the new footage; None without a champion or one of the two."""
    frozen = (decision["holdout"].get("frozen") or {}).get("segments")
    new = set((registry.read_json("passes", pass_id, "segments.json") or {"new": []})["new"]) - set(frozen or ())
    if decision["champion"] is None or not frozen or not new:
        return None
    run = validate(registry.version(decision["champion"])["run"])
    with registry.checkpoint(decision["champion"]) as weights:
        sides = [
            describe_segments(store, run, weights, segments, versions=decision["versions"])
            for segments in (frozen, new)
        ]
    return measure(*sides) if all(len(side.labels) for side in sides) else None


def _images(store: Store, run: ActionRun, segments: Sequence[str], versions: dict[str, int]) -> Frames:
    """Return a few frames of the first stored clip of each segment; all segments are in the hold-out."""
    index = only_segments(index_footage(store, "test", versions=versions, recipe=run.data.recipe), set(segments))
    if not len(index):
        return {}
    numbers, first = np.unique(index.segments, return_index=True)
    footage = open_index(replace(index.part(np.sort(first)), inputs=("rgb",)), feed="materialize")
    index_of = {int(clip): at for at, clip in enumerate(np.sort(first))}
    return {
        index.segment_ids[number]: html.spread(footage.clip(index_of[int(clip)]), STRIP_FRAMES)
        for number, clip in zip(numbers, first, strict=True)
    }


def _changed(changed: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return the clips to show, the most confident predictions first, those that got worse before all others."""
    kinds: dict[str, list[dict[str, Any]]] = {
        "Correct before, wrong now": [],
        "Wrong before, correct now": [],
        "Wrong in both, in another way": [],
    }
    for item in changed:
        kind = 0 if item["champion"] == item["truth"] else 1 if item["challenger"] == item["truth"] else 2
        list(kinds.values())[kind].append(dict(item))
    return [(heading, items[:MAX_STRIPS]) for heading, items in kinds.items() if items]


def _subtitle(decision: Mapping[str, Any]) -> list[str]:
    started, ended = decision["started"], decision["ended"]
    return [f"pass {decision['pass']}", text.moment(ended), f"{html.duration(ended - started)} from start to decision"]


def _tiles(decision: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    both = decision["sets"].get("both")
    came = decision["came_in"]
    new = (
        "New footage",
        text.whole(came["segments"]),
        f"segments, and {_counted(sum(came['groups'].values()), 'new group')}",
    )
    if both is None:
        return [new]
    held_out = "hold-out segments" + (", frozen and new" if len(_present(decision["sets"])) > 1 else "")
    ours = (
        "Challenger",
        percent(both["challenger"]["accuracy"]["value"]),
        f"accuracy on {both['segments']:,} {held_out}",
    )
    if both["champion"] is None:
        return [ours, ("mAP", decimal(both["challenger"]["map"]["value"]), "mean average precision"), new]
    found = both["difference"]["accuracy"]
    return [
        ours,
        ("Champion", percent(both["champion"]["accuracy"]["value"]), "on the same segments"),
        ("Difference", signed(100 * found["difference"]), f"points, 95{THIN_SPACE}% interval {_span(found)}"),
        new,
    ]


def _sets(sets: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for part in _present(sets):
        found = sets[part]
        row = {
            "name": PARTS[part],
            "segments": found["segments"],
            "groups": found["groups"],
            "challenger": percent(found["challenger"]["accuracy"]["value"]),
        }
        if found["champion"] is not None:
            accuracy = found["difference"]["accuracy"]
            row |= {
                "champion": percent(found["champion"]["accuracy"]["value"]),
                "points": signed(100 * accuracy["difference"]),
                "interval": _span(accuracy),
            }
        rows.append(row)
    return rows


def _present(sets: Mapping[str, Any]) -> list[str]:
    """Return the existing parts of the hold-out; if there is only one, the whole is the same and is not listed."""
    present = [part for part in PARTS if sets.get(part)]
    return present[:1] if len(present) == 2 else present


def _differences(sets: Mapping[str, Any]) -> list[Intervals]:
    """Draw the challenger's lead on each part of the hold-out, in points, with its interval."""
    rows = []
    for part in _present(sets):
        name, found = PARTS[part], sets[part]["difference"]
        if found:
            one = found["accuracy"]
            low, high = (None if one[key] is None else 100 * one[key] for key in ("low", "high"))
            look = "unsure" if low is None or high is None or low <= 0 <= high else "right" if low > 0 else "wrong"
            rows.append(
                Interval(
                    name,
                    100 * one["difference"],
                    low,
                    high,
                    look,
                    f"{name}: {signed(100 * one['difference'])} points, {_span(one)}",
                )
            )
    reach = [value for row in rows for value in (row.value, row.low, row.high) if value is not None]
    return (
        [Intervals("Accuracy", "points ahead of the champion →", ticks(min(0.0, *reach), max(0.0, *reach), 4), rows)]
        if rows
        else []
    )


def _class_row(row: Mapping[str, Any], parts: Sequence[str]) -> dict[str, Any]:
    cells = []
    for part in parts:
        found = row[part] or {"segments": 0, "champion": None, "challenger": None, "change": None, "p": None}
        look = "" if not beyond_chance(found) else "fallen" if found["change"] < 0 else "risen"
        cells.append(
            found | {"points": NOTHING if found["change"] is None else signed(100 * found["change"], 0), "look": look}
        )
    return {"class": row["class"], "status": row["status"], "cells": cells}


def _came_in(came: Mapping[str, Any]) -> str:
    groups = ", ".join(f"{count:,} {split}" for split, count in came["groups"].items() if count)
    went = f"; new groups are split into {groups}" if groups else ""
    sentences = [f"{_counted(came['segments'], 'segment')} with {_counted(came['clips'], 'clip')}{went}."]
    if came["new_classes"]:
        sentences.append(
            f"New {'class' if len(came['new_classes']) == 1 else 'classes'}: {_listed(came['new_classes'])}."
        )
    for key, what in (("relabelled", "With another label, group or split than before"), ("removed", "Removed since")):
        if came[key]:
            sentences.append(f"{what}: {_counted(came[key], 'segment')}.")
    return " ".join(sentences)


def _balance(counts: Mapping[str, Mapping[str, int]], sides: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for every class of either side, so that both have the same rows."""
    names = sorted({name for side in sides.values() for name in side})
    rows = [(name, counts.get(name, {})) for name in names]
    return [
        {"class": name, "counts": [(split, own.get(split, 0)) for split in SPLITS], "total": sum(own.values())}
        for name, own in rows
    ]


def _left_out(left_out: Mapping[str, int]) -> str:
    waiting = [f"{name} ({counted(count, 'training clip')})" for name, count in left_out.items()]
    return (
        f"Classes not trained yet, with too few clips or none in the hold-out: {_listed(waiting)}." if waiting else ""
    )


def _waiting(decision: Mapping[str, Any]) -> list[str]:
    lines = []
    if decision["unsettled"]:
        lines.append(
            f"Left for the next pass because they were still changing: {_counted(decision['unsettled'], 'file')}."
        )
    if decision["unlabelled"]:
        files = _counted(decision["unlabelled"], "file")
        lines.append(f"Without a label: {files}; posture review asks about the most useful ones.")
    return lines


def _confidence(drift: Mapping[str, Any]) -> Chart | None:
    """Draw histograms of the champion's confidence, as steps."""
    looks = {"old": ("frozen hold-out", "first"), "new": ("new footage", "second"), "unknown": ("new classes", "third")}
    histograms = {side: shares for side, shares in drift["confidence"]["histogram"].items() if shares}
    if not histograms:
        return None
    lines = []
    for side, shares in histograms.items():
        name, look = looks[side]
        corners = [(edge / BINS, share) for index, share in enumerate(shares) for edge in (index, index + 1)]
        lines.append(
            ChartLine(
                f"{name}, mean {percent(drift['confidence']['mean'][side], 0)}",
                [(0.0, 0.0), *corners, (1.0, 0.0)],
                look,
            )
        )
    highest = max(share for shares in histograms.values() for share in shares)
    return Chart(
        "Confidence",
        "probability of the champion's prediction",
        "share of segments",
        ticks(0, 1),
        ticks(0, highest),
        lines,
    )


def _facts(decision: Mapping[str, Any]) -> list[tuple[str, str]]:
    training, limits = decision["training"], decision["limits"]
    found = [
        ("Footage", decision["footage"]),
        ("Store", decision["store"]),
        ("Table versions", ", ".join(f"{name}{THIN_SPACE}{version}" for name, version in decision["versions"].items())),
        ("Recipe", decision["recipe"]),
        ("Started from", decision["start_sentence"] or decision["start"]),
        ("Challenger's run", decision["run_folder"]),
    ]
    if training:
        found.append((
            "Training",
            f"{counted(training['epochs'], 'epoch')}, the best {training['best_epoch']}; "
            f"{counted(training['train'], 'clip')}, {training['val']:,} for validation; "
            f"{html.duration(training['seconds'])}",
        ))
    if limits:
        found.append((
            "Limits",
            f"margin {_points(limits['margin'])}, tolerance {_points(limits['tolerance'])}, "
            f"significant loss of a class {_points(limits['max_class_drop'])} points; "
            f"recall of a new class at least {percent(limits['recall_floor'], 0)}",
        ))
    if decision["rule"]:
        found.append(("Rule", decision["rule"]))
    return found + [("Registry", decision["registry"]), ("Baseline", decision["baseline"] or "none: the first pass")]


def _span(found: Mapping[str, float | None]) -> str:
    return (
        "none: only one group"
        if found["low"] is None
        else f"{signed(100 * found['low'])} to {signed(100 * found['high'])}"
    )


def _points(share: float) -> str:
    return f"{100 * share:.1f}"


def _counted(things: int | Sequence[Any], one: str) -> str:
    return counted(things if isinstance(things, int) else len(things), one)


def _listed(words: Sequence[str]) -> str:
    return listed([short(word, 40) for word in words])
