"""The parts that reports of classifiers and detectors share: subtitle, curves, facts, configuration, intervals."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from posture.display import html, text
from posture.display.charts import LOOKS, Chart, ChartLine, Dot, over_epochs, ticks
from posture.display.text import THIN_SPACE, percent
from posture.runs.statistics import LEAST_GROUPS

Known = Mapping[str, tuple[str, Callable[[Any], str]]]
"""{key of a fact: (its name on the page, its format)}."""


def subtitle(run: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    """Return the parts of the line below a report's title."""
    model = run.get("model") or {}
    parts = [str(model.get("kind", "")) if isinstance(model, Mapping) else str(model)]
    if facts.get("recipe"):
        parts.append(f"recipe {facts['recipe']}")
    if (count := facts.get("parameters")) is not None:
        parts.append(f"{count / 1e6:.2f} M parameters" if count >= 1e6 else f"{count:,} parameters")
    if facts.get("gmacs") is not None:
        parts.append(f"{facts['gmacs']:.2f} GMAC per clip{' without optical flow' * ('flow' in inputs_of(run))}")
    if facts.get("gflops") is not None:
        parts.append(f"{facts['gflops']:.2f} GFLOPs per image")
    if facts.get("evaluated"):
        parts.append(text.moment(facts["evaluated"]))
    return [part for part in parts if part]


