"""Stores, runs, searches, comparisons and registries that an earlier version wrote keep working, through the command
line. `kept` holds them; `python -m tests.written_before` made it.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from posture.__main__ import main
from tests.support.footage import make_class_folders, make_video

pytestmark = pytest.mark.long

KEPT = Path(__file__).with_name("kept")
WRITTEN_AT = "/srv/lab"
SEARCH = ("tune", "mine.py", "--base", "mine.py:action", "--store", "clips", "--folder", "search")
MEASURED_ANEW = {"seconds", "device", "speed", "fps", "name", "store", "protocol", "calibrated", "linear"} | {
    "clips",
    "clip_accuracy",
}
"""Figures of metrics.json that differ between machines, or that versions before did not measure."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy what is kept to where the test works, as if it had been written there."""
    folder = tmp_path / "lab"
    shutil.copytree(KEPT, folder)
    shutil.copy(KEPT.with_name("mine.py"), folder)
    for path in folder.rglob("*.json"):
        path.write_text(path.read_text().replace(WRITTEN_AT, str(folder)))
    _move_study(folder / "search" / "study.db", str(folder))
    monkeypatch.chdir(folder)
    return folder


def test_stores_are_shown(lab, capsys):
    said = posture(capsys, "show", "clips", "--out", "clips.html", "--recipe", "mine.py:action")
    assert re.search(r"left\s+5\s+1\s+2", said) and re.search(r"right\s+5\s+1\s+2", said)
    said = posture(capsys, "show", "stills", "--out", "stills.html", "--recipe", "mine.py:detector")
    assert re.search(r"athlete\s+6\s+2\s+2", said) and re.search(r"ball\s+6\s+2\s+2", said)
    for page in ("clips.html", "stills.html"):
        assert "data:image/" in (lab / page).read_text()


@pytest.mark.parametrize("name", ["action", "detector"])
def test_a_run_is_judged_as_it_was(name, lab, capsys):
    folder = lab / "runs" / name / "evaluation" / "test"
    metrics, predictions = read(folder / "metrics.json"), pq.read_table(folder / "predictions.parquet").to_pydict()
    shutil.rmtree(folder)
    posture(capsys, "evaluate", f"runs/{name}")
    assert moved(metrics, read(folder / "metrics.json")) == {}
    again = pq.read_table(folder / "predictions.parquet").to_pydict()
    assert again.keys() == predictions.keys() and len(again["scores"]) == 4
    if name == "action":
        assert moved(predictions, again) == {}
    else:
        assert metrics["map50"] > 0 and moved(first_of_each(predictions), first_of_each(again)) == {}


@pytest.mark.parametrize("name", ["action", "detector"])
def test_a_run_goes_on(name, lab, capsys):
    history, run = read(lab / "runs" / name / "history.json"), read(lab / "runs" / name / "run.json")
    store = run["store"].rpartition("/")[2]
    posture(
        capsys, "train", f"mine.py:{name}", "--store", store, "--name", name, "--resume", "--local", "--epochs", "3"
    )
    longer = read(lab / "runs" / name / "history.json")
    assert longer[:2] == history and [record["epoch"] for record in longer] == [1, 2, 3]
    assert longer[2].keys() == history[1].keys() and math.isfinite(longer[2]["train_loss"])


def test_runs_are_listed(lab, capsys):
    said = posture(capsys, "runs", "runs")
    metrics = read(lab / "runs" / "action" / "evaluation" / "test" / "metrics.json")
    assert "action" in said and "detector" in said and f"accuracy {metrics['accuracy']:.3f}" in said


def test_a_run_is_explained(lab, capsys):
    video = make_video(lab / "left.mp4", frames=20, direction=-1)
    posture(capsys, "explain", "runs/action", str(video), "--out", "why")
    found = read(lab / "why" / "explain.json")["probabilities"]
    assert found.keys() == {"left", "right"} and sum(found.values()) == pytest.approx(1.0)
    assert {path.suffix for path in (lab / "why").iterdir()} == {".html", ".json", ".png"}


def test_a_run_starts_another_and_a_search_gives_it_values(lab, capsys):
    found = read(lab / "search" / "best.json")
    arguments = ["--name", "next", "--local", "--epochs", "1", "--set-file", "search/best.json"]
    posture(capsys, "train", "mine.py:action", "--store", "clips", "--weights", "runs/action", *arguments)
    run = read(lab / "runs" / "next" / "run.json")
    assert run["run"]["optim"]["lr"] == pytest.approx(found["changes"]["optim.lr"])
    assert (lab / "runs" / "next" / "start.safetensors").exists() and len(read(lab / "runs/next/history.json")) == 1


def test_a_comparison_takes_the_runs_that_are_finished(lab, capsys):
    for run in sorted((lab / "study" / "runs").iterdir()):
        rename_job(run)
    expected, before = read(lab / "study" / "comparison.json"), written(lab / "study" / "runs")
    posture(capsys, "compare", "mine.py:study", "--store", "clips", "--seeds", "1", "--out", "study", "--local")
    assert written(lab / "study" / "runs") == before and len(before) == 4
    found = read(lab / "study" / "comparison.json")
    assert len(found["entries"]) == 2 and moved(entries(expected), entries(found)) == {}


def test_a_search_is_shown(lab, capsys):
    best = read(lab / "search" / "best.json")
    posture(capsys, *SEARCH, "--report")
    (page,) = (lab / "search").glob("*.html")
    assert all(trial["run"].rpartition("/")[2] in page.read_text() for trial in (best, best["runner_up"]))
    assert read(lab / "search" / "best.json") == best


