"""Answers of two models, the decision that a pass writes about them, and features of footage that drifts."""

from __future__ import annotations

import numpy as np

from posture.retrain.comparison import Answers
from posture.retrain.decision import DecisionLimits, judge
from posture.retrain.drift import Features

CLASSES = ("jump", "run <b>fast</b>", "throw")


def answers(*, first=False, seed=0, groups=20, better=0.3):
    """Return answers for segments of three classes, of which the champion knows two.

    The larger `better` is, the more often the challenger is right.
    """
    generator = np.random.default_rng(seed)
    labels = np.arange(groups * 4) % 3
    challenger, champion = (
        generator.dirichlet(np.ones(3), len(labels))
        + (share + generator.random(len(labels)))[:, None] * np.eye(3)[labels]
        for share in (max(better, 0.0), max(-better, 0.0))
    )
    champion[:, 2] = 0
    challenger, champion = (scores / scores.sum(axis=1, keepdims=True) for scores in (challenger, champion))
    groups = [f"group {number // 4}" for number in range(len(labels))]
    frozen = np.array([int(group.split()[1]) % 2 == 0 for group in groups]) & (labels < 2)
    return Answers(
        [f"segment-{number:04d}" for number in range(len(labels))],
        groups,
        labels,
        frozen,
        CLASSES,
        challenger,
        frozenset(CLASSES),
        None if first else champion,
        frozenset() if first else frozenset(CLASSES[:2]),
    )


def decision(given, **changes):
    """Return the decision that a pass would write."""
    first = given.champion is None
    judged = judge(given, DecisionLimits(tolerance=1.0, max_class_drop=1.0), resamples=300)
    judged["changed"] = [
        item | {"video": "v", "uri": "/in/a.mp4", "start": 0.0, "end": 3.0} for item in judged["changed"]
    ]
    counts = {name: {"train": 9, "val": 2, "test": 3} for name in CLASSES}
    return {
        "pass": "0002-20261125-184234",
        "started": 1_795_000_000.0,
        "ended": 1_795_000_700.0,
        "registry": "/registry",
        "store": "/store",
        "footage": "/in",
        "recipe": "jobs/action.py:improved",
        "run_folder": "/registry/runs/improved-1",
        "versions": {"clips": 3, "segments": 4},
        "champion": None if first else "v0001",
        "challenger": "v0002",
        "start": "champion",
        "start_sentence": "",
        "baseline": None,
        "came_in": {
            "segments": 40,
            "clips": 80,
            "classes": counts,
            "new_classes": [CLASSES[2]],
            "relabelled": 2,
            "removed": 0,
            "groups": {"train": 7, "val": 2, "test": 3},
        },
        "refused_files": [{"uri": "/in/cut.mp4", "verdict": "truncated", "reason": "decoding stops before frame 7"}],
        "unsettled": ["/in/b.mp4"],
        "unlabelled": ["/in/c.mp4", "/in/d.mp4"],
        "left_out": {"spin": 3},
        "balance": {"before": {CLASSES[0]: counts[CLASSES[0]]}, "after": counts},
        "holdout": {},
        "training": {
            "epochs": 12,
            "best_epoch": 9,
            "metric": "val_accuracy",
            "best": 0.8,
            "train": 60,
            "val": 12,
            "seconds": 81.0,
        },
        **judged,
        **changes,
    }


def footage(seed, *, groups=12, per_group=6, shift=0.0, classes=("jump", "run"), dimensions=16, sure=0.8):
    """Return features of segments whose groups differ from each other; `shift` moves all features."""
    generator = np.random.default_rng(seed)
    features, labels, names = [], [], []
    for group in range(groups):
        own = generator.normal(size=dimensions)
        for number in range(per_group):
            label = number % len(classes)
            features.append(own + shift + 3 * label * (np.arange(dimensions) < 4) + generator.normal(size=dimensions))
            labels.append(classes[label])
            names.append(f"{seed}-{group}")
    confidence = np.clip(sure + 0.05 * generator.normal(size=len(labels)), 0, 1)
    return Features(np.array(features, np.float32), confidence.astype(np.float32), np.array(labels), np.array(names))
