"""Several models trained on one budget and scored on the same test footage: what differs, by how much, and how sure
that is.

What holds for every task stands first, then what is particular to action classifiers; `posture.compare.detection` has
the detectors'. Legend: s test segments, K classes, B resamples. Scores are probabilities, as in
`posture.tasks.metrics`. The paper's section 3.2, Table 3, Figures 11-13.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from posture.compare.verdict import ablation_verdict, probability, verdict
from posture.display.text import THIN_SPACE, amount, listed, percent, signed
from posture.errors import InputError
from posture.runs import statistics

Kind = Literal["ours", "baseline", "ablation", "reference"]
Drawn = dict[str, dict[str, np.ndarray]]
"""Of each measured entry by name, each tested figure on the footage itself and on every resample of its groups: float64
(1 + B,).
"""


@dataclass(frozen=True)
class Measures:
    """What the models of one task are compared by. Figures are keys of metrics.json, dotted where they lie deeper."""

    unit: str
    """What is scored, each in a group: segment, image."""
    count: str
    """Key of the number of these in comparison.json."""
    spread: tuple[str, ...]
    """Figures whose mean and spread over seeds are told."""
    tested: dict[str, str]
    """Figures whose differences are tested, with their titles."""
    shares: tuple[str, ...]
    """Figures told in percent, and their differences in points."""
    judged: dict[str, tuple[str, str, str]]
    """Tested figures that the verdict goes by, each with what the subject `is` to models that it is above, below, or
    not told from.
    """
    ablated: str
    """The tested figure that ablations and the search for a learning rate are told by."""
    compute: tuple[str, float]
    """The unit of compute, and how many of it are a GMAC."""
    per_class: str
    """The figure of each class."""
    opening: Callable[[Mapping[str, Any], Mapping[str, Any]], str]
    """The verdict's first sentence, of an analysis and the subject's row."""

    def unit_of(self, figure: str) -> str:
        """In what a verdict tells a difference of the figure: points, or as the figure itself is written."""
        return "points" if figure in self.shares else ""


@dataclass
class Scored:
    """One trained run and its figures on the test split."""

    seed: int
    run: str
    """Its folder."""
    history: list[dict[str, Any]]
    """history.json: a row per epoch of `epoch`, `train_loss`, `clips_per_second`, `seconds`, and what was measured on
    `val`.
    """
    metrics: dict[str, Any]
    """evaluation/test/metrics.json."""

    @property
    def truths(self) -> dict[str, Any]:
        """What was to be said of each segment or image, by its id."""
        raise NotImplementedError


@dataclass
class SeedResult(Scored):
    """A classifier's; its metrics as `posture.tasks.metrics.classification_metrics` makes them."""

    segments: list[str]
    labels: np.ndarray  # (s,) int
    scores: np.ndarray  # (s, K) float

    @property
    def truths(self) -> dict[str, int]:
        return dict(zip(self.segments, np.asarray(self.labels).tolist(), strict=True))


@dataclass
class Entry:
    """One model of the comparison, trained once per seed."""

    name: str
    title: str
    kind: Kind
    parameters: int
    gmacs: float
    """Of one clip, or of one image."""
    epochs: int
    lr: float
    lr_search: list[dict[str, float | None]] = field(default_factory=list)
    """{`lr`, `val_loss`, and what else was measured on `val`} of each learning rate that was tried; infinite or None
    where it diverged.
    """
    optimizer: str = ""
    """In words: `AdamW, beta1 0.9, weight decay 0.05`."""
    budget: str = ""
    """What each of its runs was trained for: `30 epochs`, `120 steps`."""
    search_budget: str = ""
    """What each of these learning rates was tried for."""
    latency_ms: dict[str, float] | None = None
    """{`median`, `least`, `most`} of the network on one clip. A detector's speed stands in its metrics."""
    flow: str = ""
    """By which method the optical flow that the network reads is computed; empty if it reads none. `gmacs` leaves it
    out.
    """
    flow_ms: float | None = None
    """Median milliseconds to compute that flow for one clip, from its frames."""
    streams: int = 1
    """Of a network that fuses late: its training loss is the sum of so many."""
    loss: dict[str, Any] = field(default_factory=dict)
    """The run's section `loss`: losses of other settings cannot be compared."""
    clips_per_second: float | None = None
    """Clips or images, in training."""
    results: list[Any] = field(default_factory=list)
    """A `Scored` per seed."""
    not_measured: str = ""
    """Why there are no results; empty where there are."""
    replaced: bool = False
    """Of an ablation: something else stands in a part's place, such as another loss, instead of nothing."""


