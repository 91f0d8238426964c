"""A network learns from two athletes in one video, each with actions of their own, about as well as from one."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

import posture
from posture.data.decode.cut import Cut
from posture.data.ingest.clip_ledger import IngestOptions
from posture.data.ingest.clips import ingest_clips
from posture.data.labels.tracked_videos import read_tracked_footage
from posture.data.store.schema import DecodeRecipe, crop_name
from posture.data.store.tables import Store
from posture.data.synthetic.footage import generate
from tests.support.motions import CLASSIFIER, MOTIONS, relabel
from tests.support.side_by_side import put_side_by_side

RECIPE = DecodeRecipe(40, 40, 10, 2, 3, crop=crop_name(0.2))
MARGIN = 0.15
"""Largest loss of accuracy. A first measurement gave 0.96 alone and 1.00 beside another."""


def learned(footage: Path) -> tuple[int, dict[str, Any]]:
    """Train on every athlete of the footage. Return the number of segments, and the figures on its test athletes."""
    store = Store(f"{footage}_store", create=True)
    report = ingest_clips(read_tracked_footage(str(footage)), store, IngestOptions(cut=Cut(RECIPE, min_frames=8)))
    rows = csv.DictReader((footage / "segments.csv").open())
    labelled = sorted((row["group"], row["label"], row["start"], row["end"]) for row in rows)
    stored = store.read("segments").to_pylist()
    assert not report.refused
    assert labelled == sorted(
        (row["group"], row["label"], f"{row['start']:.6f}", f"{row['end']:.6f}") for row in stored
    )
    run = posture.train(
        "jobs/demo.py:demo", store=store.uri, name=footage.name, changes=CLASSIFIER | {"epochs": 12}, local=True
    )
    return len(stored), posture.evaluate(run.uri)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_athletes_are_recognised_beside_each_other_as_well_as_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    alone = generate(tmp_path / "alone", videos=72, athletes=18, seed=1, workers=1)
    relabel(alone / "segments.csv", MOTIONS.__getitem__)
    beside = put_side_by_side(alone, tmp_path / "beside")
    (count, single), (pairs, double) = learned(alone), learned(beside)
    assert pairs > 0.9 * count  # but for videos that are left over
    figures = single["accuracy"], double["accuracy"]
    assert figures[0] > 0.7 and figures[1] > figures[0] - MARGIN, figures
