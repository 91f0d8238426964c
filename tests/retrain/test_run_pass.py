"""Passes of retraining as a schedule runs them: processes of their own, on real footage."""

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from posture.data.store.tables import Store
from posture.retrain.registry import Registry
from tests.support.footage import make_class_folders, make_video, write_bad_files
from tests.support.processes import posture, posture_here, s3_server
from tests.support.retrain_kills import Rounds
from tests.support.small_run import SMALL_ACTION, sets

pytestmark = pytest.mark.long

SMALL = SMALL_ACTION | {
    "data.recipe": "40x54-stretch-f12-s2-w1-raw",
    "model.frames": 8,
    "model.width": 0.25,
    "model.dropout": 0.0,
    "scale.global_batch": 8,
    "epochs": 16,
    "data.crop_scale": [0.8, 1.0],
    "data.brightness": 0.1,
    "data.contrast": 0.1,
    "data.saturation": 0.1,
}
"""Changes to the recipe that make a network small enough for a test."""
LENIENT = ("--tolerance", "0.35", "--max-class-drop", "0.5", "--recall-floor", "0.5")
"""For hold-outs of 15 groups, on which an interval is wide."""


def retrain_command(place, *more, **changes):
    """On `place`/in, store and registry unless `more` says otherwise."""
    own = {"--footage": str(place / "in"), "--store": str(place / "store"), "--registry": str(place / "registry")}
    places = [word for option, path in own.items() if option not in more for word in (option, path)]
    return [
        sys.executable,
        "-m",
        "posture",
        "retrain",
        *places,
        "--local",
        "--settle",
        "0",
        *LENIENT,
        *sets(SMALL | changes),
        *more,
    ]


def retrain(place, *more):
    """One pass on `place`/in, in a process of its own."""
    return posture(*retrain_command(place, *more)[3:], timeout=900)


def last_line(done):
    assert done.returncode == 0, done.stderr
    *_, verdict, following = done.stdout.splitlines()
    assert following.startswith("next: posture registry list")
    return verdict


def copy_class(ucf101: Path, target: Path, name: str, *, clips: int):
    """The first `clips` clips of each group of a class."""
    (target / name).mkdir(parents=True, exist_ok=True)
    for path in first_clips(ucf101, name, clips):
        shutil.copyfile(path, target / name / path.name)


def copy_mislabelled(ucf101: Path, target: Path, name: str, named: str, *, copies: int):
    """The clips of a class as another one, under names that tell no group, and with contents that were not seen: an
    empty box at the end.
    """
    for path in first_clips(ucf101, name, 4):
        for copy in range(copies):
            box = struct.pack(">I4s", 16 + copy, b"free") + bytes(8 + copy)
            (target / named / f"{name}-{path.stem[-7:]}-{copy}.mp4").write_bytes(path.read_bytes() + box)


def first_clips(ucf101: Path, name: str, clips: int) -> list[Path]:
    groups: dict[str, list[Path]] = {}
    for path in sorted((ucf101 / "videos" / name).glob("*.mp4")):
        groups.setdefault(path.stem[:-4], []).append(path)
    return [path for group in groups.values() for path in group[:clips]]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_from_three_classes_to_four_and_no_further_with_wrong_labels(ucf101, tmp_path):
    drop, registry = tmp_path / "in", Registry(str(tmp_path / "registry"), create=True)
    for name in ("Archery", "HorseRace", "Surfing"):
        copy_class(ucf101, drop, name, clips=3)
    first = retrain(tmp_path, "--test-share", "0.3")
    assert last_line(first).startswith("Promoted: it recognises"), first.stdout
    assert registry.champion() == "v0001" and registry.version("v0001")["classes"] == [
        "Archery",
        "HorseRace",
        "Surfing",
    ]

    before = snapshot(tmp_path)
    assert last_line(retrain(tmp_path)) == "nothing new; the champion stays"
    assert snapshot(tmp_path) == before

    copy_class(ucf101, drop, "BasketballDunk", clips=3)
    bad = write_bad_files(drop / "BasketballDunk", next((drop / "BasketballDunk").glob("*.mp4")))
    grown = retrain(tmp_path, "--test-share", "0.3")
    assert last_line(grown).startswith("Promoted: "), grown.stdout
    version, decision = registry.version("v0002"), registry.decision(registry.passes()[-1])
    assert registry.champion() == "v0002" and version["parent"] == "v0001" and "BasketballDunk" in version["classes"]
    assert decision["classes"] == {"shared": ["Archery", "HorseRace", "Surfing"], "new": ["BasketballDunk"], "gone": []}
    assert {Path(item["uri"]).name: item["verdict"] for item in decision["refused_files"]} == bad
    assert decision["holdout"]["frozen"]["segments"] == registry.version("v0001")["holdout"]
    assert "in head.2.weight, head.2.bias the rows of BasketballDunk start afresh" in decision["start_sentence"]
    check_hold_out(tmp_path, registry)

    for name, named in {"Archery": "Surfing", "Surfing": "Archery"}.items():
        copy_mislabelled(ucf101, drop, name, named, copies=2)
    pointer = (tmp_path / "registry" / "champion.json").read_bytes()
    refused = retrain(tmp_path, "--set=epochs=5")
    assert last_line(refused).startswith("Refused: "), refused.stdout
    assert (tmp_path / "registry" / "champion.json").read_bytes() == pointer
    assert registry.version("v0003")["decision"]["outcome"] == "refused"
    assert last_line(retrain(tmp_path)) == "nothing new; the champion stays"


