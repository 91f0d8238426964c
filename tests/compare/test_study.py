import json
import shutil

import pytest

from posture.compare.study import Job, StudyRunner
from posture.config import ActionRun, ClipData, Optim, Scale, Study, override
from posture.errors import InputError
from posture.models.configs import C3D, IMPROVED, Linear, TorchvisionVideo, TwoStream
from posture.runs.evaluate import evaluate
from posture.runs.figures import Views

PLAIN = ActionRun(
    name="plain",
    model=C3D(width=0.125, size=32, hidden=64),
    optim=Optim(name="adamw", lr=0.001),
    scale=Scale(global_batch=4),
    data=ClipData(flip=0.0),
)
BETTER = override(
    PLAIN, {"name": "better", **{f"model.{field}": value for field, value in IMPROVED.items()}, "model.size": 32}
)
STUDY = Study(
    name="tiny",
    subject=BETTER,
    baselines=(PLAIN,),
    epochs=2,
    learning_rates=(0.5, 1.0),
    search_share=0.5,
    titles={"better": "The better one"},
)


def execute_here(what, jobs):
    return {job.run.name: job.work(what) for job in jobs}


def comparing(study, store, folder, *, seeds=1, changes=None, execute=execute_here, equal="epochs"):
    return StudyRunner(study, store, runs=str(folder), seeds=seeds, changes=changes or {}, execute=execute, equal=equal)


@pytest.fixture(scope="module")
def study_of_two_seeds(small_store, tmp_path_factory):
    """Its comparison, the order of its steps, and its folder."""
    order, folder = [], tmp_path_factory.mktemp("study")

    def execute(what, jobs):
        order.extend([what] * bool(jobs))
        return execute_here(what, jobs)

    return comparing(STUDY, small_store, folder, seeds=2, execute=execute).run(), order, folder


def test_every_model_is_searched_trained_on_the_budget_and_scored_on_test(study_of_two_seeds):
    comparison, _, _ = study_of_two_seeds
    assert [(entry.name, entry.title, entry.kind) for entry in comparison.entries] == [
        ("better", "The better one", "ours"),
        ("plain", "plain", "baseline"),
    ]
    for entry in comparison.entries:
        tried = {row["lr"]: row["val_loss"] for row in entry.lr_search}
        assert sorted(tried) == [0.0005, 0.001] and entry.lr == min(tried, key=tried.__getitem__)
        assert [result.seed for result in entry.results] == [0, 1]
        assert all(len(result.history) == 2 and result.metrics["split"] == "test" for result in entry.results)
        assert sorted(entry.results[0].segments) == sorted(
            segment for segment in comparison.groups if segment in entry.results[0].segments
        )
        assert entry.parameters > 0 and entry.latency_ms["least"] <= entry.latency_ms["median"]
        assert entry.optimizer == "AdamW, beta1 0.9, weight decay 0.0003"
        assert (entry.budget, entry.search_budget, entry.streams, entry.flow) == ("2 epochs", "1 epoch", 1, "")
    assert "0.5, 1 times the recipe's, 1 epoch each" in comparison.facts["learning_rate_search"]
    assert comparison.facts["footage"]["test"]["segments"] == len(comparison.entries[0].results[0].segments)


def test_the_time_of_the_optical_flow_that_a_network_reads_is_measured(flow_store, tmp_path):
    two = ActionRun(
        name="two",
        model=TwoStream(width=0.05, size=32),
        optim=Optim(name="adamw", lr=0.001),
        scale=Scale(global_batch=4),
    )
    study = STUDY.model_copy(
        update={
            "subject": two,
            "baselines": (override(two, {"name": "spatial", "model.streams": "spatial"}),),
            "learning_rates": (1.0,),
        }
    )
    both, spatial = comparing(study, flow_store, tmp_path, changes={"epochs": 1}).run().entries
    assert (both.flow, both.streams) == ("dis", 2) and both.flow_ms > 0 and both.search_budget == ""
    assert (spatial.flow, spatial.flow_ms, spatial.streams) == ("", None, 1)


def test_finished_runs_are_used_again_and_more_seeds_train_only_themselves(small_store, tmp_path):
    study = STUDY.model_copy(update={"baselines": (), "learning_rates": (1.0,)})
    comparing(study, small_store, tmp_path).run()
    first = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/**/*.json")}
    comparison = comparing(study, small_store, tmp_path, seeds=2).run()
    assert all(path.stat().st_mtime_ns == written for path, written in first.items())
    assert len(list(tmp_path.iterdir())) == 2 and len(comparison.entries[0].results) == 2


