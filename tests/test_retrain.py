"""Passes of retraining as a schedule runs them: processes of their own, on real footage."""

import json
import shutil
import time
from pathlib import Path

import pytest

from posture.data.store import Store
from posture.registry import Registry
from tests.footage import write_bad_files
from tests.processes import posture

SMALL = {"data.recipe": "40x54-stretch-f12-s2-w1-raw", "model.frames": 8, "model.size": 32, "model.width": 0.25, "model.dropout": 0.0,
         "scale.global_batch": 8, "epochs": 12}
"""Changes to the recipe that make a network small enough for a test."""
LENIENT = ("--tolerance", "0.25", "--max-class-drop", "0.35", "--recall-floor", "0.5")
"""For hold-outs of a few groups."""


def retrain(place, *more, footage="in", **changes):
    """One pass on `place`/in, in a process of its own."""
    sets = [f"--set={name}={value}" for name, value in (SMALL | changes).items()]
    return posture("retrain", "--footage", str(place / footage), "--store", str(place / "store"), "--registry", str(place / "registry"), "--local",
                   "--settle", "0", *LENIENT, *sets, *more, timeout=900)


def last_line(done):
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def copy_class(ucf101: Path, target: Path, name: str, *, clips: int, named: str | None = None, every_group: bool = True):
    """The first `clips` clips of each group of a class; as class `named`, under names that tell no group."""
    (target / (named or name)).mkdir(parents=True, exist_ok=True)
    groups: dict[str, list[Path]] = {}
    for path in sorted((ucf101 / "videos" / name).glob("*.mp4")):
        groups.setdefault(path.stem[:-4], []).append(path)
    for group in groups.values():
        for path in group[-clips:] if named else group[:clips]:
            shutil.copyfile(path, target / (named or name) / (f"{name}-{path.name[-11:]}" if named else path.name))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_from_three_classes_to_four_and_no_further_with_wrong_labels(ucf101, tmp_path):
    drop, registry = tmp_path / "in", Registry(str(tmp_path / "registry"), create=True)
    for name in ("Archery", "BasketballDunk", "Surfing"):
        copy_class(ucf101, drop, name, clips=2)
    first = retrain(tmp_path, "--test-share", "0.4")
    assert last_line(first).startswith("Promoted: it recognises"), first.stdout
    assert registry.champion() == "v0001" and registry.version("v0001")["classes"] == ["Archery", "BasketballDunk", "Surfing"]

    before, began = snapshot(tmp_path), time.monotonic()
    assert last_line(retrain(tmp_path)) == "nothing new; the champion stands"
    assert snapshot(tmp_path) == before and time.monotonic() - began < 120

    copy_class(ucf101, drop, "HorseRace", clips=2)
    bad = write_bad_files(drop / "HorseRace", next((drop / "HorseRace").glob("*.mp4")))
    grown = retrain(tmp_path, "--test-share", "0.4")
    assert last_line(grown).startswith("Promoted: "), grown.stdout
    version, decision = registry.version("v0002"), registry.decision(registry.passes()[-1])
    assert registry.champion() == "v0002" and version["parent"] == "v0001" and "HorseRace" in version["classes"]
    assert decision["classes"] == {"shared": ["Archery", "BasketballDunk", "Surfing"], "new": ["HorseRace"], "gone": []}
    assert {Path(item["uri"]).name: item["verdict"] for item in decision["refused_files"]} == bad
    assert decision["holdout"]["frozen"]["segments"] == registry.version("v0001")["holdout"]
    assert "in head.2.weight, head.2.bias the rows of HorseRace start afresh" in decision["start_sentence"]
    check_hold_out(tmp_path, registry)

    wrong = {"Archery": "Surfing", "Surfing": "HorseRace", "HorseRace": "BasketballDunk", "BasketballDunk": "Archery"}
    for name, named in wrong.items():
        copy_class(ucf101, drop, name, clips=2, named=named)
    pointer = (tmp_path / "registry" / "champion.json").read_bytes()
    refused = retrain(tmp_path)
    assert last_line(refused).startswith("Refused: "), refused.stdout
    assert (tmp_path / "registry" / "champion.json").read_bytes() == pointer
    assert registry.version("v0003")["decision"]["outcome"] == "refused"
    assert last_line(retrain(tmp_path)) == "nothing new; the champion stands"


def snapshot(place):
    """What a pass must not change where there is nothing new."""
    names = {str(path.relative_to(place)) for folder in ("registry/versions", "registry/passes", "registry/runs") for path in (place / folder).rglob("*")}
    return names, (place / "registry" / "champion.json").read_bytes(), Store(str(place / "store")).versions()


def check_hold_out(place, registry):
    """Nothing that was judged on was trained on, by any version; and no group is on two sides."""
    sides: dict[str, set[str]] = {}
    for row in Store(str(place / "store")).read("segments").to_pylist():
        sides.setdefault(row["group"], set()).add(row["split"])
    assert all(len(splits) == 1 for splits in sides.values())
    for version in registry.versions():
        said = json.loads((place / "registry" / "passes" / version["pass"] / "segments.json").read_text())["segments"]
        assert {said[segment][1] for segment in version["holdout"]} == {"test"}