def snapshot(place):
    """What a pass must not change where there is nothing new."""
    names = {
        str(path.relative_to(place))
        for folder in ("registry/versions", "registry/passes", "registry/runs")
        for path in (place / folder).rglob("*")
    }
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


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_seeded_points_the_next_pass_ends_as_if_nobody_had(tmp_path):
    """Two rounds; `python -m tests.support.retrain_kills --rounds 10` has more."""
    assert len(Rounds(tmp_path).rounds(2, seed=int(os.environ.get("POSTURE_SEED", "0")))) == 2


@pytest.mark.slow
def test_of_two_passes_at_once_one_works_and_the_other_leaves(tmp_path):
    make_class_folders(tmp_path / "in", per_class=6, frames=40)
    changes = {"model.width": 0.125, "epochs": 2, "data.recipe": "32x40-stretch-f20-s2-w1-raw", "scale.global_batch": 4}
    command = retrain_command(tmp_path, "--min-clips", "2", "--min-per-class", "2", **changes)
    pipes = {
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
        "env": os.environ | {"WANDB_MODE": "disabled"},
    }
    passes = [subprocess.Popen(command, **pipes) for _ in range(2)]
    ended = sorted((one.wait(timeout=800), *one.communicate()) for one in passes)
    assert [code for code, _, _ in ended] == [0, 2], ended
    assert "another pass" in ended[1][2] and "this registry" in ended[1][2] and ended[1][2].count("\n") == 1
    registry = Registry(str(tmp_path / "registry"))
    assert len(registry.passes()) == len(registry.versions()) == 1


@pytest.mark.slow
def test_in_a_bucket_from_inbox_to_champion(tmp_path):
    import obstore

    from posture.data.store.files import open_root

    make_class_folders(tmp_path / "in", per_class=5, frames=40)
    changes = {"model.width": 0.125, "epochs": 1, "data.recipe": "32x40-stretch-f20-s2-w1-raw", "scale.global_batch": 4}
    with s3_server() as environment, pytest.MonkeyPatch.context() as patched:
        for name, value in environment.items():
            patched.setenv(name, value)
        inbox = open_root("s3://lab/inbox")

        def put(paths):
            for path in paths:
                obstore.put(inbox, str(path.relative_to(tmp_path / "in")), path)

        def one_pass():
            places = {"--footage": "s3://lab/inbox", "--store": "s3://lab/store", "--registry": "s3://lab/registry"}
            command = retrain_command(
                tmp_path,
                "--min-clips",
                "2",
                "--min-per-class",
                "2",
                *(word for place in places.items() for word in place),
                **changes,
            )
            return last_line(posture(*command[3:], timeout=600))

        put((tmp_path / "in").rglob("*.mp4"))
        assert one_pass().startswith(("Promoted: ", "Refused: "))
        registry = Registry("s3://lab/registry")
        if registry.champion() is None:  # it learned too little in one epoch
            registry.promote("v0001", why="to begin with one")
        assert one_pass().startswith("nothing new")
        put([
            make_video(tmp_path / "in" / "left" / f"more{number}.mp4", frames=40, seed=700 + number, direction=-1)
            for number in range(4)
        ])
        assert one_pass().startswith(("Promoted: ", "Refused: "))
        assert [version["parent"] for version in registry.versions()] == [None, "v0001"] and registry.current() is None
        assert registry.decision(registry.passes()[-1])["start_sentence"].startswith(
            "starting from s3://lab/registry/versions/v0001"
        )


