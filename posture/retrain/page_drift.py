"""Drift on the page of a decision: measured, in sentences, and as a chart."""

# the task of a run decides its type, which a checker cannot follow
# pyright: reportArgumentType=false

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from posture.config import validate
from posture.data.store.tables import Store
from posture.display.charts import Chart, ChartLine, ticks
from posture.display.text import THIN_SPACE, listed, percent, short
from posture.retrain.drift import BINS, describe_segments, measure
from posture.retrain.registry import Registry


def measure_drift(registry: Registry, pass_id: str, decision: Mapping[str, Any], store: Store) -> dict[str, Any] | None:
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
            mostly = f", mostly in {listed([short(name, 40) for name in shifted[:3]])}" if shifted else ""
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


def confidence_chart(drift: Mapping[str, Any]) -> Chart | None:
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
