"""From a drop folder into a store: new groups are split by themselves, what is not whole waits, what is unlabelled is
named.
"""

import os
import time

import pytest

from posture.config import override
from posture.data.store.tables import Store
from posture.errors import InputError
from posture.retrain.intake import take_in
from posture.retrain.options import InboxOptions, RetrainOptions
from posture.retrain.run_pass import run_pass
from posture.runs.backend import LOCAL
from posture.runs.recipes import load_recipe
from tests.support.crops import across, make_film, waiting
from tests.support.footage import make_class_folders, make_video

RECIPE = "32x40-stretch-f20-s2-w1-raw"
PLACES = {"red": across, "green": waiting}


@pytest.fixture(scope="module")
def run():
    return override(load_recipe("jobs/action.py:improved"), {"data.recipe": RECIPE})


@pytest.fixture
def drop(tmp_path):
    """Three videos of each of two classes."""
    return make_class_folders(tmp_path / "in", per_class=3, frames=40)


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "store"), create=True)


def look(drop, store, run, memory=None, **settings):
    return take_in(InboxOptions(str(drop), **{"settle": 0.0} | settings), store, run, memory or {}, backend=LOCAL)


def groups(store):
    return {row["group"]: row["split"] for row in store.read("groups").to_pylist()}


def test_what_arrives_later_is_split_by_itself_and_what_stands_stays(drop, store, run):
    first = look(drop, store, run)
    before = groups(store)
    assert (first.reports[0].decoded, sorted(before.values())) == (6, ["test"] * 2 + ["train"] * 2 + ["val"] * 2)
    for number in range(4):
        make_video(drop / "left" / f"more{number}.mp4", frames=40, seed=600 + number, direction=-1)
    second = look(drop, store, run, first.memory)
    assert [report.decoded for report in second.reports] == [4]
    after = groups(store)
    assert {group: after[group] for group in before} == before
    # All six together would have held out another one at most: a fifth of 7 groups is one, and that one stands.
    assert "test" in {split for group, split in after.items() if group not in before}
    versions = store.versions()
    assert look(drop, store, run, second.memory).reports == [] and store.versions() == versions


def test_a_file_that_is_still_being_copied_waits(drop, store, run, monkeypatch):
    monkeypatch.setattr("posture.retrain.intake.LOOK_AGAIN_SECONDS", 0.05)
    young = drop / "left" / "left02.mp4"
    for path in drop.rglob("*.mp4"):
        os.utime(path, (time.time() - 1000,) * 2)
    whole = young.read_bytes()
    young.write_bytes(whole[:2000])
    first = look(drop, store, run, settle=60.0)
    assert first.unsettled == [str(young)] and first.reports[0].decoded == 5 and not first.reports[0].refused
    young.write_bytes(whole)
    os.utime(young, (time.time() - 100,) * 2)
    second = look(drop, store, run, first.memory, settle=60.0)
    assert second.unsettled == [] and second.reports[0].decoded == 1


def test_labels_that_are_still_being_written_hold_everything_back(drop, store, run, monkeypatch):
    monkeypatch.setattr("posture.retrain.intake.LOOK_AGAIN_SECONDS", 0.05)
    for path in drop.rglob("*.mp4"):
        os.utime(path, (time.time() - 1000,) * 2)
    table = drop / "labels.csv"
    table.write_text("video,start,end,label\nleft/left00.mp4,0,1,jump\n")
    first = look(drop, store, run, settle=60.0)
    assert first.reports == [] and first.unsettled == [str(table)] and store.read("videos").num_rows == 0
    os.utime(table, (time.time() - 100,) * 2)
    second = look(drop, store, run, first.memory, settle=60.0)
    assert (second.reports[0].decoded, len(second.unlabelled)) == (1, 5)


def test_unlabelled_videos_are_named_and_taken_in_once_somebody_labels_them(store, run, tmp_path):
    drop = tmp_path / "in"
    for number in range(2):
        make_video(drop / f"{number}.mp4", frames=40, seed=number)
    first = look(drop, store, run)
    assert first.reports == [] and first.unlabelled == [str(drop / "0.mp4"), str(drop / "1.mp4")]
    (drop / "labels.csv").write_text("video,start,end,label\n0.mp4,0,,jump\n")
    second = look(drop, store, run, first.memory)
    assert second.reports[0].decoded == 1 and second.unlabelled == [str(drop / "1.mp4")]
    assert look(drop, store, run, second.memory).unlabelled == [str(drop / "1.mp4")]


def test_an_empty_drop_folder_is_no_mistake(store, run, tmp_path):
    (tmp_path / "in").mkdir()
    found = look(tmp_path / "in", store, run)
    assert (found.reports, found.unsettled, found.unlabelled) == ([], [], [])


