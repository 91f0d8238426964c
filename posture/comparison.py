"""Several models trained on one budget and scored on the same test segments: what differs, by how much, and how sure that is.

Legend: s test segments, K classes. Scores are probabilities, as in `posture.tasks.metrics`. The paper's section 3.2, Table 3, Figures 11-13.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from posture import stats
from posture.errors import InputError
from posture.pages import THIN_SPACE, percent, signed

Kind = Literal["ours", "baseline", "ablation", "reference"]


@dataclass
class SeedResult:
    """One trained and scored run."""

    seed: int
    run: str
    """Its folder."""
    history: list[dict[str, Any]]
    """history.json: a row per epoch of `epoch`, `train_loss`, `val_loss`, `val_accuracy`, `clips_per_second`, `seconds`."""
    metrics: dict[str, Any]
    """evaluation/metrics.json, as `posture.tasks.metrics.classification_metrics` makes it."""
    segments: list[str]
    labels: np.ndarray  # (s,) int
    scores: np.ndarray  # (s, K) float


@dataclass
class Entry:
    """One model of the comparison, trained once per seed."""

    name: str
    title: str
    kind: Kind
    parameters: int
    gmacs: float
    """Of one clip."""
    epochs: int
    lr: float
    lr_search: list[dict[str, float | None]] = field(default_factory=list)
    """{`lr`, `val_loss`, `val_accuracy`} of each learning rate that was tried, on `val`; infinite or None where it diverged."""
    latency_ms: dict[str, float] | None = None
    """{`median`, `least`, `most`} of one clip."""
    clips_per_second: float | None = None
    """In training."""
    results: list[SeedResult] = field(default_factory=list)
    not_measured: str = ""
    """Why there are no results; empty where there are."""


@dataclass
class Comparison:
    """A finished study."""

    name: str
    entries: list[Entry]
    subject: str
    """Name of the entry that the others are compared with."""
    groups: dict[str, str]
    """Segment id -> group: segments of one group are not independent."""
    classes: tuple[str, ...]
    facts: dict[str, Any] = field(default_factory=dict)
    """How it was done; see `write_page`."""


SPREAD = ("accuracy", "top5", "macro_precision", "macro_recall", "macro_f1", "map", "auc")
"""Figures of metrics.json whose mean and spread over seeds are told."""

TESTED = ("accuracy", "map", "auc")
"""Figures whose differences are tested."""

PAPER = {"improved": {"map": 0.708, "accuracy": 0.974}, "two_stream": {"map": 0.615, "accuracy": 0.908}, "c3d": {"map": 0.546, "accuracy": 0.864}}
"""What the paper prints for these models on UCF101 (Table 3): its data and training, never ours."""

SIGNIFICANT, LEAST_P = 0.05, 0.001


def analyse(comparison: Comparison, *, over_seeds: Literal["scores", "figures"] = "scores", resamples: int = stats.RESAMPLES,
            seed: int = 0) -> dict[str, Any]:
    """Every figure of the page, as plain values.

    `over_seeds`: what is averaged over seeds before models are compared. `scores`: each segment's probabilities, so that what is compared is
    a model's seeds taken together, mostly better than one of them. `figures`: accuracy, mAP and AUC of each seed on each resample, so that
    a difference is that of the means over seeds. Neither takes seeds for more segments.

    * `entries`: what an `Entry` says, with `seeds`, `runs`, and where it is measured (else None) `metrics` ({figure: mean, deviation, low,
      high and values over seeds}), `compared` ({figure: what its differences are of}), `per_class` ({class: accuracy, mean over seeds})
      and, but for the subject, `against`: {figure: difference (the subject's minus this one's), its 95 % `low` and `high`, `p`, `p_holm`}
      and `mcnemar` (of averaged scores). Holm's adjustment is over the entries of one kind, figure by figure.
    * `segments`, `groups`, `resamples`, `over_seeds`; `verdict`: sentences about the subject; `ablations`: {name: sentence}.

    Raises InputError where two runs were not scored on the same segments, ValueError where no entry is the subject.
    """
    names = [entry.name for entry in comparison.entries]
    if comparison.subject not in names or len(set(names)) != len(names):
        raise ValueError(f"the subject {comparison.subject!r} must be one of different names, not of {names}")
    segments, labels, scores = _aligned(comparison)
    drawn: dict[str, dict[str, np.ndarray]] = {}
    if segments:
        groups = [comparison.groups[segment] for segment in segments]
        counts = stats.resampled_groups(groups, resamples=resamples, seed=seed)
        for name, seeds in scores.items():
            found = [stats.resampled_metrics(one, labels, groups, counts) for one in ([seeds.mean(axis=0)] if over_seeds == "scores" else seeds)]
            drawn[name] = {figure: np.mean([one[figure] for one in found], axis=0) for figure in TESTED}
    rows = [_row(entry, drawn.get(entry.name)) for entry in comparison.entries]
    right = {name: seeds.mean(axis=0).argmax(axis=1) == labels for name, seeds in scores.items()}
    for row in rows:
        if row["name"] in scores and row["name"] != comparison.subject and comparison.subject in scores:
            row["against"] = _against(drawn[comparison.subject], drawn[row["name"]], groups=len(set(groups)))
            ours_only, theirs_only, p = stats.mcnemar(right[comparison.subject], right[row["name"]])
            row["against"]["mcnemar"] = {"ours_only": ours_only, "theirs_only": theirs_only, "p": p}
    _adjust(rows)
    analysis = {
        "name": comparison.name, "subject": comparison.subject, "classes": list(comparison.classes), "segments": len(segments),
        "groups": len(set(groups)) if segments else 0, "resamples": resamples, "over_seeds": over_seeds, "facts": comparison.facts, "entries": rows}
    return analysis | {"verdict": verdict(analysis), "ablations": {row["name"]: ablation_verdict(analysis, row) for row in rows
                                                                  if row["kind"] == "ablation" and row["metrics"]}}


def _aligned(comparison: Comparison) -> tuple[list[str], np.ndarray, dict[str, np.ndarray]]:
    """The segments that all runs were scored on, their labels (s,), and per measured entry the scores (seeds, s, K)."""
    first = next((result for entry in comparison.entries for result in entry.results), None)
    if first is None:
        return [], np.zeros(0, dtype=np.int64), {}
    segments = sorted(first.segments)
    truth = dict(zip(first.segments, np.asarray(first.labels).tolist(), strict=True))
    missing = [segment for segment in segments if segment not in comparison.groups]
    if missing:
        raise InputError(f"{comparison.name}: no group is known for {len(missing)} of {len(segments)} test segments, such as {missing[0]}; "
                         "without groups their dependence cannot be respected")
    scores = {}
    for entry in comparison.entries:
        seeds = []
        for result in entry.results:
            if dict(zip(result.segments, np.asarray(result.labels).tolist(), strict=True)) != truth:
                raise InputError(f"{result.run}: scored on other test segments or labels ({len(result.segments)}) than {first.run} "
                                 f"({len(segments)}); evaluate both on the same version of the store")
            place = {segment: row for row, segment in enumerate(result.segments)}
            seeds.append(np.asarray(result.scores, dtype=np.float64)[[place[segment] for segment in segments]])
        if seeds:
            scores[entry.name] = np.stack(seeds)
    return segments, np.array([truth[segment] for segment in segments], dtype=np.int64), scores


def _row(entry: Entry, drawn: dict[str, np.ndarray] | None) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": entry.name, "title": entry.title, "kind": entry.kind, "parameters": entry.parameters, "gmacs": entry.gmacs, "epochs": entry.epochs,
        "lr": entry.lr, "lr_search": [{name: _plain(value) for name, value in tried.items()} for tried in entry.lr_search],
        "latency_ms": entry.latency_ms, "clips_per_second": entry.clips_per_second,
        "not_measured": (entry.not_measured or ("" if entry.results else "no run of it finished")).rstrip("."),
        "seeds": [result.seed for result in entry.results], "runs": [result.run for result in entry.results],
        "metrics": None, "compared": None, "per_class": None, "against": None}
    if drawn is None:
        return row
    found = [result.metrics for result in entry.results]
    row["metrics"] = {figure: _spread([metrics[figure] for metrics in found]) for figure in SPREAD}
    row["compared"] = {figure: _plain(values[0]) for figure, values in drawn.items()}
    recalls = {name: [metrics["per_class"][place]["recall"] for metrics in found] for place, name in enumerate(
        one["class"] for one in found[0]["per_class"])}
    row["per_class"] = {name: None if None in values else float(np.mean(values)) for name, values in recalls.items()}
    return row


def _spread(values: list[float | None]) -> dict[str, Any] | None:
    """None where a figure is not defined on this footage."""
    return None if None in values else asdict(stats.mean_and_spread(values))


def _plain(value: float | None) -> float | None:
    """None where the value is not finite, which JSON cannot say."""
    return None if value is None or not np.isfinite(value) else float(value)


def _against(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray], *, groups: int) -> dict[str, Any]:
    return {figure: {name: _plain(value) for name, value in asdict(stats.difference(ours[figure], theirs[figure], groups=groups)).items()}
            for figure in TESTED}


def _adjust(rows: list[dict[str, Any]]) -> None:
    """Put `p_holm` beside every p: over the entries of one kind, figure by figure."""
    for kind in {row["kind"] for row in rows}:
        family = [row for row in rows if row["kind"] == kind and row["against"]]
        for figure in TESTED:
            known = {row["name"]: row["against"][figure]["p"] for row in family if row["against"][figure]["p"] is not None}
            adjusted = stats.holm(known)
            for row in family:
                row["against"][figure]["p_holm"] = adjusted.get(row["name"])


def verdict(analysis: Mapping[str, Any]) -> list[str]:
    """The result in sentences, from the figures alone: the subject's accuracy, then its place among the models that are no ablations of it."""
    rows = {row["name"]: row for row in analysis["entries"]}
    subject = rows[analysis["subject"]]
    if not subject["metrics"]:
        return [f"{subject['title']} was not measured: {subject['not_measured']}. Nothing can be said about it."]
    accuracy, majority = subject["metrics"]["accuracy"], analysis["facts"].get("majority_accuracy")
    seeds = f"mean of {len(subject['seeds'])} seeds" if len(subject["seeds"]) > 1 else "one seed"
    sentences = [f"{subject['title']} recognised {percent(accuracy['mean'])} of {analysis['segments']:,} test segments ({seeds})"
                 + (f"; always naming the most frequent class would score {percent(majority)}." if majority is not None else ".")]
    groups: dict[str, list[str]] = {}
    for row in rows.values():
        if row["against"] and row["kind"] != "ablation":
            groups.setdefault(_judged(row["against"]["accuracy"]), []).append(f"{row['title']} ({told(row['against']['accuracy'])})")
    it = "Its seeds taken together, it" if analysis["over_seeds"] == "scores" and len(subject["seeds"]) > 1 else "It"
    for judged, words in (("above", "is more accurate than"), ("below", "is less accurate than"), ("undecided", "cannot be told, on this footage, from")):
        if judged in groups:
            sentences.append(f"{it} {words} {_listed(groups[judged])}.")
            it = "It"
    absent = [row["title"] for row in rows.values() if not row["metrics"]]
    if absent:
        sentences.append(f"Not measured: {_listed(absent)}.")
    return sentences


