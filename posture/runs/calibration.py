"""The calibration of a run's checkpoint: fitted on the run's val split when it is needed, and kept in its folder."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from typing_extensions import TypedDict  # pydantic takes no other before Python 3.12

from posture.config import ActionRun
from posture.data.feed.origins import places_of
from posture.data.store.checked import Count, Name, checked_value
from posture.data.store.tables import Store
from posture.errors import InputError
from posture.runs.action import ActionRuns, merge
from posture.runs.backend import LOCAL, Backend
from posture.runs.classification_metrics import reliability
from posture.runs.confidence import TEMPERATURES, Calibration, fit
from posture.runs.figures import ONE_VIEW, Reads
from posture.runs.folder import RunFolder
from posture.runs.trained import refuse_pretrained_only

FILE = "calibration.json"
"""{tag of a checkpoint: StoredCalibration}."""
Share = Annotated[float, Field(ge=0, le=1)]


class StoredCalibration(TypedDict):
    """The fields of a `Calibration`."""

    temperature: Annotated[float, Field(ge=TEMPERATURES[0], le=TEMPERATURES[1])]
    ece_before: Share | None
    ece_after: Share | None
    correlation: Share
    confidence: list[Share]
    right: list[bool]
    group: list[Count]


def calibrate(
    folder: RunFolder,
    *,
    which: str = "best",
    batch: int = 16,
    backend: Backend = LOCAL,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Calibration:
    """Return the calibration of the run's checkpoint `which`, from calibration.json if it is there.

    Otherwise it is fitted on the segments of val, each scored as `posture evaluate --split val` scores it. A later
    checkpoint is fitted anew. Raises InputError if the run is not an action classifier, has no such checkpoint, or if
    its store cannot be read.
    """
    record, tag = folder.record(), folder.checkpoints().get(which)
    if not isinstance(record.run, ActionRun):
        raise InputError(f"{folder.uri}: only a classifier of actions is calibrated, and this run is a detector")
    refuse_pretrained_only(record.run, folder.uri)
    stored = _read(folder)
    if tag in stored:
        return stored[tag]
    kind, store, reads = ActionRuns(), Store(record.store), Reads(record.versions, record.classes, record.left_out)
    index = kind.index(record.run, store, "val", reads)
    scores, labels, groups = np.zeros((0, len(record.classes))), np.zeros(0, np.int64), []
    if len(index):
        with folder.checkpoint(which) as checkpoint:
            probabilities, _ = backend.predict(
                index, record.run, checkpoint, views=ONE_VIEW, batch=batch, workers=workers, progress=progress
            )
        found = merge(np.asarray(probabilities), index, ONE_VIEW)
        scores, labels = found.scores, found.labels
        places = places_of(store, found.segments, versions=record.versions)
        groups = [places[segment].group for segment in found.segments]
    return keep(folder, which, fit(scores, labels, groups))


def keep(folder: RunFolder, which: str, fitted: Calibration) -> Calibration:
    """Write the calibration of the checkpoint `which` into calibration.json, and return it.

    A folder that cannot be written is left as it is: the calibration is fitted again when it is needed.
    """
    tags, stored = folder.checkpoints(), _read(folder)
    kept = {tag: value for tag, value in stored.items() if tag in tags.values()} | {tags[which]: fitted}
    with contextlib.suppress(InputError):
        folder.write_json(FILE, {tag: _plain(value) for tag, value in kept.items()})
    return fitted


def calibrated_figures(
    calibration: Calibration, scores: np.ndarray, labels: np.ndarray, *, split: str
) -> dict[str, Any]:
    """Return `metrics["calibrated"]` of segments with the probabilities (N, K) of the network and class indices (N,):
    `temperature`, `sentence`, and `ece` and `calibration` as in `classification_metrics`, with the temperature.

    On val itself, which the temperature was fitted on, `ece` is measured on groups that were left out of the fit.
    """
    confidence = calibration.apply(scores).astype(np.float64).max(axis=1)
    bins, ece = reliability(confidence, scores.argmax(axis=1) == labels)
    return {
        "temperature": calibration.temperature,
        "sentence": calibration.sentence,
        "ece": calibration.ece_after if split == "val" else ece,
        "calibration": bins,
    }


def _read(folder: RunFolder) -> dict[str, Calibration]:
    where = folder.path(FILE)
    stored = checked_value(folder.read_json(FILE) or {}, where, dict[Name, StoredCalibration])
    found = {}
    for tag, fields in stored.items():
        if len({len(fields[name]) for name in ("confidence", "right", "group")}) != 1:
            raise InputError(f"{where}: confidence, right and group of {tag} differ in length; delete the file")
        found[tag] = Calibration(
            **fields
            | {
                "confidence": np.array(fields["confidence"], np.float64),
                "right": np.array(fields["right"], bool),
                "group": np.array(fields["group"], np.int64),
            }
        )
    return found


def _plain(calibration: Calibration) -> dict[str, Any]:
    return {
        name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in vars(calibration).items()
    }
