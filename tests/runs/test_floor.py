"""The linear classifier beside every evaluated run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from posture.runs.backend import Local
from posture.runs.evaluate import evaluate
from posture.runs.floor import FILE
from posture.runs.folder import RunFolder
from posture.runs.prepare import prepare
from tests.support.small_run import SMALL_ACTION

pytestmark = pytest.mark.long

QUIET: dict[str, Any] = {
    "on_progress": lambda update: None,
    "on_record": lambda record: None,
    "on_device": lambda name: None,
}


def trained(recipe: str, store: str, runs: Path, changes: dict[str, Any]) -> RunFolder:
    session = prepare(
        f"jobs/action.py:{recipe}", store, runs=str(runs), name=recipe, changes=changes | {"tracking.mode": "off"}
    )
    Local().train(session, **QUIET)
    return session.folder


@pytest.fixture(scope="module")
def run(small_store: str, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return trained("improved", small_store, tmp_path_factory.mktemp("runs"), SMALL_ACTION | {"epochs": 1})


def test_a_report_says_what_the_linear_classifier_scores_on_the_same_clips(
    run: RunFolder, small_store: str, tmp_path: Path
) -> None:
    metrics = evaluate(run)
    alone = evaluate(trained("linear", small_store, tmp_path, {"data.flip": run.record().run.data.flip}))
    assert metrics["linear"]["accuracy"] == alone["accuracy"] and "linear" not in alone
    said = f"a linear classifier on mean frame and motion: {100 * alone['accuracy']:.1f}"
    assert metrics["linear"]["sentence"].replace("\u202f", " ").startswith(said)
    page = Path(run.path("evaluation", "test", "report.html")).read_text()
    assert "of a linear classifier on mean frame and motion" in page and metrics["linear"]["sentence"] in page


def test_it_is_fitted_once_and_goes_with_the_run(run: RunFolder, small_store: str, tmp_path: Path) -> None:
    first = evaluate(run)["linear"]
    written = Path(run.path(FILE)).stat().st_mtime_ns
    assert evaluate(run)["linear"] == first and Path(run.path(FILE)).stat().st_mtime_ns == written
    moved = RunFolder(str(tmp_path), "moved")
    shutil.copytree(run.uri, moved.uri)
    moved.write_json("run.json", moved.read_json("run.json") | {"store": str(tmp_path / "gone")})
    assert evaluate(moved, store_uri=small_store)["linear"] == first
    Path(moved.path(FILE)).unlink()
    alone = evaluate(moved, store_uri=small_store)["linear"]
    assert list(alone) == ["sentence"] and "was not fitted" in alone["sentence"] and "gone" in alone["sentence"]


def test_it_is_fitted_for_a_run_that_reads_optical_flow(flow_store: str, tmp_path: Path) -> None:
    changes = {"model.width": 0.05, "model.size": 32, "scale.global_batch": 4, "epochs": 1, "steps_per_epoch": 1}
    assert 0 <= evaluate(trained("temporal_stream", flow_store, tmp_path, changes))["linear"]["accuracy"] <= 1
