import pytest

from posture.commands.train import parse_workers
from posture.config import KINDS, ActionRun, Scale, override, parse_assignments, read_changes, validate
from posture.errors import InputError
from posture.models.configs import C3D, TorchvisionVideo, TwoStream

RUN = ActionRun(name="test", model=C3D())


def test_dotted_changes_reach_every_level():
    run = override(
        RUN, {"epochs": 3, "model.norm": "group", "model.groups": 4, "optim.lr": 0.5, "data.crop_scale": [0.25, 1.0]}
    )
    assert (run.epochs, run.model.norm, run.model.groups, run.optim.lr, run.data.crop_scale) == (
        3,
        "group",
        4,
        0.5,
        (0.25, 1.0),
    )
    assert RUN.model.norm == "none"


def test_a_run_survives_being_written_down():
    run = override(RUN, {"model.widths": [32, 64, 96, 128, 128], "scale.micro_batch": 4})
    assert validate(run.model_dump(mode="json")) == run


def test_assignments_are_json_where_they_can_be():
    assert parse_assignments([
        "optim.lr=1e-3",
        "model.residual=true",
        "model.norm=group",
        "data.crop_scale=[0.5, 1]",
        "data.recipe=null",
        "a=b=c",
    ]) == {
        "optim.lr": 0.001,
        "model.residual": True,
        "model.norm": "group",
        "data.crop_scale": [0.5, 1],
        "data.recipe": None,
        "a": "b=c",
    }
    with pytest.raises(InputError, match="--set takes field=value"):
        parse_assignments(["optim.lr"])


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("optim.rl", 1, r"optim.rl: there is no field 'rl' here; the fields are .*lr"),
        ("optimizer.lr", 1, r"optimizer.lr: there is no field 'optimizer' here"),
        ("epochs.x", 1, r"epochs.x: there is no field"),
        ("epochs", 0, r"epochs: must be a number of epochs from 1 to 1,000,000, or auto, not 0"),
        ("optim.lr", "fast", r"optim.lr: .* \(given 'fast'\)"),
        ("optim.name", "lion", r"optim.name: input should be 'sgd', 'adam' or 'adamw' \(given 'lion'\)"),
        ("model.norm", "layer", r"model.norm: .*'none', 'batch' or 'group'"),
        ("data.crop_scale", [0.9, 0.2], r"data: data.crop_scale must be a range low..high"),
        ("scale.global_batch", 33, None),
        ("name", "../x", r"name: .*pattern"),
    ],
)
def test_bad_values_are_named(path, value, complaint):
    if complaint is None:
        assert override(RUN, {path: value}).scale.global_batch == 33
        return
    with pytest.raises(InputError, match=complaint):
        override(RUN, {path: value})


def test_batches_that_cannot_be_cut_are_refused_with_the_numbers():
    with pytest.raises(
        InputError, match="global_batch 32 cannot be cut evenly over 3 workers; global_batch must be a multiple of 3"
    ):
        override(RUN, {"scale.workers": 3})
    with pytest.raises(
        InputError, match="cannot be cut evenly over 2 workers of micro_batch 5; global_batch must be a multiple of 10"
    ):
        override(RUN, {"scale.workers": 2, "scale.micro_batch": 5})
    assert Scale(global_batch=32, workers=2, micro_batch=4).accumulation == 4
    assert Scale(global_batch=32, workers=2).accumulation == 1


def test_a_range_of_workers_must_divide_the_batch_at_every_size():
    assert (
        Scale(global_batch=12, workers=[1, 4]).workers
        == (1, 4)
        == override(RUN, {"scale.workers": [1, 4], "scale.global_batch": 24}).scale.workers
    )
    assert Scale(workers=[2, 2]).workers == 2 and list(Scale(global_batch=24, workers=[2, 4]).sizes) == [2, 3, 4]
    complaint = (
        r"global_batch 32 cannot be cut evenly over 3, 5, 6 or 7 workers, which scale.workers \[2, 8\] allows; "
        "global_batch must be a multiple of 840"
    )
    with pytest.raises(InputError, match=complaint):
        override(RUN, {"scale.workers": [2, 8]})
    with pytest.raises(
        InputError,
        match=r"over 4 workers of micro_batch 3, which scale.workers \[3, 4\] allows; "
        "global_batch must be a multiple of 36",
    ):
        override(RUN, {"scale.workers": [3, 4], "scale.micro_batch": 3, "scale.global_batch": 18})


