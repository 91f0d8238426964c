"""The two tasks behind one protocol, and the backends behind another."""

import inspect

import pytest

from posture.config import override
from posture.distributed.backend import OnRay, backend
from posture.errors import InputError
from posture.runs.backend import Backend, Local
from posture.runs.figures import Views
from posture.runs.kinds import KINDS, TaskRuns
from posture.runs.recipes import load_recipe

RUNS = {"action": load_recipe("jobs/action.py:improved"), "detection": load_recipe("jobs/detector.py:improved")}


def members(protocol):
    return {name for name in vars(protocol) if not name.startswith("_")} | set(protocol.__annotations__)


@pytest.mark.parametrize("task", KINDS)
def test_each_task_answers_all_that_is_asked_in_the_same_form(task):
    kind = KINDS[task]
    assert members(TaskRuns) <= {name for name in dir(kind) if not name.startswith("_")}
    for name in members(TaskRuns):
        if callable(getattr(kind, name)):
            asked = list(inspect.signature(getattr(TaskRuns, name)).parameters)
            assert list(inspect.signature(getattr(type(kind), name)).parameters) == asked, name


@pytest.mark.parametrize("where", [Local, OnRay])
def test_each_backend_does_all_that_is_asked(where):
    assert members(Backend) <= set(dir(where()))


def test_the_backend_is_chosen_once():
    assert isinstance(backend(local=True), Local) and isinstance(backend(local=False), OnRay)


def test_what_a_run_reads_decides_on_its_tables():
    assert KINDS["action"].tables(RUNS["action"]) == ("segments", "clips")
    assert KINDS["action"].tables(load_recipe("jobs/action.py:two_stream")) == ("segments", "clips", "flows")
    assert KINDS["detection"].tables(RUNS["detection"]) == ("images", "boxes")


def test_a_detector_has_one_view():
    assert KINDS["action"].protocol(RUNS["action"], Views(crops=3)).endswith("3 crops of the frame")
    assert KINDS["detection"].protocol(RUNS["detection"], Views()).startswith("each image once")
    with pytest.raises(InputError, match="--crops, --spans and --source are for action classifiers"):
        KINDS["detection"].protocol(RUNS["detection"], Views(crops=3))


def test_trials_share_the_footage_of_the_base_recipe():
    before = KINDS["action"].footage_fields(RUNS["action"])
    assert before != KINDS["action"].footage_fields(override(RUNS["action"], {"data.feed": "stream"}))
    assert before == KINDS["action"].footage_fields(override(RUNS["action"], {"optim.lr": 0.1}))


class Task:
    """A job that is done when its work was called once."""

    def __init__(self, name, problem=""):
        self.run, self.problem, self.worked = RUNS["action"].model_copy(update={"name": name}), problem, 0

    def is_done(self, step):
        return self.worked > 0

    def work(self, step):
        self.worked += 1
        return self.problem


def test_jobs_are_done_one_after_the_other_and_finished_ones_are_not_announced():
    jobs, done, seen = [Task("a"), Task("b", "its loss diverged")], [], []
    for _ in range(2):
        problems = Local().run_jobs(
            "train",
            jobs,
            concurrent=None,
            on_progress=lambda number, total, name: seen.append((number, total, name)),
            on_done=lambda job, problem: done.append((job.run.name, problem)),
        )
        assert problems == {"a": "", "b": "its loss diverged"}
    assert done == [("a", ""), ("b", "its loss diverged")] and seen[:2] == [(0, 2, "a"), (1, 2, "b")]
