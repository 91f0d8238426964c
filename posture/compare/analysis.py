"""The analysis that all tasks share: figures over seeds, tested differences, and both as text.

Legend: B resamples of the test groups.
"""

# what may be None here depends on other values
# pyright: reportArgumentType=false

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from posture.compare.results import Comparison, Entry, Measures, Resampled
from posture.compare.verdict import ablation_verdict, probability, verdict
from posture.display.text import THIN_SPACE, listed, signed
from posture.errors import InputError
from posture.runs import statistics


def common_items(comparison: Comparison, measures: Measures) -> list[str]:
    """Return the sorted ids of the segments or images that all runs were scored on; empty if no entry is measured.

    Raises InputError if two runs were scored on different ones or one of these has no group; ValueError if no entry is
    the subject.
    """
    names = [entry.name for entry in comparison.entries]
    if comparison.subject not in names or len(set(names)) != len(names):
        raise ValueError(
            f"the subject {comparison.subject!r} must be one of the entries, which need different names: {names}"
        )
    results = [result for entry in comparison.entries for result in entry.results]
    if not results:
        return []
    truths = results[0].truths
    missing = [item for item in sorted(truths) if item not in comparison.groups]
    if missing:
        raise InputError(
            f"{comparison.name}: no group is known for {len(missing)} of {len(truths)} test {measures.unit}s, "
            f"such as {missing[0]}; confidence intervals need the group of each"
        )
    for result in results[1:]:
        if result.truths != truths:
            raise InputError(
                f"{result.run}: scored on other test {measures.unit}s or labels ({len(result.truths)}) than "
                f"{results[0].run} ({len(truths)}); evaluate both on the same version of the store"
            )
    return sorted(truths)


def tabulate(
    comparison: Comparison, measures: Measures, drawn: Resampled, *, items: list[str], resamples: int
) -> dict[str, Any]:
    """Return the analysis as plain values; see `posture.compare.action.analyse`."""
    groups = len({comparison.groups[item] for item in items})
    rows = [_row(entry, measures, drawn.get(entry.name)) for entry in comparison.entries]
    for row in rows:
        if row["name"] in drawn and row["name"] != comparison.subject and comparison.subject in drawn:
            row["against"] = _against(drawn[comparison.subject], drawn[row["name"]], groups=groups)
    _adjust(rows, measures)
    compared = {
        kind: sum(row["kind"] == kind and row["against"] is not None for row in rows)
        for kind in dict.fromkeys(row["kind"] for row in rows)
    }
    least_p = {
        kind: statistics.least_p(groups, resamples=resamples, comparisons=several)
        for kind, several in compared.items()
        if several
    }
    analysis = {
        "name": comparison.name,
        "subject": comparison.subject,
        "classes": list(comparison.classes),
        measures.count: len(items),
        "groups": groups,
        "resamples": resamples,
        "least_p": least_p,
        "facts": comparison.facts,
        "entries": rows,
    }
    return analysis | {
        "verdict": verdict(analysis, measures),
        "ablations": {
            row["name"]: ablation_verdict(analysis, row, measures)
            for row in rows
            if row["kind"] == "ablation" and row["metrics"]
        },
    }


def _row(entry: Entry, measures: Measures, drawn: dict[str, np.ndarray] | None) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": entry.name,
        "title": entry.title,
        "kind": entry.kind,
        "parameters": entry.parameters,
        "gmacs": entry.gmacs,
        "epochs": entry.epochs,
        "lr": entry.lr,
        "lr_search": [{name: statistics.finite(value) for name, value in tried.items()} for tried in entry.lr_search],
        "optimizer": entry.optimizer,
        "budget": entry.budget or f"{entry.epochs} epochs",
        "search_budget": entry.search_budget,
        "latency_ms": entry.latency_ms,
        "flow": entry.flow,
        "flow_ms": entry.flow_ms,
        "clips_per_second": entry.clips_per_second,
        "device_hours": entry.device_hours,
        "replaced": entry.replaced,
        "not_measured": (entry.not_measured or ("" if entry.results else "no run of it finished")).rstrip("."),
        "seeds": [result.seed for result in entry.results],
        "runs": [result.run for result in entry.results],
        "metrics": None,
        "compared": None,
        "per_class": None,
        "against": None,
    }
    if drawn is None:
        return row
    found = [result.metrics for result in entry.results]
    row["metrics"] = {figure: _spread([_figure(metrics, figure) for metrics in found]) for figure in measures.spread}
    row["compared"] = {figure: statistics.finite(values[0]) for figure, values in drawn.items()}
    of_class = {
        name: [metrics["per_class"][index][measures.per_class] for metrics in found]
        for index, name in enumerate(one["class"] for one in found[0]["per_class"])
    }
    row["per_class"] = {name: None if None in values else float(np.mean(values)) for name, values in of_class.items()}
    return row


