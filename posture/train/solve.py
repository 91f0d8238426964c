"""Fit a linear classifier at once, instead of in steps: features of all clips, then multinomial logistic regression.

The features of each training clip, seen once and centred, and of its mirror image (if `data.flip` is above 0) are
standardised. L-BFGS fits the linear layer with several weight decays, and the one with the least loss on `val` is kept.
Every worker computes the features of its share of the clips and then solves the same problem, so that all end with the
same weights.

Legend: n clips (with mirror images), D features, K classes.
"""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np
import torch

from posture.models.linear import LinearClassifier
from posture.train.context import Context

DECAYS = 10.0 ** np.arange(2.0, -4.0, -0.5)
"""Weight decays that are tried: half of them times the squared weights is added to the mean loss."""
WORSE = 4
"""Number of smaller decays, each with a larger loss on `val`, after which no other is tried."""
ABSENT = -20.0
"""Score of a class without training clips."""


def solve(model: LinearClassifier, batches: Any, ctx: Context) -> tuple[dict[str, Any], str]:
    """Fit `model` to the training clips of `batches` (`posture.train.clip_batches.ClipBatches`).

    Returns the epoch's figures: train_loss, weight_decay, clips_per_second and data_wait_share; and the request "stop"
    if a worker was asked to stop, else "".
    """
    began, run = time.perf_counter(), batches.run
    model.eval()
    train, labels, waited = _described(model, batches, batches.source, ctx, mirrored=run.data.flip > 0)
    val, val_labels, _ = _described(model, batches, batches.validation, ctx)
    if ctx.sum([float(ctx.should_stop())])[0]:
        return {}, "stop"
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    deviation[deviation < 1e-6] = 1.0  # a feature that never changes
    train, val = (train - mean) / deviation, (val - mean) / deviation
    weights, bias, decay = _best(train, labels, val, val_labels, classes=run.model.classes, balanced=run.data.balanced)
    with torch.no_grad():
        found = {"mean": mean, "deviation": deviation, "classify.weight": weights, "classify.bias": bias}
        model.load_state_dict({name: torch.from_numpy(value.astype(np.float32)) for name, value in found.items()})
    seconds = time.perf_counter() - began
    figures = {
        "train_loss": _loss(train, labels, weights, bias),
        "weight_decay": decay,
        "clips_per_second": len(batches.source) / seconds,
        "data_wait_share": min(1.0, waited / seconds),
    }
    return figures, ""


@torch.inference_mode()
def _described(
    model: LinearClassifier, batches: Any, source: Any, ctx: Context, *, mirrored: bool = False
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return features (n, D) float32 and labels (n,) of all clips of `source`, those of all workers, by clip index, and
    the seconds spent waiting for clips. Mirror images come after all clips.
    """
    rows: list[np.ndarray] = []
    indices: list[np.ndarray] = []
    waited, began = 0.0, time.perf_counter()
    read, done = began, 0
    for batch in batches.once(source):
        waited += time.perf_counter() - read
        (clips,), _ = batch.tensors(batches.run, ctx.device)
        views = [clips, clips.flip(-1)] if mirrored else [clips]
        rows.append(np.stack([model.features(view).float().cpu().numpy() for view in views], axis=1))
        indices.append(batch.indices)
        done += len(batch.indices) * ctx.world_size
        speed = done / max(time.perf_counter() - began, 1e-9)
        steps = {"step": min(done, len(source)), "steps": len(source)}
        ctx.progress({"epoch": 1, "epochs": 1, **steps, "loss": None, "clips_per_second": speed})
        read = time.perf_counter()
    mine = (np.concatenate(rows), np.concatenate(indices)) if rows else None
    parts = [part for part in ctx.gather(mine) if part is not None]
    index = np.concatenate([part[1] for part in parts])
    order = np.argsort(index, kind="stable")
    features = np.concatenate([part[0] for part in parts])[order]  # (clips, views, D)
    views = features.shape[1]
    return (
        features.transpose(1, 0, 2).reshape(-1, features.shape[2]),
        np.tile(source.labels[index[order]], views),
        waited,
    )


def _best(
    train: np.ndarray, labels: np.ndarray, val: np.ndarray, val_labels: np.ndarray, *, classes: int, balanced: bool
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return weights (K, D), bias (K,) and the decay with the least loss on `val`; strong decays are tried first."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    present = np.unique(labels)
    if len(present) == 1:
        bias = np.where(np.arange(classes) == present[0], 0.0, ABSENT)
        return np.zeros((classes, train.shape[1])), bias, float(DECAYS[0])
    solver = LogisticRegression(warm_start=True, max_iter=200, class_weight="balanced" if balanced else None)
    tried: list[tuple[float, np.ndarray, np.ndarray, float]] = []
    for decay in DECAYS.tolist():
        solver.C = 1.0 / (decay * len(train))
        with warnings.catch_warnings():  # a fit that is cut short is judged on `val` like any other
            warnings.simplefilter("ignore", ConvergenceWarning)
            solver.fit(train, labels)
        weights, bias = _of_all(solver, present, classes)
        tried.append((_loss(val, val_labels, weights, bias), weights, bias, decay))
        best = min(range(len(tried)), key=lambda place: tried[place][0])
        if len(tried) - 1 - best >= WORSE:
            break
    _, weights, bias, decay = tried[best]
    return weights, bias, decay


def _of_all(solver: Any, present: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return weights (K, D) and bias (K,) of all classes, from those of the classes that are `present`."""
    weights, bias = np.zeros((classes, solver.coef_.shape[1])), np.full(classes, ABSENT)
    if len(present) == 2:  # scikit-learn has one row for two classes: the second's score minus the first's
        bias[present] = 0.0, solver.intercept_[0]
        weights[present[1]] = solver.coef_[0]
    else:
        weights[present], bias[present] = solver.coef_, solver.intercept_
    return weights, bias


def _loss(features: np.ndarray, labels: np.ndarray, weights: np.ndarray, bias: np.ndarray) -> float:
    """Return the mean cross-entropy."""
    scores = torch.from_numpy(features @ weights.T + bias)
    return float(torch.nn.functional.cross_entropy(scores, torch.from_numpy(labels)))
