import pytest
import torch

from posture.distributed.backend import OnRay
from posture.errors import InputError
from posture.runs.backend import Local
from posture.runs.folder import run_names
from posture.runs.prepare import prepare
from tests.support.small_run import SMALL_ACTION

CHANGES = SMALL_ACTION | {"epochs": 1, "tracking.mode": "off"}
QUIET = {"on_progress": lambda update: None, "on_record": lambda record: None, "on_device": lambda name: None}


def start(store, runs, **options):
    return prepare("jobs/action.py:improved", store, runs=str(runs), **{"changes": CHANGES} | options)


def test_a_run_is_written_down_before_it_begins(small_store, tmp_path):
    session = start(small_store, tmp_path, name="a")
    record = session.folder.read_json("run.json")
    assert record["classes"] == ["left", "right"] and record["versions"]["clips"] >= 1
    assert record["run"]["model"]["classes"] == 2 and record["run"]["data"]["recipe"] == "32x40-stretch-f20-s2-w2-raw"
    assert record["footage"]["train"]["clips"] == len(session.train)


def test_names_are_unique_unless_given_and_never_reused_unasked(small_store, tmp_path):
    assert start(small_store, tmp_path).run.name != start(small_store, tmp_path).run.name
    start(small_store, tmp_path, name="a")
    with pytest.raises(InputError, match="a run of this name exists; continue it with --resume"):
        start(small_store, tmp_path, name="a")
    with pytest.raises(InputError, match="--resume needs the --name"):
        start(small_store, tmp_path, resume=True)


def test_a_name_that_does_not_exist_is_not_resumed(small_store, tmp_path):
    """Nothing is trained from scratch by a mistyped name; a job that may have to begin says so."""
    created = start(small_store, tmp_path, name="athletes-1").folder.read_json("run.json")["created"]
    for runs, name, hint in (
        (tmp_path, "atletes-1", r" \(is it athletes-1\?\)"),
        (tmp_path, "zzz", ""),
        (tmp_path / "none", "a", ""),
    ):
        with pytest.raises(
            InputError,
            match=rf"/{name}: there is no run of this name to continue{hint}; leave out --resume to begin it",
        ):
            start(small_store, runs, name=name, resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["athletes-1"] == run_names(str(tmp_path))
    assert start(small_store, tmp_path, name="b", resume="if begun").folder.exists()
    assert (
        start(small_store, tmp_path, name="athletes-1", resume="if begun").folder.read_json("run.json")["created"]
        == created
    )


def test_a_run_that_the_machine_has_no_room_for_leaves_its_name_free(small_store, tmp_path):
    with pytest.raises(
        InputError,
        match=r"8 workers: this machine has 4 CPUs, and more workers than that only wait for each other; use at most 4",
    ):
        start(
            small_store,
            tmp_path,
            name="a",
            changes=CHANGES | {"scale.workers": 8, "scale.global_batch": 8},
            admit=OnRay().admit,
        )
    assert not (tmp_path / "a").exists()
    assert start(
        small_store, tmp_path, name="a", changes=CHANGES | {"scale.workers": 4}, admit=OnRay().admit
    ).folder.exists()


def test_resuming_a_finished_run_says_how_to_prolong_it(small_store, tmp_path):
    session = start(small_store, tmp_path, name="a")
    Local().train(session, **QUIET)
    with pytest.raises(InputError, match=r"has finished its 1 epoch; train it longer with --epochs 2"):
        start(small_store, tmp_path, name="a", resume=True, changes={})
    longer = start(small_store, tmp_path, name="a", resume=True, changes={"epochs": 2})
    assert longer.resumed and Local().train(longer, **QUIET)["epoch"] == 2
    assert [row["epoch"] for row in longer.folder.read_json("history.json")] == [1, 2]


def test_a_run_keeps_to_the_footage_it_began_with(small_store, tmp_path):
    session = start(small_store, tmp_path, name="a")
    again = start(small_store, tmp_path, name="a", resume=True)
    assert again.train.keys == session.train.keys and again.classes == session.classes


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (
            {"scale.global_batch": 1000},
            r"1000 clips make a step, but there are only \d+ training clips; use --set scale.global_batch=\d",
        ),
        ({"optim.backbone_lr": 0.1}, r"optim.backbone_lr: 0.1 .* name them with --weights, or use --set"),
        ({"data.recipe": "none"}, "data.recipe must name one of"),
        ({"model.frames": 4}, "model"),
    ],
)
def test_what_cannot_train_is_refused_and_leaves_nothing(small_store, tmp_path, changes, complaint):
    with pytest.raises(InputError, match=complaint):
        start(small_store, tmp_path, name="a", changes=CHANGES | changes)
    assert not (tmp_path / "a").exists()