@dataclass
class Comparison:
    """A finished study."""

    name: str
    entries: list[Entry]
    subject: str
    """Name of the entry that the others are compared with."""
    groups: dict[str, str]
    """Segment or image id -> group: those of one group are not independent."""
    classes: tuple[str, ...]
    facts: dict[str, Any] = field(default_factory=dict)
    """How it was done; see `write_page`."""


def common(comparison: Comparison, measures: Measures) -> list[str]:
    """Ids of the segments or images that all runs were scored on, sorted; none where no entry is measured.

    Raises InputError where two runs were not scored on the same, or one of them has no group; ValueError where no entry
    is the subject.
    """
    names = [entry.name for entry in comparison.entries]
    if comparison.subject not in names or len(set(names)) != len(names):
        raise ValueError(f"the subject {comparison.subject!r} must be one of different names, not of {names}")
    results = [result for entry in comparison.entries for result in entry.results]
    if not results:
        return []
    truths = results[0].truths
    missing = [item for item in sorted(truths) if item not in comparison.groups]
    if missing:
        raise InputError(
            f"{comparison.name}: no group is known for {len(missing)} of {len(truths)} test {measures.unit}s, such as {missing[0]}; "
            "without groups their dependence cannot be respected"
        )
    for result in results[1:]:
        if result.truths != truths:
            raise InputError(
                f"{result.run}: scored on other test {measures.unit}s or labels ({len(result.truths)}) than {results[0].run} "
                f"({len(truths)}); evaluate both on the same version of the store"
            )
    return sorted(truths)


def tabulated(
    comparison: Comparison, measures: Measures, drawn: Drawn, *, items: list[str], resamples: int
) -> dict[str, Any]:
    """The analysis, as plain values: see `analyse`."""
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
        "lr_search": [{name: _plain(value) for name, value in tried.items()} for tried in entry.lr_search],
        "optimizer": entry.optimizer,
        "budget": entry.budget or f"{entry.epochs} epochs",
        "search_budget": entry.search_budget,
        "latency_ms": entry.latency_ms,
        "flow": entry.flow,
        "flow_ms": entry.flow_ms,
        "clips_per_second": entry.clips_per_second,
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
    row["compared"] = {figure: _plain(values[0]) for figure, values in drawn.items()}
    of_class = {
        name: [metrics["per_class"][place][measures.per_class] for metrics in found]
        for place, name in enumerate(one["class"] for one in found[0]["per_class"])
    }
    row["per_class"] = {name: None if None in values else float(np.mean(values)) for name, values in of_class.items()}
    return row


def _figure(metrics: Mapping[str, Any], path: str) -> float | None:
    """A figure of metrics.json; None where it is not defined on this footage."""
    value: Any = metrics
    for name in path.split("."):
        value = value[name]
    return value


def _spread(values: list[float | None]) -> dict[str, Any] | None:
    return None if None in values else asdict(statistics.mean_and_spread(values))


def _plain(value: float | None) -> float | None:
    """None where the value is not finite, which JSON cannot say."""
    return None if value is None or not np.isfinite(value) else float(value)


def _against(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray], *, groups: int) -> dict[str, Any]:
    return {
        figure: {
            name: _plain(value)
            for name, value in asdict(statistics.difference(ours[figure], theirs[figure], groups=groups)).items()
        }
        for figure in ours
    }


