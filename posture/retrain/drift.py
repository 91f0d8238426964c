"""How new footage differs from old footage, as the champion sees it: by its features of segments not used for training.

Legend: n old and m new segments, D features. Old segments are held-out ones: the champion knows its training segments
by heart, and anything would look new beside them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from posture.config import ActionRun
from posture.data.feed.clips import index_footage
from posture.data.feed.shards import open_index
from posture.data.store.schema import SPLITS
from posture.data.store.tables import Store
from posture.display.text import counted
from posture.retrain.holdout import only_segments

MOST = 200
"""Maximum number of segments of each side, drawn at random."""
LEAST_GROUPS = 4
"""Minimum number of groups of each side."""
FOLDS = 5
COMPONENTS = 24
RESAMPLES, PERMUTATIONS = 2000, 400
LEVEL = 0.95
BINS = 10
"""Bins of the histograms of confidence."""


@dataclass(frozen=True)
class Features:
    """Features of segments, one row each."""

    features: np.ndarray  # (n, D) float32
    confidence: np.ndarray  # (n,) float32, of its most probable class
    labels: np.ndarray  # (n,) str
    groups: np.ndarray  # (n,) str

    def of(self, chosen: np.ndarray) -> Features:
        """Return the chosen rows."""
        return Features(self.features[chosen], self.confidence[chosen], self.labels[chosen], self.groups[chosen])


def describe_segments(
    store: Store, run: ActionRun, weights: Path, segments: Iterable[str], *, versions: dict[str, int], seed: int = 0
) -> Features:
    """Return features of at most `MOST` of the segments, one clip each, by the model `run`.

    `weights` is the folder of its model.safetensors.
    """
    from posture.runs.weights import load_network
    from posture.train.context import LocalContext
    from posture.train.evaluate import describe

    wanted = sorted(segments)
    wanted = set(np.random.default_rng(seed).permutation(wanted)[:MOST].tolist())
    rows = {row["segment"]: row for row in store.read("segments", version=versions["segments"]).to_pylist()}
    model, device = load_network(run, weights), LocalContext().device
    found: list[tuple[np.ndarray, float, str, str]] = []
    for split in SPLITS:
        reads = {"recipe": run.data.recipe, "inputs": run.model.inputs, "flow": run.data.flow}
        index = only_segments(index_footage(store, split, versions=versions, **reads), wanted)
        if not len(index):
            continue
        index = index.part(np.sort(np.unique(index.segments, return_index=True)[1]))
        probabilities, features = describe(model, open_index(index, feed=run.data.feed), run, device)
        said = [rows[index.segment_ids[number]] for number in index.segments.tolist()]
        found += [
            (row, float(of.max()), one["label"], one["group"])
            for row, of, one in zip(features, probabilities, said, strict=True)
        ]
    return Features(
        np.array([item[0] for item in found], dtype=np.float32).reshape(len(found), -1),
        np.array([item[1] for item in found], dtype=np.float32),
        *(np.array([item[place] for item in found], dtype=str) for place in (2, 3)),
    )


def measure(old: Features, new: Features, *, seed: int = 0) -> dict[str, Any]:
    """Return plain values: `segments` and `groups` of each side, `too_few` (a sentence, or None), `auc`, `classes`,
    `confidence`.

    Only classes of both sides are compared. `auc` says how well new segments can be distinguished from old ones; 0.5 is
    chance.
    """
    shared = sorted(set(old.labels) & set(new.labels))
    ours, theirs = old.of(np.isin(old.labels, shared)), new.of(np.isin(new.labels, shared))
    sides = {"old": ours, "new": theirs}
    groups = {name: len(set(side.groups)) for name, side in sides.items()}
    confidence = _confidence(ours if shared else old, theirs, new.of(~np.isin(new.labels, shared)), seed=seed)
    made: dict[str, Any] = {
        "segments": {name: len(side.labels) for name, side in sides.items()},
        "groups": groups,
        "shared": shared,
        "too_few": None,
        "auc": None,
        "classes": [],
        "confidence": confidence,
    }
    if min(groups.values()) < LEAST_GROUPS:
        few = min(groups, key=groups.__getitem__)
        return made | {
            "too_few": f"the {few} footage of the classes that both have has {counted(groups[few], 'group')}, "
            f"and at least {LEAST_GROUPS} are needed"
        }
    return made | {
        "auc": two_sample_auc(ours, theirs, seed=seed),
        "classes": [class_shift(ours, theirs, name, seed=seed) for name in shared],
    }


def two_sample_auc(old: Features, new: Features, *, seed: int = 0) -> dict[str, float]:
    """Return {value, low, high}: the AUC of a logistic regression that distinguishes new segments from old ones.

    It is evaluated on groups that it was not fitted on. Old segments are weighted so that both sides have the same
    share of every class: another mix of classes is not drift. The interval is from a bootstrap over groups of the same
    scores.
    """
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features = np.concatenate([old.features, new.features]).astype(np.float64)
    is_new = np.r_[np.zeros(len(old.labels)), np.ones(len(new.labels))].astype(int)
    groups = np.r_[old.groups, new.groups]
    shares = {name: (np.mean(new.labels == name) / np.mean(old.labels == name)) for name in set(new.labels)}
    weights = np.r_[[shares.get(name, 0.0) for name in old.labels], np.ones(len(new.labels))]
    folds = min(FOLDS, *(len(set(side.groups)) for side in (old, new)))
    scores = np.zeros(len(features))
    for fit, ask in StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(features, is_new, groups):
        if len(set(is_new[fit])) < 2:
            continue
        components = min(COMPONENTS, features.shape[1], max(1, len(fit) // 4))
        model = make_pipeline(
            StandardScaler(), PCA(components, random_state=seed), LogisticRegression(C=0.1, max_iter=2000)
        )
        balance = np.where(
            is_new[fit] == 1,
            1 / (weights[fit] * (is_new[fit] == 1)).sum(),
            1 / (weights[fit] * (is_new[fit] == 0)).sum(),
        )
        model.fit(features[fit], is_new[fit], logisticregression__sample_weight=weights[fit] * balance * len(fit))
        scores[ask] = model.decision_function(features[ask])
    ahead = scores[is_new == 1][:, None] - scores[is_new == 0][None, :]
    wins = (ahead > 0) + 0.5 * (ahead == 0)  # (m, n)
    ours, theirs = (_resampled(side.groups, seed=seed + place) for place, side in enumerate((old, new)))
    ours = ours * weights[is_new == 0]
    drawn = np.einsum("bm,mn,bn->b", theirs, wins, ours, optimize=True) / np.maximum(
        theirs.sum(axis=1) * ours.sum(axis=1), 1e-12
    )
    return _interval(drawn)


def class_shift(old: Features, new: Features, name: str, *, seed: int = 0) -> dict[str, Any]:
    """Return the distance of a class's new segments from its old ones: {class, old, new, distance, chance, shifted}.

    `distance` is between the means, in units of the spread within either side. `chance` is the 95 % quantile for random
    divisions of the same groups (None if a side has fewer than two groups).
    """
    ours, theirs = old.of(old.labels == name), new.of(new.labels == name)
    features = np.concatenate([ours.features, theirs.features]).astype(np.float64)
    groups = np.r_[["old " + group for group in ours.groups], ["new " + group for group in theirs.groups]]
    is_new = np.r_[np.zeros(len(ours.labels), bool), np.ones(len(theirs.labels), bool)]
    distance, chance = _distance(features, is_new), None
    names, of = np.unique(groups, return_inverse=True)
    count = len(set(theirs.groups))
    if 2 <= count <= len(names) - 2:
        generator = np.random.default_rng(seed)
        drawn = [
            _distance(features, np.isin(of, generator.permutation(len(names))[:count])) for _ in range(PERMUTATIONS)
        ]
        chance = float(np.quantile(drawn, LEVEL))
    return {
        "class": name,
        "old": len(ours.labels),
        "new": len(theirs.labels),
        "distance": distance,
        "chance": chance,
        "shifted": chance is not None and distance > chance,
    }


def _distance(features: np.ndarray, is_new: np.ndarray) -> float:
    means = [features[side].mean(axis=0) for side in (is_new, ~is_new)]
    within = np.mean([
        ((features[side] - mean) ** 2).sum(axis=1).mean() for side, mean in zip((is_new, ~is_new), means, strict=True)
    ])
    return float(np.linalg.norm(means[0] - means[1]) / max(np.sqrt(within), 1e-9))


def _confidence(old: Features, new: Features, unknown: Features, *, seed: int) -> dict[str, Any]:
    """Return histograms (shares) of the champion's confidence, their means, and the difference new - old.

    `unknown` are segments of classes that it does not know.
    """
    edges = np.linspace(0.0, 1.0, BINS + 1)
    sides = {"old": old, "new": new, "unknown": unknown}
    made: dict[str, Any] = {"mean": {}, "histogram": {}, "difference": None}
    for name, side in sides.items():
        counts = np.histogram(np.clip(side.confidence, 0, 1), edges)[0]
        made["mean"][name] = float(side.confidence.mean()) if len(side.confidence) else None
        made["histogram"][name] = (counts / max(1, counts.sum())).tolist() if counts.sum() else None
    if min(len(set(side.groups)) for side in (old, new)) >= LEAST_GROUPS:
        counts = [_resampled(side.groups, seed=seed + place) for place, side in enumerate((old, new))]
        ours, theirs = (
            drawn @ side.confidence / drawn.sum(axis=1) for drawn, side in zip(counts, (old, new), strict=True)
        )
        made["difference"] = _interval(theirs - ours)
    return made


def _resampled(groups: np.ndarray, *, seed: int) -> np.ndarray:
    """Return (1 + B, rows) counts of each row in each resample of whole groups; row 0 is the footage itself."""
    from posture.runs.statistics import resampled_groups

    order = {group: place for place, group in enumerate(dict.fromkeys(groups.tolist()))}
    counts = resampled_groups(groups.tolist(), resamples=RESAMPLES, seed=seed)
    return counts[:, [order[group] for group in groups.tolist()]].astype(np.float64)


def _interval(drawn: np.ndarray) -> dict[str, float]:
    low, high = np.quantile(drawn[1:], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return {"value": float(drawn[0]), "low": float(low), "high": float(high)}
