"""Open a trained model for prediction: that of a run, or the champion of a registry."""

from __future__ import annotations

from typing import Any

from posture.data.store.files import absolute, exists, join
from posture.predict.model import VideoModel, refuse_unusable
from posture.retrain.registry import Registry
from posture.runs.calibration import calibrate
from posture.runs.folder import RunFolder
from posture.runs.trained import open_trained


def open_model(
    model: str | None, *, detector: str | None = None, which: str = "best", max_error: float | None = None
) -> VideoModel:
    """Return the model of a run, or of the champion of a registry, at `model`. A detector's run is taken as `detector`.

    Raises InputError if there is no such run, registry or checkpoint, or val cannot promise `max_error`.
    """
    return VideoModel(**model_parts(model, detector=detector, which=which, max_error=max_error))


def model_parts(
    model: str | None, *, detector: str | None = None, which: str = "best", max_error: float | None = None
) -> dict[str, Any]:
    """Return the arguments of `posture.predict.model.VideoModel`, which can be sent to workers. Raises InputError as
    `open_model` does.
    """
    finder = open_trained(detector, task="detection") if detector else None
    if model is None:
        return {"detector": finder}
    if exists(join(absolute(model), "champion.json")):
        classifier = Registry(model).champion_model()
        trained_in, which = Registry(model).version(classifier.checkpoint)["run_folder"], "best"
    elif detector is None and RunFolder.open(model).record().run.task == "detection":
        return {"detector": open_trained(model, task="detection", which=which)}
    else:
        classifier = open_trained(model, task="action", which=which)
        trained_in = classifier.uri
    refuse_unusable(classifier, finder)
    parts: dict[str, Any] = {"classifier": classifier, "detector": finder}
    if max_error is not None:
        calibration = calibrate(RunFolder.open(trained_in), which=which)
        calibration.threshold(max_error)  # a promise that val cannot make is refused here, not on a worker
        parts |= {"calibration": calibration, "max_error": max_error}
    return parts