def _adjust(rows: list[dict[str, Any]], measures: Measures) -> None:
    """Put `p_holm` beside every p: over the entries of one kind, figure by figure."""
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
    """`0.842 ± 0.013`: mean and standard deviation over seeds; `-` where there is none."""
    spread = row["metrics"] and row["metrics"][figure]
    if not spread:
        return "-"
    deviation = "" if spread["deviation"] is None else f" ± {scale * spread['deviation']:.{digits}f}"
    return f"{scale * spread['mean']:.{digits}f}{deviation}"


def difference_texts(row: Mapping[str, Any], figure: str, *, scale: float = 1, digits: int = 3) -> tuple[str, str, str]:
    """The subject's difference to a model, its interval and its p, for `posture.display.console.table`."""
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
    """{`median`, `least`, `most`} milliseconds of one clip, the optical flow included where its time is known."""
    return row["latency_ms"] and {name: value + (row["flow_ms"] or 0.0) for name, value in row["latency_ms"].items()}


def flow_notes(analysis: Mapping[str, Any]) -> list[str]:
    """For each network that reads optical flow, what its milliseconds and its compute have of it in them."""
    notes = []
    for row in analysis["entries"]:
        if row["flow"]:
            whole, known = whole_ms(row), row["latency_ms"] and row["flow_ms"]
            share = (
                f"of its {whole['median']:.1f}{THIN_SPACE}ms a clip, {row['flow_ms']:.1f} are for optical flow ({row['flow']})"
                if known
                else f"its milliseconds are without its optical flow ({row['flow']})"
            )
            notes.append(f"{row['title']}: {share}; its compute is that of the network alone.")
    return notes


def optimizer_notes(analysis: Mapping[str, Any]) -> list[str]:
    """Each optimiser, and the models that were trained with it; empty if it is not known of any."""
    titles: dict[str, list[str]] = {}
    for row in analysis["entries"]:
        if row["optimizer"]:
            titles.setdefault(row["optimizer"], []).append(row["title"])
    return [f"Optimiser of {listed(names)}: {optimizer}." for optimizer, names in titles.items()]


