"""The page of a decision of `posture retrain`: verdict, champion against challenger, classes, clips with changed
predictions, new footage, drift.
"""

# the task of a run decides its type, which a checker cannot follow
# pyright: reportArgumentType=false

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
from posture.display.text import THIN_SPACE, counted, listed, percent, short
from posture.retrain.holdout import only_segments
from posture.retrain.page_comparison import class_row, differences, set_rows, tiles
from posture.retrain.page_drift import confidence_chart, drift_sentence, measure_drift
from posture.retrain.registry import Registry

PAGE, DRIFT = "decision.html", "drift.json"
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
    drift = measure_drift(registry, pass_id, decision, store)
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
        tiles=tiles(decision),
        sets=set_rows(decision["sets"]),
        differences=differences(decision["sets"]),
        parts=parts,
        per_class=[class_row(row, parts) for row in decision["per_class"]],
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
        confidence=confidence_chart(drift) if drift else None,
        facts=_facts(decision),
    )


def title_of(decision: Mapping[str, Any]) -> str:
    """Return `v0003 replaces v0002`, `v0002 stays`, ..."""
    champion, challenger = decision["champion"], decision["challenger"]
    if decision["outcome"] == "promoted":
        return f"{challenger} replaces {champion}" if champion else f"{challenger} is the first champion"
    return f"{champion} stays" if champion else "No champion yet"


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


def _points(share: float) -> str:
    return f"{100 * share:.1f}"


def _counted(things: int | Sequence[Any], one: str) -> str:
    return counted(things if isinstance(things, int) else len(things), one)


def _listed(words: Sequence[str]) -> str:
    return listed([short(word, 40) for word in words])