def test_a_corrected_label_is_taken_over(drop, store, run):
    rows = [f"{path.relative_to(drop)},,,{path.parent.name}" for path in sorted(drop.rglob("*.mp4"))]
    (drop / "labels.csv").write_text("\n".join(["video,start,end,label", *rows]))
    first = look(drop, store, run)
    rows[0] = rows[0].replace(",left", ",right")
    (drop / "labels.csv").write_text("\n".join(["video,start,end,label", *rows, ""]))
    second = look(drop, store, run, first.memory)
    assert [report.relabelled for report in second.reports] == [1]
    assert store.read("segments", columns=["label"])["label"].to_pylist().count("left") == 2


def test_clips_that_a_detector_cut_are_not_made_here_and_it_says_what_to_do(drop, store, run, tmp_path):
    cut = override(run, {"data.recipe": f"{RECIPE}-detector-1f2e3d4c-0.2"})
    with pytest.raises(
        InputError, match="posture ingest --crop detector=RUN, then run posture retrain with --footage EMPTY_FOLDER"
    ):
        look(drop, store, cut)
    assert store.read("videos").num_rows == 0
    (tmp_path / "empty").mkdir()
    assert look(tmp_path / "empty", store, cut).reports == []


def test_a_first_pass_that_is_refused_for_that_leaves_no_registry(drop, store, tmp_path):
    options = RetrainOptions(
        InboxOptions(str(drop)),
        store.uri,
        str(tmp_path / "registry"),
        changes={"data.recipe": f"{RECIPE}-detector-1f2e3d4c-0.2"},
    )
    with pytest.raises(InputError, match="posture retrain has no detector"):
        run_pass(options)
    assert not (tmp_path / "registry").exists() and not (tmp_path / "store").exists()


def write_tracks(path, **actions):
    """Write CVAT's file of a film: a track over its 60 frames, with its action, at the place of each colour."""
    tracks = "".join(
        f"<track id='{name}' label='person'>"
        + "".join(
            "<box frame='{}' keyframe='1' outside='0' xtl='{}' ytl='{}' xbr='{}' ybr='{}'>".format(
                frame, *PLACES[name](frame)
            )
            + f"<attribute name='action'>{action}</attribute></box>"
            for frame in (0, 59)
        )
        + "</track>"
        for name, action in actions.items()
    )
    path.write_text(f"<annotations><meta><source>{path.stem}.mp4</source></meta>{tracks}</annotations>")


def test_actions_of_cvats_tracks_are_taken_in_one_for_each_athlete_and_corrected(tmp_path, store, run):
    inbox = tmp_path / "in"
    run = override(run, {"data.recipe": f"{RECIPE}-boxes0.2"})
    for number in range(3):
        make_film(inbox / f"fight{number}.mp4", PLACES, seed=number)
        write_tracks(inbox / f"fight{number}.xml", red="throw", green="fall")
    first = look(inbox, store, run)
    rows = store.read("segments").to_pylist()
    assert sorted((row["label"], row["athlete"].partition("/")[2]) for row in rows) == [
        *[("fall", "green")] * 3,
        *[("throw", "red")] * 3,
    ]
    sides = {(row["video"], row["split"]) for row in rows}
    assert len(sides) == 3 and len({split for _, split in sides}) == 3
    assert look(inbox, store, run, first.memory).reports == []
    write_tracks(inbox / "fight1.xml", red="throw", green="stand")
    second = look(inbox, store, run, first.memory)
    assert [(report.decoded, report.relabelled) for report in second.reports] == [(0, 1)]
    assert (
        sorted(row["label"] for row in store.read("segments").to_pylist()) == ["fall"] * 2 + ["stand"] + ["throw"] * 3
    )


def test_a_video_of_two_sides_is_told_once(tmp_path, store, run):
    inbox = tmp_path / "in"
    for number in range(4):
        make_film(inbox / f"{number}.mp4", PLACES, seed=number)
    table = "video,start,end,label,group\n" + "".join(f"{number}.mp4,0,2,run,g{number}\n" for number in range(3))
    (inbox / "labels.csv").write_text(f"{table}3.mp4,0,1,run,g0\n3.mp4,1,2,run,g3\n")
    first = look(inbox, store, run)
    split = groups(store)
    assert split["g3"] == split["g0"] and not first.reports[0].refused
    other = next(group for group, side in split.items() if side != split["g0"])
    make_film(inbox / "4.mp4", PLACES, seed=4)
    (inbox / "labels.csv").write_text((inbox / "labels.csv").read_text() + f"4.mp4,0,1,run,g0\n4.mp4,1,2,run,{other}\n")
    second = look(inbox, store, run, first.memory)
    assert [item["verdict"] for report in second.reports for item in report.refused] == ["two_sides"]
    assert look(inbox, store, run, second.memory).reports == []