@pytest.mark.slow
def test_a_search_goes_on(lab, capsys, ray_cluster):
    before = written(lab / "search" / "runs")
    posture(capsys, *SEARCH, "--trials", "3", "--max-concurrent", "1")
    after = written(lab / "search" / "runs")
    assert {path: after[path] for path in before} == before and len(list((lab / "search" / "runs").iterdir())) == 3


def test_a_registry_is_read_and_its_champion_rolled_back(lab, capsys):
    champion = read(lab / "registry" / "champion.json")
    assert champion["version"] == "v0002" and champion["history"][-1]["former"] == "v0001"
    said = posture(capsys, "registry", "list", "registry")
    assert "v0001" in said and "v0002" in said
    accuracy = read(lab / "registry" / "versions" / "v0001" / "version.json")["metrics"]["accuracy"]
    assert f"{100 * accuracy:.1f}" in posture(capsys, "registry", "show", "registry", "v0001")
    assert "seed" in posture(capsys, "registry", "diff", "registry", "v0001", "v0002")
    posture(capsys, "registry", "rollback", "registry")
    after = read(lab / "registry" / "champion.json")
    assert after["version"] == "v0001" and after["history"][:-1] == champion["history"]


def test_a_pass_takes_in_new_footage_and_judges_a_challenger_beside_the_champion(lab, capsys):
    for path in sorted(make_class_folders(lab / "new", per_class=9, frames=20).glob("*/*.mp4")):
        if path.stem[-2:] != "08":
            path.unlink()
    places = ["--footage", "new", "--store", "clips", "--registry", "registry"]
    lenient = {"settle": 0, "min-clips": 1, "min-per-class": 1, "tolerance": 1, "max-class-drop": 1, "recall-floor": 0}
    options = [f"--{name}={value}" for name, value in lenient.items()]
    posture(capsys, "retrain", *places, "--recipe", "mine.py:action", "--local", *options)
    assert "v0003" in posture(capsys, "registry", "list", "registry")
    version = read(lab / "registry" / "versions" / "v0003" / "version.json")
    assert version["parent"] == "v0002" and version["classes"] == ["left", "right"]
    frozen = read(lab / "registry" / "versions" / "v0002" / "version.json")["holdout"]
    assert set(frozen) <= set(version["holdout"]) and len(frozen) == 4


def posture(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command in this process; return what it prints."""
    try:
        main(list(arguments))
    except SystemExit as end:
        assert not end.code, capsys.readouterr().err
    return capsys.readouterr().out


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def written(folder: Path) -> dict[Path, int]:
    """Return when each checkpoint below `folder` was written."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("model.safetensors")}


def entries(comparison: dict[str, Any]) -> list[Any]:
    return [(row["name"], row["metrics"]) for row in comparison["entries"]]


def first_of_each(predictions: dict[str, Any]) -> dict[str, Any]:
    """Keep the surest detection of each image: weaker ones may change places in the last digit."""
    return {name: [row[:1] for row in predictions[name]] for name in ("boxes", "scores", "labels")}


def moved(expected: Any, found: Any, path: str = "") -> dict[str, tuple[Any, Any]]:
    """Return the values (expected, found) that differ by more than 1e-5, by their path."""
    if isinstance(expected, dict) and isinstance(found, dict):
        keys = (expected.keys() | found.keys()) - MEASURED_ANEW
        pairs = [(f"{path}/{key}", expected.get(key), found.get(key)) for key in keys]
    elif isinstance(expected, list | tuple) and isinstance(found, list | tuple) and len(expected) == len(found):
        pairs = [(f"{path}/{place}", *pair) for place, pair in enumerate(zip(expected, found, strict=True))]
    elif isinstance(expected, float) and isinstance(found, float):
        return {} if math.isclose(expected, found, rel_tol=1e-5, abs_tol=1e-5) else {path: (expected, found)}
    else:
        return {} if expected == found else {path: (expected, found)}
    return {place: pair for sub, one, other in pairs for place, pair in moved(one, other, sub).items()}


def rename_job(folder: Path) -> None:
    """Give a run of a comparison the name that it has where its store now lies: the name's digest covers the run, the
    store and the versions of the tables that it reads.
    """
    record = read(folder / "run.json")
    assert folder.name.split("-")[1] == digest(record, WRITTEN_AT)
    name = re.sub(r"-[0-9a-f]{8}-", f"-{digest(record, str(folder.parents[2]))}-", folder.name)
    (folder / "run.json").write_text(json.dumps(record | {"run": record["run"] | {"name": name}}))
    folder.rename(folder.with_name(name))


def digest(record: dict[str, Any], lab: str) -> str:
    """Compute the digest of a run as the study asked for it, before it took classes and recipe from the store."""
    run, versions = record["run"], {name: record["versions"][name] for name in ("segments", "clips")}
    content = {key: value for key, value in run.items() if key not in ("name", "seed", "tracking")}
    content |= {"model": run["model"] | {"classes": 101}, "data": run["data"] | {"recipe": None}}
    content |= {"store": f"{lab}/clips", "versions": versions}
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=4).hexdigest()


def _move_study(database: Path, folder: str) -> None:
    """Replace the place where a search was written in all its values."""
    with sqlite3.connect(database) as connection:
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for column in [row[1] for row in connection.execute(f"PRAGMA table_info({table})") if "json" in row[1]]:
                connection.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (WRITTEN_AT, folder))
