"""Ray Train with one worker against `--local`: the same run, steps/s after the first epoch."""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np

from posture.bench import facts, generated, ratio, train_local
from posture.data.decode.cut import Cut
from posture.data.labels.videos import read_footage
from posture.data.store.schema import DecodeRecipe
from posture.data.store.tables import Store

EPOCHS = 4
CHANGES = {"epochs": EPOCHS, "model.width": 0.25, "scale.global_batch": 8, "tracking.mode": "off"}


def measure(*, rounds: int, footage: str | None) -> dict[str, Any]:
    """{"what", "measured", "ratios", "notes"}; each round trains both, the local one in a fresh process as Ray's worker
    is.
    """
    from posture.data.ingest.clip_ledger import IngestOptions
    from posture.distributed import cluster
    from posture.distributed.ingest import ingest

    with tempfile.TemporaryDirectory(prefix="posture-bench-") as folder:
        found = read_footage(footage or generated(videos=40))
        store = f"{folder}/store"
        cluster.connect()
        ingest(found, Store(store, create=True), IngestOptions(cut=Cut(DecodeRecipe(height=72, width=98))))
        on_ray, local = [], []
        for number in range(rounds):
            on_ray.append(_on_ray(store, folder, f"ray-{number}"))
            local.append(_local(store, folder, f"local-{number}"))
    return {
        "what": (
            "train, steps/s after the first epoch: "
            f"{facts(**{name.rpartition('.')[2]: value for name, value in CHANGES.items()})}"
        ),
        "measured": {"Ray Train, 1 worker": on_ray, "--local": local},
        "ratios": {"Ray Train / --local": ratio(on_ray, local)},
        "notes": [],
    }


def _on_ray(store: str, folder: str, name: str) -> float:
    from posture.distributed.train import train
    from posture.runs.prepare import prepare

    session = prepare("jobs/action.py:improved", store, runs=f"{folder}/runs", name=name, changes=CHANGES)
    train(session, on_progress=_ignore, on_record=_ignore, on_device=_ignore, asked_to_stop=lambda: False)
    return _steps_per_second(session.folder)


def _local(store: str, folder: str, name: str) -> float:
    from posture.runs.folder import RunFolder

    train_local(store, folder, name, CHANGES)
    return _steps_per_second(RunFolder.open(f"{folder}/runs/{name}"))


def _steps_per_second(folder: Any) -> float:
    return (
        float(np.median([row["clips_per_second"] for row in folder.read_json("history.json")[1:]]))
        / CHANGES["scale.global_batch"]
    )


def _ignore(*_: Any) -> None:
    pass