def ablation_verdict(analysis: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """What taking the part away did to accuracy, in a sentence."""
    subject = next(other for other in analysis["entries"] if other["name"] == analysis["subject"])
    if not row["against"]:
        return f"{row['title']}: the full model was not measured, so nothing can be said."
    against = row["against"]["accuracy"]
    full, without = (one["metrics"]["accuracy"]["mean"] for one in (subject, row))
    gains = [round(full - without, 4) > 0, against["difference"] > 0]  # one training on average, and what was compared
    undecided = ("a gain that this footage cannot tell from chance" if all(gains) else
                 "a gain on average, none when its seeds are taken together" if gains[0] else "what was taken away does not help on this footage")
    means = {"above": "what was taken away helps on this footage", "below": "what was taken away harms on this footage", "undecided": undecided}
    return f"{row['title']}: {percent(without)} without it, {percent(full)} with it; {means[_judged(against)]} ({told(against)})."


def _judged(against: Mapping[str, float | None]) -> str:
    """The subject against one model: above, below or undecided, by the adjusted p."""
    p = against["p_holm"]
    if p is None or p >= SIGNIFICANT:
        return "undecided"
    return "above" if against["difference"] > 0 else "below"


def told(against: Mapping[str, float | None], *, unit: str = "points") -> str:
    """`+4.1 points, 95 % CI +1.0 to +7.2, p = 0.012`; p after Holm's adjustment."""
    difference = f"{signed(100 * against['difference'])} {unit}"
    if against["p_holm"] is None:
        return f"{difference}; too few groups for an interval"
    return f"{difference}, 95{THIN_SPACE}% CI {signed(100 * against['low'])} to {signed(100 * against['high'])}, {probability(against['p_holm'])}"


def probability(p: float | None) -> str:
    """`p = 0.012`, `p < 0.001`."""
    if p is None:
        return "p unknown"
    return f"p < {LEAST_P}" if p < LEAST_P else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def rows_for_console(analysis: Mapping[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Column names and a row per entry, for `posture.console.table`."""
    columns = ("model", "accuracy", "mAP", "GMAC", "parameters", "difference", "95 % CI", "p (Holm)", "clips/s", "ms")
    rows = []
    for row in analysis["entries"]:
        against = (row["against"] or {}).get("accuracy")
        figures = [_mean(row, figure) for figure in ("accuracy", "map")] if row["metrics"] else ["not measured", "-"]
        interval = f"{signed(100 * against['low'])} .. {signed(100 * against['high'])}" if against and against["low"] is not None else ""
        rows.append((row["title"], *figures, f"{row['gmacs']:.2f}", f"{row['parameters'] / 1e6:.2f} M",
                     signed(100 * against["difference"]) if against else "", interval,
                     probability(against["p_holm"]).removeprefix("p ").removeprefix("= ") if against else "",
                     f"{row['clips_per_second']:.1f}" if row["clips_per_second"] else "-",
                     f"{row['latency_ms']['median']:.1f}" if row["latency_ms"] else "-"))
    return columns, rows


def _mean(row: Mapping[str, Any], figure: str) -> str:
    spread = row["metrics"][figure]
    if spread is None:
        return "-"
    scale, digits = (100, 1) if figure == "accuracy" else (1, 3)
    deviation = "" if spread["deviation"] is None else f" ± {scale * spread['deviation']:.{digits}f}"
    return f"{scale * spread['mean']:.{digits}f}{deviation}"


def write_json(path: Path, analysis: Mapping[str, Any]) -> None:
    """Write the analysis beside its page; moments become text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(analysis, indent=1, default=str, allow_nan=False) + "\n", encoding="utf-8")


def write_page(path: Path, comparison: Comparison, analysis: Mapping[str, Any]) -> None:
    """Write the comparison as one self-contained page.

    `comparison.facts`, all optional: `when` (datetime or ISO text), `budget`, `protocol`, `hardware` (words), `seeds` (list), `software`, `tables`
    ({name: version}), `store` (uri), `majority_accuracy` (share), `footage` ({split: {"segments": n, ...}}). Others are listed by their names.
    """
    from posture.comparison_page import write_comparison_page

    write_comparison_page(path, comparison=comparison, analysis=analysis)