def test_only_a_test_result_of_the_checkpoint_that_is_best_now_counts(small_store, tmp_path):
    """Not one of another protocol, nor of a checkpoint that was best before the run was trained on."""
    study = STUDY.model_copy(update={"baselines": (), "learning_rates": (1.0,)})
    job = comparing(study, small_store, tmp_path)._job(override(BETTER, {"epochs": 1}))
    assert job.work("train") == "" and not job.scored()
    evaluate(job.folder, views=Views(crops=3))
    assert not job.scored()
    assert job.work("score") == "" and job.scored()
    metrics = job.folder.evaluation().metrics
    job.folder.write_json("evaluation/test/metrics.json", metrics | {"tag": "epoch-0000-of-before"})
    assert not job.scored()
    shutil.rmtree(job.folder.path("evaluation", "test"))
    job.folder.write_json(
        "evaluation/metrics.json",
        {name: value for name, value in metrics.items() if name not in ("name", "tag", "notice")},
    )
    assert job.scored()  # as an older version left it


def test_another_budget_or_recipe_never_uses_the_runs_of_this_one(small_store, tmp_path):
    study = STUDY.model_copy(update={"baselines": (), "learning_rates": (1.0,)})
    names = {
        comparing(study, small_store, tmp_path, changes=changes)
        ._job(comparing(study, small_store, tmp_path, changes=changes).subject.run)
        .run.name
        for changes in ({}, {"epochs": 3}, {"optim.weight_decay": 0.0}, {"model.groups": 2})
    }
    assert len(names) == 4


def test_tables_that_a_run_does_not_read_leave_it_alone(small_store, tmp_path):
    study = STUDY.model_copy(update={"baselines": (), "learning_rates": (1.0,)})
    names = []
    for table in (None, "flows", "pictures", "clips"):
        comparison = comparing(study, small_store, tmp_path)
        comparison.versions |= {table: 99} if table else {}
        names.append(comparison._job(comparison.subject.run).run.name)
    assert names[0] == names[1] == names[2] != names[3]


def test_test_is_read_after_everything_was_trained(study_of_two_seeds):
    _, order, folder = study_of_two_seeds
    assert order == ["train", "train", "score"]
    epochs = {len(json.loads((path.parent / "history.json").read_text())) for path in folder.glob("*/evaluation")}
    assert epochs == {2}  # the search ran 1 epoch


def test_a_run_that_cannot_be_trained_is_not_measured_and_says_why(small_store, tmp_path):
    wild = override(PLAIN, {"name": "wild", "optim.name": "sgd", "optim.lr": 1e30})
    comparison = comparing(
        STUDY.model_copy(update={"baselines": (wild,), "learning_rates": (1.0,)}), small_store, tmp_path
    ).run()
    assert "the loss became" in comparison.entries[1].not_measured and not comparison.entries[1].results
    assert comparison.entries[0].results
    with pytest.raises(InputError, match="study tiny: wild could not be trained: the loss became"):
        comparing(Study(name="tiny", subject=wild, epochs=1, learning_rates=(1.0,)), small_store, tmp_path).run()


def test_a_network_that_cannot_be_narrowed_gets_the_time_of_the_subject(small_store, tmp_path):
    whole = ActionRun(
        name="whole", model=TorchvisionVideo(kind="r3d_18", size=16, frames=8), scale=Scale(global_batch=4)
    )
    study = Study(name="tiny", subject=BETTER, references=(whole,), epochs=1, learning_rates=(1.0,))
    entry = comparing(study, small_store, tmp_path, changes={"model.width": 0.125}).run().entries[1]
    if entry.not_measured:
        assert "cannot be narrowed" in entry.not_measured
    else:
        assert (
            json.loads((tmp_path / entry.results[0].run.rpartition("/")[2] / "run.json").read_text())["run"]["epochs"]
            == entry.epochs
        )
    assert len([path for path in tmp_path.iterdir() if path.name.startswith("whole")]) >= 1