@pytest.mark.parametrize("workers", [0, [0, 2], [4, 2], [1, 2, 3], "two", 1.5, True, []])
def test_no_number_of_workers_is_refused_in_one_sentence(workers):
    with pytest.raises(
        InputError,
        match=r"^scale.workers: must be a number of workers from 1, or a range of them \[least, most\].*, not [^;]*$",
    ):
        override(RUN, {"scale.workers": workers})


def test_groups_that_do_not_divide_are_refused_with_those_that_do():
    with pytest.raises(InputError, match=r"model.*groups"):
        override(RUN, {"model.norm": "group", "model.groups": 7})


def test_each_kind_of_model_has_its_own_fields():
    run = ActionRun(name="r3d", model=TorchvisionVideo(kind="mc3_18", size=56))
    assert validate(run.model_dump(mode="json")) == run
    assert override(run, {"model.kind": "r3d_18", "model.dropout": 0.2}).model == TorchvisionVideo(
        kind="r3d_18", size=56, dropout=0.2
    )
    with pytest.raises(
        InputError,
        match=r"^model.width: there is no field 'width' here; the fields are classes, dropout, frames, input, kind",
    ):
        override(run, {"model.width": 0.5})
    with pytest.raises(
        InputError, match=r"^model.kind: must be one of c3d, two_stream, r3d_18, mc3_18, r2plus1d_18, s3d.*i3d"
    ):
        override(run, {"model.kind": "i3d"})
    with pytest.raises(InputError, match=r"^model: size must be at least 16 pixels with mc3_18, not 4"):
        override(run, {"model.size": 4})
    with pytest.raises(InputError, match=r"^model.frames: input should be a valid integer"):
        override(run, {"model.frames": "many"})


def test_flow_is_between_neighbouring_frames():
    temporal = ActionRun(name="test", model=TwoStream(streams="temporal"))
    with pytest.raises(InputError, match=r"data.step must be 1 for a model that reads optical flow, not 2"):
        override(temporal, {"data.step": 2})
    with pytest.raises(InputError, match=r"data.steps must be 1 for a model that reads optical flow, not 1 or 2"):
        override(temporal, {"data.steps": [1, 2]})
    assert override(temporal, {"model.streams": "spatial", "data.step": 2}).data.step == 2


def test_a_two_stream_run_survives_being_written_down():
    run = override(ActionRun(name="test", model=TwoStream()), {"model.backbone": "resnet18", "data.flow": "farneback"})
    assert validate(run.model_dump(mode="json")) == run
    with pytest.raises(InputError, match=r"model: .*frames must be greater than flow_frames 10, not 10"):
        override(run, {"model.frames": 10})


def test_changes_are_read_from_a_file_or_from_what_a_search_found(tmp_path):
    file = tmp_path / "best.json"
    file.write_text('{"optim.lr": 0.5, "model.norm": "batch"}')
    assert (
        read_changes(str(file))
        == read_changes('{"optim.lr": 0.5, "model.norm": "batch"}')
        == {"optim.lr": 0.5, "model.norm": "batch"}
    )
    file.write_text('{"base": "jobs/action.py:c3d", "trial": 3, "changes": {"optim.lr": 0.25}}')
    assert read_changes(str(file)) == {"optim.lr": 0.25}
    for text, complaint in (
        ("[1]", "must hold fields and values"),
        ("{", "not JSON"),
        ('{"optim": {"lr": 1}}', "must hold fields and values"),
    ):
        file.write_text(text)
        with pytest.raises(InputError, match=f"--set-file .*best.json: {complaint}"):
            read_changes(str(file))
    with pytest.raises(InputError, match=r"--set-file .*none\.json: No such file"):
        read_changes(str(tmp_path / "none.json"))


def test_workers_on_the_command_line():
    assert parse_workers("4") == 4 and parse_workers("2-8") == [2, 8]
    for text in ("", "-2", "2-", "1-2-3", "two", "2.5"):
        with pytest.raises(InputError, match="write a number of workers, or a range of them, for example 2-8"):
            parse_workers(text)