def _figure(metrics: Mapping[str, Any], path: str) -> float | None:
    """Return a figure of metrics.json; None if it is not defined on this footage."""
    value: Any = metrics
    for name in path.split("."):
        value = value[name]
    return value


def _spread(values: list[float | None]) -> dict[str, Any] | None:
    return None if None in values else asdict(statistics.mean_and_spread(values))


def _against(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray], *, groups: int) -> dict[str, Any]:
    return {
        figure: {
            name: statistics.finite(value)
            for name, value in asdict(statistics.difference(ours[figure], theirs[figure], groups=groups)).items()
        }
        for figure in ours
    }


def _adjust(rows: list[dict[str, Any]], measures: Measures) -> None:
    """Add `p_holm` to every p: adjusted over the entries of one kind, for each figure."""
    for kind in {row["kind"] for row in rows}:
        family = [row for row in rows if row["kind"] == kind and row["against"]]
        for figure in measures.tested:
            known = {
                row["name"]: row["against"][figure]["p"] for row in family if row["against"][figure]["p"] is not None
            }
            adjusted = statistics.holm(known)
            for row in family:
                row["against"][figure]["p_holm"] = adjusted.get(row["name"])


def mean_text(row: Mapping[str, Any], figure: str, *, scale: float = 1, digits: int = 3) -> str:
    """Return `0.842 ± 0.013`, mean and standard deviation over seeds; `-` if there is no value."""
    spread = row["metrics"] and row["metrics"][figure]
    if not spread:
        return "-"
    deviation = "" if spread["deviation"] is None else f" ± {scale * spread['deviation']:.{digits}f}"
    return f"{scale * spread['mean']:.{digits}f}{deviation}"


def difference_texts(row: Mapping[str, Any], figure: str, *, scale: float = 1, digits: int = 3) -> tuple[str, str, str]:
    """Return the subject's difference to a model, its interval and its p, for a table on the terminal."""
    against = (row["against"] or {}).get(figure)
    if not against:
        return "", "", ""
    low, high = against["low"], against["high"]
    interval = "" if low is None else f"{signed(scale * low, digits)} to {signed(scale * high, digits)}"
    return (
        signed(scale * against["difference"], digits),
        interval,
        probability(against["p_holm"]).removeprefix("p ").removeprefix("= "),
    )


def whole_ms(row: Mapping[str, Any]) -> dict[str, float] | None:
    """Return {`median`, `least`, `most`} milliseconds of one clip, with its optical flow if that was timed."""
    return row["latency_ms"] and {name: value + (row["flow_ms"] or 0.0) for name, value in row["latency_ms"].items()}


def flow_notes(analysis: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each network that reads optical flow: whether time and compute include the flow."""
    notes = []
    for row in analysis["entries"]:
        if row["flow"]:
            share = f"its time does not include optical flow ({row['flow']})"
            if (whole := whole_ms(row)) and row["flow_ms"]:
                share = f"of its {whole['median']:.1f}{THIN_SPACE}ms per clip, "
                share += f"optical flow ({row['flow']}) takes {row['flow_ms']:.1f}"
            notes.append(f"{row['title']}: {share}; its compute is that of the network only.")
    return notes


def optimizer_notes(analysis: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each optimiser with the models that were trained with it."""
    titles: dict[str, list[str]] = {}
    for row in analysis["entries"]:
        if row["optimizer"]:
            titles.setdefault(row["optimizer"], []).append(row["title"])
    return [f"Optimiser of {listed(names)}: {optimizer}." for optimizer, names in titles.items()]


def write_json(path: Path, analysis: Mapping[str, Any]) -> None:
    """Write the analysis as comparison.json; dates become text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(analysis, indent=1, default=str, allow_nan=False) + "\n", encoding="utf-8")