def test_a_network_that_is_fitted_at_once_takes_no_part_in_budgets(small_store, tmp_path):
    linear = ActionRun(name="linear", model=Linear(size=32, grid=4))
    study = STUDY.model_copy(update={"baselines": (), "references": (linear,)})
    changes = {"epochs": 3, "model.width": 0.125, "optim.lr": 0.002}
    subject, floor = comparing(study, small_store, tmp_path, changes=changes, equal="time").run().entries
    assert (subject.budget, len(subject.lr_search)) == ("3 epochs", 2)
    assert (floor.budget, floor.lr_search, floor.lr, len(floor.results[0].history)) == ("fitted at once", [], 0.0, 1)
    assert floor.optimizer.startswith("L-BFGS") and floor.clips_per_second > 0 and floor.latency_ms["median"] > 0
    for one in (subject, floor):
        hours = [sum(record["seconds"] for record in result.history) / 3600 for result in one.results]
        assert 0 < one.device_hours == pytest.approx(sum(hours) / len(hours))


def test_epochs_that_fit_the_footage_are_the_subjects_for_all(small_store, tmp_path):
    """Batches follow each network's own."""
    study = STUDY.model_copy(update={"baselines": (override(PLAIN, {"scale.global_batch": 2}),), "epochs": "auto"})
    comparing_all = comparing(study, small_store, tmp_path, changes={"least_steps": 300, "scale.micro_batch": None})
    better, plain = (contender.run for contender in comparing_all.contenders)
    clips = len(comparing_all._index(better, "train"))
    assert better.epochs == plain.epochs == max(30, -(-300 // (clips // better.scale.global_batch)))
    assert better.patience == plain.patience > 0 and plain.scale.global_batch == 2
    assert comparing_all.schedule.startswith(f"epochs auto: {better.epochs} epochs of")


def test_a_run_that_stopped_early_counts_as_trained(small_store, tmp_path):
    study = STUDY.model_copy(update={"baselines": (), "learning_rates": (1.0,)})
    comparison = comparing(study, small_store, tmp_path)
    job = comparison._job(override(BETTER, {"epochs": 30, "patience": 1, "optim.lr": 1e-12}))
    assert job.work("train") == "" and len(job.history) < 30 and job.trained()


def test_on_equal_time_a_network_half_as_fast_does_half_the_steps(small_store, tmp_path):
    def execute(what, jobs):
        said = execute_here(what, jobs)
        for job in jobs:  # speeds of our own, so that nothing depends on this machine's
            speed = {"better": 20.0, "plain": 10.0}[job.run.name.partition("-")[0]]
            job.folder.write_json("history.json", [record | {"clips_per_second": speed} for record in job.history])
        return said

    study = STUDY.model_copy(update={"learning_rates": (1.0,), "epochs": 4})
    entry = comparing(study, small_store, tmp_path, equal="time", execute=execute).run().entries[1]
    assert entry.epochs == len(entry.results[0].history) == 2


def test_what_cannot_be_compared_is_refused_before_anything_is_trained(small_store, tmp_path):
    with pytest.raises(InputError, match=r"model\.widht: there is no field"):
        comparing(STUDY, small_store, tmp_path, changes={"model.widht": 0.5})
    with pytest.raises(InputError, match="groups 7 does not divide"):
        comparing(STUDY, small_store, tmp_path, changes={"model.norm": "group", "model.groups": 7})
    with pytest.raises(ValueError, match="two runs named 'plain'"):
        Study(name="twice", subject=PLAIN, baselines=(PLAIN,))
    assert not list(tmp_path.iterdir())


def test_on_ray_runs_go_side_by_side_and_a_finished_one_is_left_alone(small_store, tmp_path):
    from posture.distributed.jobs import execute

    store = comparing(STUDY, small_store, tmp_path)
    jobs = [store._job(override(PLAIN, {"epochs": 1, "seed": seed})) for seed in range(2)]
    seen: list[tuple[int, int]] = []
    finished: list[Job] = []
    for _ in range(2):
        said = execute(
            "train",
            jobs,
            concurrent=2,
            on_progress=lambda done, total, _: seen.append((done, total)),
            on_done=lambda job, _: finished.append(job),
        )
        assert said == {job.run.name: "" for job in jobs} and all(job.trained() for job in jobs)
    assert len(finished) == 2 and seen[-1] == (2, 2)
    with pytest.raises(InputError, match="--concurrent 99: the cluster has 4 CPUs"):
        execute("score", jobs, concurrent=99, on_progress=lambda *_: None, on_done=lambda *_: None)