@pytest.mark.slow
def test_what_a_pass_decides_when_training_fails_or_the_user_thinks_again(tmp_path, monkeypatch):
    """A challenger that diverges is recorded and not tried again; a pass that was interrupted goes on, but not with
    another recipe.
    """
    from posture.retrain.options import InboxOptions, RetrainOptions
    from posture.retrain.run_pass import run_pass

    monkeypatch.setenv("WANDB_MODE", "disabled")
    make_class_folders(tmp_path / "in", per_class=5, frames=40)
    small = SMALL | {
        "data.recipe": "32x40-stretch-f20-s2-w1-raw",
        "model.width": 0.125,
        "scale.global_batch": 4,
        "epochs": 1,
    }
    diverging = small | {"optim.name": "sgd", "optim.lr": 1e30, "optim.warmup_epochs": 0}

    def one_pass(changes, **options):
        said = []
        inbox, *places = (str(tmp_path / name) for name in ("in", "store", "registry"))
        asked = RetrainOptions(
            InboxOptions(inbox, settle=0.0), *places, changes=changes, min_clips=2, min_per_class=2, **options
        )
        return run_pass(asked, tell=said.append), "\n".join(said)

    def interrupted(step, changes, **options):
        """Ctrl-C at a step; the plan that is left."""
        with monkeypatch.context() as patched:
            patched.setattr(f"posture.retrain.{step}", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                one_pass(changes, **options)
        return registry.current()

    failed, _ = one_pass(diverging)
    registry = Registry(str(tmp_path / "registry"))
    assert (
        failed.status == "failed"
        and "lower optim.lr" in failed.sentence
        and registry.decision(failed.pass_id)["outcome"] == "failed"
    )
    assert one_pass(diverging)[0].status == "nothing" and registry.versions() == []

    for number in range(4):
        make_video(tmp_path / "in" / "left" / f"more{number}.mp4", frames=40, seed=800 + number, direction=-1)
    plan = interrupted("run_pass.decide", small)
    assert plan["step"] == "judge"
    other = interrupted("run_pass.decide", small | {"optim.lr": 0.001})
    assert other["run"] != plan["run"] and other["versions"] == plan["versions"]
    done, said = one_pass(small | {"optim.lr": 0.001})
    assert done.status in ("promoted", "refused") and f"resuming pass {other['pass']}" in said and "epoch" not in said
    assert registry.current() is None and [version["run"]["name"] for version in registry.versions()] == [other["run"]]

    # Killed between the weights that a run starts from and its run.json, which nothing else leaves behind.
    half = interrupted("challenger.fit", small | {"optim.lr": 0.003}, force=True)
    (tmp_path / "registry" / "runs" / half["run"] / "run.json").rename(
        tmp_path / "registry" / "runs" / half["run"] / "start.safetensors"
    )
    forced, said = one_pass(small | {"optim.lr": 0.003}, force=True)
    assert f"resuming pass {half['pass']}" in said and forced.decision["run_folder"].endswith(half["run"])


@pytest.mark.ray
@pytest.mark.slow
def test_ctrl_c_in_a_pass_on_ray_saves_where_it_is(tmp_path):
    make_class_folders(tmp_path / "in", per_class=6, frames=60)
    changes = SMALL | {"data.recipe": "32x40-stretch-f20-s2-w1-raw", "scale.global_batch": 2, "epochs": 6}
    command = [
        word
        for word in retrain_command(tmp_path, "--min-clips", "2", "--min-per-class", "2", **changes)
        if word != "--local"
    ]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"WANDB_MODE": "disabled"},
        start_new_session=True,
    )
    for line in process.stdout:
        if "running on" in line:
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130 and "stopping after this step" in out and "Traceback" not in err, out + err
    (run,) = (tmp_path / "registry" / "runs").iterdir()
    state = json.loads(
        (run / "checkpoints" / json.loads((run / "checkpoints.json").read_text())["last"] / "state.json").read_text()
    )
    assert (0, 0) < (state["epoch"], state["step"]) < (6, 0)


def test_bad_requests_are_one_sentence_each(tmp_path):
    (tmp_path / "in").mkdir()
    for more, complaint in (
        (("--recipe", "jobs/detector.py:improved"), "posture retrain is for action classifiers"),
        (("--recipe", "jobs/pretrain.py:pretrain.c3d"), "learns without labels; posture retrain is for action"),
        (("--settle", "-1"), 'Invalid value "-1.0" for --settle. Must be from 0 to'),
        (("--notify-url", "lab"), "--notify-url: must begin with http"),
        (("--set", "optim.rl=1"), "there is no field 'rl' here"),
        (("--footage", str(tmp_path / "no")), "no: no such folder; create it"),
        (("--footage", str(tmp_path / "in" / "no.csv")), "no.csv: no such table of labels"),
    ):
        footage = () if "--footage" in more else ("--footage", str(tmp_path / "in"))
        done = posture_here(
            "retrain", *footage, "--store", str(tmp_path / "s"), "--registry", str(tmp_path / "r"), *more
        )
        assert done.returncode == 2 and complaint in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert not (tmp_path / "s").exists() and not (tmp_path / "r").exists()


def test_nothing_at_all_is_said_and_changes_nothing(tmp_path):
    (tmp_path / "in").mkdir()
    done = posture(
        "retrain",
        "--footage",
        str(tmp_path / "in"),
        "--store",
        str(tmp_path / "store"),
        "--registry",
        str(tmp_path / "registry"),
    )
    assert last_line(done) == "nothing new; there is no champion yet"
    registry = Registry(str(tmp_path / "registry"))
    assert registry.last()["status"] == "nothing" and registry.passes() == [] and registry.current() is None