def inputs_of(run: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the inputs of the run's network, one for each stream: rgb, flow."""
    model = run.get("model")
    if not isinstance(model, Mapping) or model.get("kind") != "two_stream":
        return ("rgb",)
    return {"spatial": ("rgb",), "temporal": ("flow",)}.get(model.get("streams", "both"), ("rgb", "flow"))


def clip_accuracy(metrics: Mapping[str, Any]) -> str:
    """Return `61.3 % of 180 clips`, each counted by itself; "" if every segment has one clip, or it is not known."""
    clips = metrics.get("clips", metrics["count"])
    return "" if clips == metrics["count"] else f"{percent(metrics['clip_accuracy'])} of {clips:,} clips"


def interval_text(metrics: Mapping[str, Any], form: Callable[[float], str]) -> str:
    """Return `95 % interval 40.1 to 75.0 %, over 8 groups`, from `metrics["interval"]`; empty if there is none."""
    found = metrics.get("interval")
    if not found:
        return ""
    if found["low"] is None:
        groups = found["groups"]
        few = f"{text.counted(groups, 'group')} {'is' if groups == 1 else 'are'} too few"
        return f"no interval: {few if groups < LEAST_GROUPS else f'all {groups} groups have the same result'}"
    return f"95{THIN_SPACE}% interval {form(found['low'])} to {form(found['high'])}, over {found['groups']:,} groups"


def over_videos(told: Mapping[str, Any]) -> str:
    """Return `interval_text` of an interval by `told_interval` whose groups are videos, with three decimals."""
    return interval_text({"interval": told}, text.decimal).replace("group", "video")


def learning_curves(history: Sequence[Mapping[str, Any]], charts: Mapping[str, Mapping[str, str]]) -> list[Chart]:
    """Draw charts over epochs, {title: {name of a curve: its key in history.json}}, except those without a value.

    The maximum of the first curve of a validation chart is marked.
    """
    drawn = []
    for title, named in charts.items():
        lines = [
            ChartLine(name, over_epochs(history, key), look, listed=len(named) > 1)
            for (name, key), look in zip(named.items(), LOOKS, strict=False)
        ]
        lines = [line for line in lines if _finite(line)]
        if not lines:
            continue
        values = [y for line in lines for _, y in _finite(line)]
        shares = all(key.startswith("val_") and key != "val_loss" for key in named.values())
        y_ticks = ticks(0, 1) if shares else ticks(0.0 if min(values) < 0.4 * max(values) else min(values), max(values))
        dots = [Dot(*_finite(line)[0], look=line.look) for line in lines if len(_finite(line)) == 1]
        if title.startswith("Validation"):
            x, y = max(_finite(lines[0]), key=lambda point: point[1])
            dots = [Dot(x, y, text=f"epoch {x:g}: {y:.3f}", label=f"{y:.3f} at epoch {x:g}")]
        epochs = [x for x, _ in lines[0].points]
        x_ticks = ticks(min(0.0, *epochs), max(epochs), 5, whole=True)
        drawn.append(Chart(title, "epoch", "", x_ticks, y_ticks, lines, dots, width=360, height=250))
    return drawn


def _finite(line: ChartLine) -> list[tuple[float, float]]:
    return [point for point in line.points if math.isfinite(point[1])]


def class_curves(
    curves: Mapping[str, Sequence[tuple[float, float]]], values: Mapping[str, float], mean: ChartLine
) -> tuple[list[ChartLine], list[str]]:
    """Return a line for each class, named with its value, and their mean; and the names of the three weakest classes,
    which have colours of their own.
    """
    weakest = sorted(curves, key=lambda name: values[name])[:3] if len(curves) > 1 else []
    looks = dict(zip(weakest, ("second thin", "third", "fourth"), strict=False))
    others = [name for name in curves if name not in looks]
    lines = [
        ChartLine(f"{name} {values[name]:.3f}", curves[name], looks.get(name, "faint"), listed=name in looks)
        for name in (*others, *reversed(weakest))
    ]
    return [*lines, mean], weakest


def footage_table(footage: Any) -> dict[str, Any] | None:
    """Return columns and rows of a table of {split: {count name: n}} or {split: n segments}; None if it is empty."""
    if not footage:
        return None
    rows = {split: counts if isinstance(counts, Mapping) else {"segments": counts} for split, counts in footage.items()}
    columns = list(dict.fromkeys(name for counts in rows.values() for name in counts))
    forms = {"seconds": html.duration, "bytes": html.size}
    return {
        "columns": ["duration" if name == "seconds" else name for name in columns],
        "rows": [
            (split, [forms.get(name, text.whole)(counts.get(name)) for name in columns])
            for split, counts in rows.items()
        ],
    }


def words(value: Any) -> str:
    """Return a fact as text: a mapping as `torch 2.14, ray 2.60`, a list with commas."""
    if isinstance(value, Mapping):
        value = [f"{name}{THIN_SPACE}{version}" for name, version in value.items()]
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def list_facts(facts: Mapping[str, Any], known: Known, elsewhere: Sequence[str]) -> list[tuple[str, str]]:
    """Return (name, text) of the known facts in their order, then of the others except those shown `elsewhere`."""
    given = {key: value for key, value in facts.items() if value not in (None, "")}
    return [(name, form(given[key])) for key, (name, form) in known.items() if key in given] + [
        (key.replace("_", " ").capitalize(), words(value))
        for key, value in given.items()
        if key not in known and key not in elsewhere
    ]


KNOWN: Known = {
    "recipe": ("Recipe", str),
    "store": ("Store", str),
    "tables": ("Table versions", words),
    "checkpoint": ("Checkpoint", str),
    "parameters": ("Parameters", text.whole),
    "gmacs": ("Compute of one clip", lambda value: f"{value:.3f}{THIN_SPACE}GMAC"),
    "gflops": ("Compute of one image", lambda value: f"{value:.3f}{THIN_SPACE}GFLOPs"),
    "epochs": ("Epochs", str),
    "seed": ("Seed", str),
    "clips_per_second": ("Training speed", lambda value: f"{value:,.1f}{THIN_SPACE}clips/s"),
    "pictures_per_second": ("Training speed", lambda value: f"{value:,.1f}{THIN_SPACE}images/s"),
    "wall_seconds": ("Training time", html.duration),
    "hardware": ("Hardware", str),
    "software": ("Software", words),
}


def measured(run: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of the part of a report on how it was measured."""
    return {
        "facts": list_facts(facts, KNOWN, ("evaluated", "protocol", "views", "footage")),
        "footage": footage_table(facts.get("footage")),
        "configuration": configuration(run),
    }


def protocol_text(facts: Mapping[str, Any]) -> str:
    """Return `Protocol: ...`; empty if it is not known."""
    protocol = facts.get("protocol")
    return f"Protocol: {str(protocol).rstrip('.')}." if protocol else ""


def configuration(run: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return the run's sections, each a list of (field, value); nested sections have dotted names, as in `--set`."""
    sections: dict[str, list[tuple[str, str]]] = {"run": []}

    def gather(name: str, tree: Mapping[str, Any]) -> None:
        for field, value in tree.items():
            path = f"{name}.{field}" if name != "run" else str(field)
            if isinstance(value, Mapping) and value:
                gather(path, value)
            else:
                shown = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
                sections.setdefault(name, []).append((str(field), shown))

    gather("run", run)
    return list(sections.items())
