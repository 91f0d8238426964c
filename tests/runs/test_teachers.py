"""Teachers of a run: copied when it begins, the same for every worker, and refused if they see something else."""

import json
import shutil

import pytest

from posture.errors import InputError
from posture.runs.backend import Local
from posture.runs.prepare import prepare
from posture.runs.teachers import load_teachers
from tests.support.small_run import SMALL_ACTION

pytestmark = pytest.mark.long
SMALL = SMALL_ACTION | {"epochs": 1, "tracking.mode": "off"}
QUIET = {"on_progress": lambda update: None, "on_record": lambda record: None, "on_device": lambda name: None}


def begin(store, runs, name, **changes):
    changes = SMALL | {field.replace("__", "."): value for field, value in changes.items()}
    return prepare("jobs/action.py:improved", store, runs=str(runs), name=name, changes=changes)


@pytest.fixture(scope="module")
def teacher(small_store, tmp_path_factory):
    session = begin(small_store, tmp_path_factory.mktemp("runs"), "teacher")
    Local().train(session, **QUIET)
    return session.folder.uri


def test_a_student_has_its_teachers_in_its_folder_and_learns_from_them(small_store, teacher, tmp_path):
    moved = str(tmp_path / "moved")
    shutil.copytree(teacher, moved)
    losses = {}
    for share in (0.0, 0.9):
        session = begin(small_store, tmp_path, f"student-{share}", teachers=[moved], loss__teacher_share=share)
        assert session.start == f"learning from 1 teacher: {moved}" and list(session.run.teachers) == [moved]
        if share:
            shutil.rmtree(moved)  # the run's folder has all that it needs
        losses[share] = Local().train(session, **QUIET)["history"][0]["train_loss"]
    alone = Local().train(begin(small_store, tmp_path, "alone"), **QUIET)["history"][0]["train_loss"]
    assert losses[0.0] == pytest.approx(alone, rel=1e-4) and losses[0.9] != pytest.approx(alone, rel=1e-4)
    folder = session.folder
    (_, columns), *others = load_teachers(session.run, folder, classes=tuple(reversed(session.classes))).networks
    assert columns == list(reversed(range(len(session.classes)))) and not others


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model__size": 40}, "has model.size 32, and this run 40; a teacher sees the same clips"),
        ({"data__step": 2}, "has data.step 1, and this run 2"),
    ],
)
def test_a_teacher_that_sees_other_clips_is_refused(small_store, teacher, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        begin(small_store, tmp_path, "student", teachers=[teacher], **changes)
    assert not (tmp_path / "student").exists()


def test_a_teacher_of_other_classes_is_refused(small_store, teacher, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(teacher, other)
    record = json.loads((other / "run.json").read_text())
    record["classes"][0] = "golf"
    (other / "run.json").write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"and the footage have different classes: golf, \w+ are of one only"):
        begin(small_store, tmp_path, "student", teachers=[str(other)])


def test_a_run_that_is_continued_keeps_its_teachers(small_store, teacher, tmp_path):
    begin(small_store, tmp_path, "student", teachers=[teacher])
    again = {"name": "student", "runs": str(tmp_path), "resume": True}
    prepare("jobs/action.py:improved", small_store, changes={"teachers": [teacher]}, **again)
    with pytest.raises(InputError, match="keeps its own teachers; leave out --teacher, or choose another --name"):
        prepare("jobs/action.py:improved", small_store, changes={"teachers": ["elsewhere"]}, **again)
