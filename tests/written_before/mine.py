"""A user's recipes, study and search space, as they were typed in November 2026. The names in it are to work for
good.
"""

from posture.config import DetectorRun, ImageData, Optim, Run, Scale, Study, override
from posture.models.configs import C3D, IMPROVED
from posture.models.detector_configs import IMPROVED_YOLOV5, YOLOv5


def action():
    return Run(
        name="action",
        epochs=2,
        model=C3D(
            **IMPROVED | {"size": 16, "frames": 8, "widths": (4, 4, 4, 4, 4), "depths": (1, 1, 1, 1, 1), "groups": 2}
        ),
        optim=Optim(name="adamw", lr=0.002, ema=0.5),
        scale=Scale(global_batch=4),
    )


def detector():
    return DetectorRun(
        name="detector",
        epochs=60,
        metric="map50",
        model=YOLOv5(**IMPROVED_YOLOV5 | {"size": 64, "width": 0.01, "norm_momentum": 0.1}),
        data=ImageData(mosaic=0.0, resize=0.0, shift=0.0, hue=0.0, saturation=0.0, value=0.0),
        optim=Optim(name="adam", lr=0.005, ema=0.9, warmup_epochs=3.0),
        scale=Scale(global_batch=4),
    )


def study():
    plain = override(action(), {"name": "plain", "optim.ema": 0.0, "optim.name": "sgd", "optim.momentum": 0.0})
    without = override(plain, {"name": "without", "model.attention": "none"})
    return Study(name="tiny", subject=plain, ablations=(without,), learning_rates=(1.0,), epochs=2)


def space(trial):
    return {"optim.lr": trial.suggest_float("optim.lr", 1e-4, 1e-2, log=True)}
