"""Stores, runs and registries that are damaged or forged: every command ends in a result or in one sentence, and
nothing outside them changes.
"""

import random
import shutil
import signal

import pytest

from posture.__main__ import main
from posture.data.store.tables import Store
from tests.fuzz.hostile import SMALL, damage, make_lab, snapshot
from tests.support.small_run import sets

pytestmark = pytest.mark.long

CASES, CHUNKS = 200, 10
LONGEST_SECONDS = 1800
"""Of one command, which takes a second or two, and minutes on a machine that is crowded; longer is taken to be endless.
"""
RECIPE = "jobs/action.py:improved"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A folder with a laboratory as it should be, and the id of a video in it."""
    place = tmp_path_factory.mktemp("hostile")
    make_lab(place)
    (place / "lab").rename(place / "good")
    return place, Store(str(place / "good" / "store")).read("videos")["video"][0].as_py()


def commands(place, victim, chance):
    """Three commands that read what was damaged, and which folders each may change."""
    lab, small = place / "lab", sets(SMALL)
    store, runs, registry, out = (str(lab / "store"), str(lab / "runs"), str(lab / "registry"), str(place / "out"))
    video = next((place / "footage").rglob("*.mp4"))
    known = ["--store", store, "--registry", registry]
    quick = [
        (["show", store, "--out", f"{out}/show.html", "--clips", "2"], ()),
        (["ingest", "--store", store, "--report"], ()),
        (["registry", "list", registry], ()),
        (["registry", "show", registry], ()),
        (["registry", "diff", registry, "v0001", "v0002"], ()),
        (["registry", "promote", registry, "v0001"], ("registry/champion.json",)),
        (["registry", "rollback", registry], ("registry/champion.json",)),
        (["status", "--registry", registry], ()),
        (["evaluate", f"{runs}/one"], ("runs/one/evaluation",)),
        (["explain", f"{runs}/one", str(video), "--out", out], ()),
        (["forget", victim, *known, "--runs", runs, "--yes"], ("",)),
    ]
    slow = [
        (
            [
                "train",
                RECIPE,
                "--store",
                store,
                "--runs",
                runs,
                "--name",
                "one",
                "--resume",
                "--local",
                "--set=epochs=2",
            ],
            ("runs/one",),
        ),
        (
            [
                "train",
                RECIPE,
                "--store",
                store,
                "--runs",
                runs,
                "--name",
                "two",
                "--local",
                "--weights",
                f"{runs}/one",
                *small,
            ],
            ("runs/two",),
        ),
        (
            [
                "train",
                RECIPE,
                "--store",
                store,
                "--runs",
                runs,
                "--name",
                "two",
                "--local",
                "--weights",
                f"{registry}/versions/v0002",
                *small,
            ],
            ("runs/two",),
        ),
        (
            ["retrain", "--footage", str(place / "footage"), *known, "--local", "--min-clips", "1000", *small],
            ("store", "registry"),
        ),
        (["review", *known, "--footage", str(place / "footage"), "--list"], ()),
    ]
    return [*chance.sample(quick, 2), chance.choice([*quick, *slow])]


def run(arguments, capfd, told):
    """Exit code and the sentence of a command in this process."""

    def too_long(number, frame):
        raise AssertionError(f"no end after {LONGEST_SECONDS} s: {told}")

    capfd.readouterr()
    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(LONGEST_SECONDS)
    try:
        main(arguments)
        code = 0
    except SystemExit as end:
        code = end.code or 0
    except Exception as error:
        raise AssertionError(f"{type(error).__name__}: {error}\n{told}") from error
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    return code, capfd.readouterr().err


def check(lab, chance, capfd, told):
    place, victim = lab
    for folder in ("lab", "out"):
        shutil.rmtree(place / folder, ignore_errors=True)
    (place / "out").mkdir()
    shutil.copytree(place / "good", place / "lab", symlinks=True)
    done = [damage(place / "lab", chance) for _ in range(chance.choice([1, 1, 2]))]
    outside = snapshot(place / "photos"), snapshot(place / "footage"), sorted(path.name for path in place.iterdir())
    for arguments, may_change in commands(place, victim, chance):
        said = f"{told}\n{'; '.join(done)}\nposture {' '.join(arguments)}"
        before = snapshot(place / "lab", without=("store/_lease", "registry/_lease"))
        code, complaint = run(arguments, capfd, said)
        assert code in (0, 2), f"exit code {code}\n{said}\n{complaint}"
        assert "Traceback" not in complaint, f"{said}\n{complaint}"
        after = snapshot(place / "lab", without=("store/_lease", "registry/_lease"))
        if code == 2:
            lines = complaint.strip().splitlines()
            assert [line.startswith("posture: ") for line in lines] == [True], f"{said}\n{complaint}"
            kept = {
                name: content
                for name, content in before.items()
                if not any(name.startswith(free) for free in may_change)
            }
            changed = [name for name, content in kept.items() if after.get(name) != content]
            assert not changed, f"changed: {changed}\n{said}\n{complaint}"
            if arguments[0] == "forget":
                assert before == after or "; part of " in complaint, f"{said}\n{complaint}"
        assert (
            snapshot(place / "photos"),
            snapshot(place / "footage"),
            sorted(path.name for path in place.iterdir()),
        ) == outside, said


def test_a_few_hostile_stores_and_runs(lab, capfd, monkeypatch):
    monkeypatch.chdir(lab[0] / "photos")
    for case in range(8):
        check(lab, random.Random(f"few-{case}"), capfd, f"case few-{case}")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_hostile_stores_and_runs(lab, capfd, monkeypatch, request, chunk):
    """200 in all, others every day; --slow-seed repeats a day's."""
    monkeypatch.chdir(lab[0] / "photos")
    seed = request.config.getoption("--slow-seed")
    for case in range(CASES // CHUNKS):
        name = f"{seed}-{chunk}-{case}"
        check(lab, random.Random(name), capfd, f"case {name}")
