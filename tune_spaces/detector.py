"""Search spaces of detectors: functions of an Optuna trial that return changes to a run.

Parameters have the paths of the fields that they change. Of equation (3)'s lambdas, l2 (objectness) is held: Adam does
not see a common scale of the loss, so only ratios can be searched.
"""

from __future__ import annotations

from typing import Any

from posture.config import DetectionRun
from posture.runs.recipes import load_recipe

BOX_LOSSES = ("iou", "giou", "diou", "ciou", "eiou", "siou")


def space(trial: Any, base: DetectionRun | None = None) -> dict[str, Any]:
    """Search learning rate and weight decay; for networks that read them also the lambdas and the box loss; for a
    YOLOv5 also attention and its placement.
    """
    base = base or load_recipe("jobs/detector.py:improved")
    decay = base.optim.weight_decay or 1e-4
    changes = lambdas(trial, base) if not base.model.takes_targets else _rate(trial, base)
    changes["optim.weight_decay"] = trial.suggest_float("optim.weight_decay", decay / 30, decay * 10, log=True)
    if not base.model.takes_targets:
        changes["loss.box_loss"] = trial.suggest_categorical("loss.box_loss", list(BOX_LOSSES))
    if base.model.kind == "yolov5":
        changes["model.attention"] = trial.suggest_categorical("model.attention", ["none", "cbam"])
        if changes["model.attention"] != "none":
            changes["model.placement"] = trial.suggest_categorical("model.placement", ["neck", "backbone", "all"])
    return changes


def lambdas(trial: Any, base: DetectionRun | None = None) -> dict[str, Any]:
    """Search the ratios l1 : l2 : l3 of class, objectness and box, with l2 held, and the learning rate, on which the
    best ratios depend.
    """
    base = base or load_recipe("jobs/detector.py:improved")
    class_weight, box_weight = base.loss.l1 or 0.1, base.loss.l3 or 0.01
    return _rate(trial, base) | {
        "loss.l1": trial.suggest_float("loss.l1", class_weight / 10, class_weight * 10, log=True),
        "loss.l3": trial.suggest_float("loss.l3", box_weight / 10, box_weight * 10, log=True),
    }


def augmentation(trial: Any, base: DetectionRun | None = None) -> dict[str, Any]:
    """Search what helps on few images: mosaics and how long they last, pasted boxes, the horizon of the moving average,
    and the learning rates of the parts; for YOLO networks also label smoothing and scaled loss weights.
    """
    base = base or load_recipe("jobs/detector.py:improved")
    data, optim = base.data, base.optim
    changes = _rate(trial, base) | {
        "data.mosaic": trial.suggest_float("data.mosaic", 0.0, 1.0),
        "data.mosaic_until": trial.suggest_float("data.mosaic_until", min(0.5, data.mosaic_until), 1.0),
        "data.copy_paste": trial.suggest_float("data.copy_paste", 0.0, 1.0),
        "optim.ema_horizon": trial.suggest_float("optim.ema_horizon", 0.0, max(0.3, optim.ema_horizon)),
        "optim.head_lr": trial.suggest_float("optim.head_lr", optim.head_lr / 5, optim.head_lr * 5, log=True),
    }
    if not base.model.takes_targets:
        smoothing = base.loss.label_smoothing
        changes["loss.label_smoothing"] = trial.suggest_float("loss.label_smoothing", 0.0, max(0.2, smoothing))
        changes["loss.scaled"] = trial.suggest_categorical("loss.scaled", [base.loss.scaled, not base.loss.scaled])
    if base.model.kind == "yolov5" and (base.model.swin or base.model.attention != "none"):
        rate = optim.attention_lr
        changes["optim.attention_lr"] = trial.suggest_float("optim.attention_lr", rate / 5, rate * 5, log=True)
    return changes


def _rate(trial: Any, base: DetectionRun) -> dict[str, Any]:
    return {"optim.lr": trial.suggest_float("optim.lr", base.optim.lr / 10, base.optim.lr * 10, log=True)}
