"""Fit a linear layer at once, instead of in steps: features of all clips, then multinomial logistic regression.

That layer is a `LinearClassifier`'s, or the last one of a trained network (`probe`), whose features are what the
network computes before it. The features of each training clip, seen once and centred, and of its mirror image (if
`data.flip` is above 0) are standardised. L-BFGS fits the layer with several weight decays, and the one with the least
loss on `val` is kept. Every worker computes the features of its share of the clips and then solves the same problem,
so that all end with the same weights. The streams of a network with late fusion are fitted one by one.

Legend: n clips (with mirror images), D features, K classes.
"""

from __future__ import annotations

import time
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from posture.models.features import last_layers, penultimate
from posture.models.linear import LinearClassifier
from posture.train.context import Context

DECAYS = 10.0 ** np.arange(2.0, -4.0, -0.5)
"""Weight decays that are tried: half of them times the squared weights is added to the mean loss."""
WORSE = 4
"""Number of smaller decays, each with a larger loss on `val`, after which no other is tried."""
ABSENT = -20.0
"""Score of a class without training clips."""


def solve(model: nn.Module, batches: Any, ctx: Context) -> tuple[dict[str, Any], str]:
    """Fit `model` to the training clips of `batches` (`posture.train.clip_batches.ClipBatches`).

    Returns the epoch's figures: train_loss and weight_decay (means over the streams), clips_per_second and
    data_wait_share; and the request "stop" if a worker was asked to stop, else "".
    """
    began, run = time.perf_counter(), batches.run
    model.eval()
    trains, labels, waited = _described(model, batches, batches.source, ctx, mirrored=run.data.flip > 0)
    vals, val_labels, _ = _described(model, batches, batches.validation, ctx)
    if ctx.sum([float(ctx.should_stop())])[0]:
        return {}, "stop"
    losses, decays = [], []
    for stream, (train, val) in enumerate(zip(trains, vals, strict=True)):
        mean, deviation = train.mean(axis=0), train.std(axis=0)
        deviation[deviation < 1e-6] = 1.0  # a feature that never changes
        train, val = (train - mean) / deviation, (val - mean) / deviation
        weights, bias, decay = _best(
            train, labels, val, val_labels, classes=run.model.classes, balanced=run.data.balanced
        )
        _assign(model, stream, mean, deviation, weights, bias)
        losses.append(_loss(train, labels, weights, bias))
        decays.append(decay)
    seconds = time.perf_counter() - began
    figures = {
        "train_loss": float(np.mean(losses)),
        "weight_decay": float(np.mean(decays)),
        "clips_per_second": len(batches.source) / seconds,
        "data_wait_share": min(1.0, waited / seconds),
    }
    return figures, ""


@torch.inference_mode()
def _described(
    model: nn.Module, batches: Any, source: Any, ctx: Context, *, mirrored: bool = False
) -> tuple[list[np.ndarray], np.ndarray, float]:
    """Return each stream's features (n, D) float32 and the labels (n,) of all clips of `source`, those of all workers,
    by clip index, and the seconds spent waiting for clips. Mirror images come after all clips.
    """
    rows: list[np.ndarray] = []
    indices: list[np.ndarray] = []
    widths: list[int] = []
    waited, began = 0.0, time.perf_counter()
    read, done = began, 0
    for batch in batches.once(source):
        waited += time.perf_counter() - read
        views = []
        for flip in (False, True) if mirrored else (False,):
            inputs, _ = batch.tensors(batches.run, ctx.device, mirrored=flip)
            streams = _features(model, inputs)
            widths = [features.shape[1] for features in streams]
            views.append(torch.cat(streams, dim=1).float().cpu().numpy())
        rows.append(np.stack(views, axis=1))
        indices.append(batch.indices)
        done += len(batch.indices) * ctx.world_size
        speed = done / max(time.perf_counter() - began, 1e-9)
        steps = {"step": min(done, len(source)), "steps": len(source)}
        ctx.progress({"epoch": 1, "epochs": 1, **steps, "loss": None, "clips_per_second": speed})
        read = time.perf_counter()
    mine = (np.concatenate(rows), np.concatenate(indices), widths) if rows else None
    parts = [part for part in ctx.gather(mine) if part is not None]
    index = np.concatenate([part[1] for part in parts])
    order = np.argsort(index, kind="stable")
    features = np.concatenate([part[0] for part in parts])[order]  # (clips, views, D)
    features = features.transpose(1, 0, 2).reshape(-1, features.shape[2])
    streams = np.split(features, np.cumsum(parts[0][2])[:-1], axis=1)
    return streams, np.tile(source.labels[index[order]], len(features) // len(index)), waited


def _features(model: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """Return the inputs (N, D) of the layers that are fitted, before they are standardised."""
    if isinstance(model, LinearClassifier):
        return [model.features(*inputs)]
    with penultimate(model) as taken:
        model(*inputs)
    return taken


@torch.no_grad()
def _assign(
    model: nn.Module, stream: int, mean: np.ndarray, deviation: np.ndarray, weights: np.ndarray, bias: np.ndarray
) -> None:
    """Give the layer of `stream` its weights (K, D) and bias (K,), which are for standardised features."""
    if isinstance(model, LinearClassifier):
        values = {"mean": mean, "deviation": deviation, "classify.weight": weights, "classify.bias": bias}
        model.load_state_dict({name: torch.from_numpy(value.astype(np.float32)) for name, value in values.items()})
        return
    layer, weights = last_layers(model)[stream], weights / deviation
    assert layer.bias is not None
    layer.weight.copy_(torch.from_numpy(weights).view(layer.weight.shape))
    layer.bias.copy_(torch.from_numpy(bias - weights @ mean))


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