NUMBERS = [
    (1e10, "ten thousand million"),
    (10**30, "of thirty digits"),
    (1e308, "near the largest"),
    (-1e9, "negative"),
    (float("inf"), "infinite"),
    (float("nan"), "no number"),
]


def numeric_fields(tree, path=""):
    """Dotted paths of all numbers in a run's plain values; of lists of numbers, the list's."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from numeric_fields(value, f"{path}{name}.")
        elif (
            (isinstance(value, int | float) and not isinstance(value, bool))
            or isinstance(value, list | tuple)
            or value is None
        ):
            yield f"{path}{name}"


def with_number(value, number):
    """The same lists, their first number changed."""
    if isinstance(value, list | tuple):
        return [with_number(value[0], number), *value[1:]] if value else [number]
    return number


ONLY_SIZE = {"mvit_v2_s": {"size": 224}}
RUNS = {
    kind: KINDS[kind].model_validate({"name": "x", "model": {"kind": kind} | ONLY_SIZE.get(kind, {})}) for kind in KINDS
}
FIELDS = sorted({
    (kind, field)
    for kind, run in RUNS.items()
    for field in numeric_fields(run.model_dump())
    if field.startswith("model.") or kind in ("c3d", "yolov5")
})


@pytest.mark.parametrize(("kind", "field"), FIELDS)
@pytest.mark.parametrize("number", [number for number, _ in NUMBERS], ids=[name for _, name in NUMBERS])
def test_every_number_has_bounds(kind, field, number):
    """Nothing beyond them is taken, and what is said of it is one short sentence."""
    if (field == "seed" and number in (1e10, -1e9)) or (field == "optim.lr" and 0 < number <= 1e30):
        return  # a seed like any other; a learning rate that ends in a sentence on divergence
    value = RUNS[kind].model_dump()
    for part in field.split("."):
        value = value[part]
    with pytest.raises(InputError) as refused:
        override(RUNS[kind], {field: with_number(value, number)})
    assert len(str(refused.value)) < 1500 and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "value", [10**5000, [[[]]] * 1000, "x" * 100_000, {"a": 1}, True], ids=["digits", "lists", "text", "dict", "bool"]
)
@pytest.mark.parametrize(
    "field",
    ["epochs", "model.width", "model.widths", "model.placement", "scale.workers", "optim.lr", "model.kind", "model"],
)
def test_odd_values_are_one_short_sentence(field, value):
    if (field, value) in (("model.width", True), ("optim.lr", True), ("epochs", True)):
        return  # 1, as everywhere in Python
    with pytest.raises(InputError) as refused:
        override(RUNS["c3d"], {field: value})
    assert len(str(refused.value)) < 1500


@pytest.mark.parametrize(
    "tree",
    [
        None,
        [],
        3,
        {},
        {"model": None},
        {"model": []},
        {"model": {}},
        {"model": {"kind": []}},
        {"model": {"kind": {}}},
        {"model": {"kind": "c3d"}, "name": 3},
        {"model": {"kind": "c3d", "widths": None}, "name": "x"},
        {"model": {"kind": "c3d"}, "name": "x", "optim": []},
        {"model": {"kind": "c3d"}, "name": "x", "more": 1},
    ],
)
def test_saved_runs_of_any_shape_are_refused_in_a_sentence(tree):
    with pytest.raises(InputError):
        validate(tree)


def test_assignments_that_no_json_reader_takes_are_text():
    digits, brackets = "9" * 5000, "[" * 100_000
    assert parse_assignments([f"epochs={digits}", f"name={brackets}"]) == {"epochs": digits, "name": brackets}


def test_a_range_of_many_workers_is_refused_shortly():
    with pytest.raises(InputError, match="cannot be cut evenly over 3, 5, 6") as refused:
        override(RUNS["c3d"], {"scale.workers": [1, 1024]})
    assert len(str(refused.value)) < 1500


def test_recipes_written_with_the_old_names_still_work():
    from posture.config import ActionLoss, ClipData, Data, DetectionRun, DetectorRun, Loss, Run

    assert (Run, DetectorRun, Data, Loss) == (ActionRun, DetectionRun, ClipData, ActionLoss)
    assert Run(name="mine", model=C3D(), data=Data(step=2), loss=Loss(label_smoothing=0.1)).data.step == 2
