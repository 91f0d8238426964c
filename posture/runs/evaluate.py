"""Evaluate a trained run on footage it never saw: predictions, metrics, report."""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from posture.config import AnyRun
from posture.data.store.files import write_bytes
from posture.data.store.tables import Store
from posture.errors import InputError
from posture.runs.backend import LOCAL, Backend
from posture.runs.figures import ONE_VIEW, Judged, Reads, Views
from posture.runs.floor import linear_figures
from posture.runs.folder import RunFolder, RunRecord, evaluation_name
from posture.runs.kinds import KINDS
from posture.runs.trained import refuse_pretrained_only


def evaluate(
    folder: RunFolder,
    *,
    views: Views = ONE_VIEW,
    split: str = "test",
    which: str = "best",
    batch: int = 16,
    store_uri: str | None = None,
    backend: Backend = LOCAL,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Evaluate the run's checkpoint `which` on a split; write metrics.json, predictions.parquet and report.html, and
    return the metrics.

    They go into evaluation/`metrics["name"]`, a folder for each split and protocol. `metrics["notice"]` says if
    training is not finished. `store_uri` names another store than the run's own, at its newest versions. On Ray,
    `workers` tasks predict. Raises InputError.
    """
    from posture.train.checkpoint import read_state  # loads torch

    began = time.time()
    record = folder.record()
    refuse_pretrained_only(record.run, folder.uri)
    run, kind, store = record.run, KINDS[record.run.task], Store(store_uri or record.store)
    reads = Reads(record.versions if store_uri is None else None, record.classes, record.left_out, views)
    protocol = kind.protocol(run, views)
    index = kind.index(run, store, split, reads)
    if not len(index):
        raise InputError(
            f"{store.uri}: the {split} split has no {kind.unit} to evaluate on; name a test split in the labels, or "
            "ingest with --test-share"
        )
    seen = kind.seen(run, store, index, views)
    tag = folder.checkpoints().get(which)
    with folder.checkpoint(which) as checkpoint:
        predictions, device = backend.predict(
            seen, run, checkpoint, views=views, batch=batch, workers=workers, progress=progress
        )
        judged = kind.judge(predictions, run, checkpoint, index=index, seen=seen, store=store, reads=reads)
        epoch = read_state(checkpoint)["epoch"]
    beside = {}
    if record.run.task == "action":
        beside["calibrated"] = _calibrated(
            folder, judged, split, which=which, batch=batch, backend=backend, workers=workers, progress=progress
        )
        if not run.model.solved:  # the linear classifier itself
            beside["linear"] = linear_figures(
                folder, split=split, store_uri=store_uri, backend=backend, batch=batch, workers=workers
            )
    asked_store = store.uri if store_uri is not None else None
    metrics = (
        judged.metrics
        | beside
        | {
            "name": evaluation_name(
                split, crops=views.crops, spans=views.temporal, source=views.source, checkpoint=which, store=asked_store
            ),
            "split": split,
            "checkpoint": which,
            "store": store.uri,
            "notice": unfinished(run, folder),
            "tag": tag,
            "epoch": epoch,
            "protocol": protocol,
            "device": device,
            "seconds": time.time() - began,
        }
    )
    _write(folder, record, judged, metrics, footage={split: index.counts})
    return metrics


def _calibrated(folder: RunFolder, judged: Judged, split: str, **options: Any) -> dict[str, Any]:
    """Return the figures with calibrated confidence, or only the reason if val cannot be read, as when the run's own
    store is gone and another one is evaluated.
    """
    from posture.runs.calibration import calibrate, calibrated_figures

    try:
        found = calibrate(folder, **options)
    except InputError as error:
        return {"sentence": f"confidence is not calibrated: {error}"}
    scores, labels = (np.array(judged.table[name].to_pylist()) for name in ("scores", "label"))
    return calibrated_figures(found, scores, labels, split=split)


def unfinished(run: AnyRun, folder: RunFolder) -> str:
    """Return a warning about the figures of a run that is not trained to its end; "" if it is, or stopped early."""
    values = [record.get(f"val_{run.metric}") or 0.0 for record in folder.history()]
    if not values:
        return (
            f"{run.name} is untrained: none of its {run.chosen_epochs} epochs is finished. "
            "These figures say nothing about the recipe."
        )
    waited = len(values) - 1 - values.index(max(values))
    if len(values) >= run.chosen_epochs or 0 < run.patience <= waited:
        return ""
    return (
        f"{run.name} is unfinished: {len(values)} of its {run.chosen_epochs} epochs are trained. "
        "Its figures may change until the last one."
    )


def _write(
    folder: RunFolder, record: RunRecord, judged: Judged, metrics: dict[str, Any], *, footage: dict[str, dict[str, int]]
) -> None:
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(judged.table, buffer)
    with tempfile.TemporaryDirectory(prefix="posture-report-") as place:
        page = Path(place, "report.html")
        judged.write_report(
            page,
            run=record.run.model_dump(mode="json"),
            metrics=metrics,
            history=folder.history(),
            facts=_facts(record, metrics, folder.history()) | {"footage": record.footage | footage},
        )
        write_bytes(folder.path("evaluation", metrics["name"], "report.html"), page.read_bytes())
    write_bytes(folder.path("evaluation", metrics["name"], "predictions.parquet"), buffer.getvalue())
    folder.write_json(f"evaluation/{metrics['name']}/metrics.json", metrics)


def _facts(record: RunRecord, metrics: dict[str, Any], history: list[dict[str, Any]]) -> dict[str, Any]:
    from posture.models import build
    from posture.models.summary import parameters

    run, kind, network = record.run, KINDS[record.run.task], build(record.run.model)
    speeds = [row["clips_per_second"] for row in history]
    speed = float(np.median(speeds)) if speeds else None
    return {
        "evaluated": datetime.now(UTC),
        "protocol": metrics["protocol"],
        "views": metrics.get("views"),
        "recipe": record.recipe,
        "store": metrics["store"],
        "tables": record.versions,
        "hardware": f"{record.machine}; evaluated on {metrics['device']}",
        "software": record.software,
        "seed": run.seed,
        "epochs": f"{len(history)} of {run.chosen_epochs}",
        "checkpoint": f"{metrics['checkpoint']}, epoch {metrics['epoch']}",
        "parameters": parameters(network),
        "wall_seconds": sum(row["seconds"] for row in history),
        **kind.facts(run, record, gmacs=kind.compute(run, network), speed=speed),
    }