def test_a_missing_store_is_refused(tmp_path):
    with pytest.raises(InputError, match="there is no store here"):
        start(str(tmp_path / "none"), tmp_path)


def saved(session, which="last"):
    from safetensors.torch import load_file

    with session.folder.checkpoint(which) as checkpoint:
        return load_file(checkpoint / "model.safetensors")


def test_a_run_starts_from_the_weights_of_another_once(small_store, tmp_path):
    """Trained on at a rate of practically zero, they are still those; and a resumed run has no more need of them."""
    first = start(small_store, tmp_path, name="first")
    Local().train(first, **QUIET)
    still = CHANGES | {"weights": str(tmp_path / "first"), "optim.lr": 1e-12, "optim.weight_decay": 0.0, "seed": 5}
    second = start(small_store, tmp_path, name="second", changes=still)
    assert second.start == f"starting from {tmp_path}/first" == second.folder.read_json("run.json")["start"]
    Local().train(second, **QUIET)
    for name, tensor in saved(first, "best").items():
        if "running_" not in name and "num_batches" not in name:  # a norm's statistics move with what it has seen
            assert torch.allclose(tensor, saved(second)[name], atol=1e-6), name

    (tmp_path / "second" / "start.safetensors").unlink()
    longer = start(
        small_store, tmp_path, name="second", resume=True, changes={"epochs": 2, "weights": str(tmp_path / "first")}
    )
    assert longer.resumed and longer.start == "" and Local().train(longer, **QUIET)["epoch"] == 2
    with pytest.raises(InputError, match="a run that is continued keeps its own weights"):
        start(
            small_store, tmp_path, name="second", resume=True, changes={"epochs": 3, "weights": str(tmp_path / "other")}
        )


def test_weights_that_cannot_be_used_are_refused_and_leave_nothing(small_store, tmp_path):
    with pytest.raises(InputError, match="there is nothing to start from at"):
        start(small_store, tmp_path, name="a", changes=CHANGES | {"weights": str(tmp_path / "none.safetensors")})
    assert not (tmp_path / "a").exists()


def test_a_model_with_flow_needs_a_store_with_flow(small_store, flow_store, tmp_path):
    changes = {name: value for name, value in CHANGES.items() if name != "model.size"}
    with pytest.raises(
        InputError,
        match=r"clips have no optical flow by dis, which this model reads; add it with: posture ingest --store "
        rf"{small_store} ",
    ):
        prepare("jobs/action.py:temporal_stream", small_store, runs=str(tmp_path), name="a", changes=changes)
    assert not (tmp_path / "a").exists()
    session = prepare("jobs/action.py:temporal_stream", flow_store, runs=str(tmp_path), name="a", changes=changes)
    assert session.run.data.flow == session.val.flow == "dis" and session.train.inputs == ("flow",)
    assert prepare(
        "jobs/action.py:spatial_stream", small_store, runs=str(tmp_path), name="b", changes=changes
    ).train.inputs == ("rgb",)


def test_epochs_that_fit_the_footage_are_chosen_once(small_store, tmp_path):
    auto = CHANGES | {"epochs": "auto", "least_steps": 40}
    session = start(small_store, tmp_path, name="a", changes=auto)
    epochs = session.run.epochs
    assert session.schedule.startswith(f"epochs auto: {epochs} epochs of") and epochs >= 50
    assert session.folder.record().run.epochs == epochs and session.folder.record().run.patience >= 10
    again = start(small_store, tmp_path, name="a", changes={"epochs": "auto", "seed": 3}, resume=True)
    assert (again.run.epochs, again.run.seed, again.schedule) == (epochs, 3, "")