def write_json(path: Path, analysis: Mapping[str, Any]) -> None:
    """Write the analysis beside its page; moments become text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(analysis, indent=1, default=str, allow_nan=False) + "\n", encoding="utf-8")


PAPER = {
    "improved": {"map": 0.708, "accuracy": 0.974},
    "two_stream": {"map": 0.615, "accuracy": 0.908},
    "c3d": {"map": 0.546, "accuracy": 0.864},
}
"""What the paper prints for these models on UCF101 (Table 3): its data and training, never ours."""


def _opening(analysis: Mapping[str, Any], subject: Mapping[str, Any]) -> str:
    accuracy, majority = subject["metrics"]["accuracy"], analysis["facts"].get("majority_accuracy")
    seeds = f"mean of {len(subject['seeds'])} seeds" if len(subject["seeds"]) > 1 else "one seed"
    return (
        f"{subject['title']} recognised {percent(accuracy['mean'])} of {analysis['segments']:,} test segments ({seeds})"
        + (f"; always naming the most frequent class would score {percent(majority)}." if majority is not None else ".")
    )


ACTION = Measures(
    unit="segment",
    count="segments",
    spread=("accuracy", "top5", "macro_precision", "macro_recall", "macro_f1", "map", "auc"),
    tested={"accuracy": "Accuracy", "map": "mAP", "auc": "AUC"},
    shares=("accuracy", "top5"),
    judged={"accuracy": ("is more accurate than", "is less accurate than", "cannot be told, on this footage, from")},
    ablated="accuracy",
    per_class="recall",
    opening=_opening,
    compute=("GMAC", 1.0),
)


def analyse(comparison: Comparison, *, resamples: int = statistics.RESAMPLES, seed: int = 0) -> dict[str, Any]:
    """Every figure of the page of compared classifiers, as plain values.

    Accuracy, mAP and AUC are computed for each seed, on the footage and on every resample of its groups, and their
    means over seeds are compared: a difference is that of the means that are shown. Seeds are not taken for more
    segments.

    * `entries`: what an `Entry` says, with `seeds`, `runs`, and where it is measured (else None) `metrics` ({figure:
      mean, deviation, low,
      high and values over seeds}), `compared` ({figure: what its differences are of}), `per_class` ({class: accuracy,
      mean over seeds}) and, but for the subject, `against`: {figure: difference (the subject's minus this one's), its
      95 % `low` and `high`, `p`, `p_holm`} and `mcnemar` (of the scores averaged over seeds). Holm's adjustment is over
      the entries of one kind, figure by figure.
    * `segments`, `groups`, `resamples`; `least_p`: {kind: the smallest `p_holm` that so few groups could give};
      `verdict`: sentences about the subject; `ablations`: {name: sentence}.

    Raises InputError where two runs were not scored on the same segments, ValueError where no entry is the subject.
    """
    segments = common(comparison, ACTION)
    scores = {
        entry.name: np.stack([_ordered(result, segments) for result in entry.results])
        for entry in comparison.entries
        if entry.results
    }
    drawn: Drawn = {}
    labels = np.zeros(0, dtype=np.int64)
    if segments:
        truths = next(result for entry in comparison.entries for result in entry.results).truths
        labels = np.array([truths[segment] for segment in segments], dtype=np.int64)
        groups = [comparison.groups[segment] for segment in segments]
        counts = statistics.resampled_groups(groups, resamples=resamples, seed=seed)
        for name, seeds in scores.items():
            found = [statistics.resampled_metrics(one, labels, groups, counts) for one in seeds]
            drawn[name] = {figure: np.mean([one[figure] for one in found], axis=0) for figure in ACTION.tested}
    analysis = tabulated(comparison, ACTION, drawn, items=segments, resamples=resamples)
    right = {name: seeds.mean(axis=0).argmax(axis=1) == labels for name, seeds in scores.items()}
    for row in analysis["entries"]:
        if row["against"]:
            ours_only, theirs_only, p = statistics.mcnemar(right[comparison.subject], right[row["name"]])
            row["against"]["mcnemar"] = {"ours_only": ours_only, "theirs_only": theirs_only, "p": p}
    return analysis


def _ordered(result: SeedResult, segments: list[str]) -> np.ndarray:
    """The scores (s, K) of these segments."""
    place = {segment: row for row, segment in enumerate(result.segments)}
    return np.asarray(result.scores, dtype=np.float64)[[place[segment] for segment in segments]]


def rows_for_console(analysis: Mapping[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Column names and a row per entry, for `posture.display.console.table`."""
    columns = ("model", "accuracy", "mAP", "GMAC", "parameters", "difference", "95 % CI", "p (Holm)", "clips/s", "ms")
    rows = []
    for row in analysis["entries"]:
        figures = (
            (mean_text(row, "accuracy", scale=100, digits=1), mean_text(row, "map"))
            if row["metrics"]
            else ("not measured", "-")
        )
        rows.append((
            row["title"],
            *figures,
            amount(row["gmacs"]),
            f"{amount(row['parameters'] / 1e6)} M",
            *difference_texts(row, "accuracy", scale=100, digits=1),
            f"{row['clips_per_second']:,.1f}" if row["clips_per_second"] else "-",
            f"{whole['median']:,.1f}" if (whole := whole_ms(row)) else "-",
        ))
    return columns, rows


def write_page(path: Path, comparison: Comparison, analysis: Mapping[str, Any]) -> None:
    """Write the comparison as one self-contained page.

    `comparison.facts`, all optional: `when` (datetime or ISO text), `budget`, `protocol`, `hardware` (words), `seeds`
    (list), `software`, `tables` ({name: version}), `store` (uri), `majority_accuracy` (share), `footage` ({split:
    {"segments": n, ...}}). Others are listed by their names.
    """
    from posture.compare.page import write_comparison_page

    write_comparison_page(path, comparison=comparison, analysis=analysis)
