import json
import os
import subprocess

import optuna
import pytest
import yaml

from posture.config import override, read_changes
from posture.errors import InputError
from posture.runs.recipes import load_recipe
from posture.search import wandb_sweep
from posture.search.spaces import load_space, sample
from posture.search.trial import parse_objectives
from posture.search.wandb_sweep import sweep_files
from tests.support.processes import posture_here

BASE = load_recipe("jobs/action.py:improved")


def files_of(folder, space="tune_spaces/action.py", *, changes=None, objective="map", **options):
    (goal,) = parse_objectives(objective, BASE)
    files = sweep_files(
        space,
        "jobs/action.py:improved",
        "/store",
        changes=changes or {"epochs": 3},
        objective=goal,
        trials=12,
        **options,
    )
    for name, content in files.items():
        (folder / name).write_text(content)
    return yaml.safe_load(files["sweep.yaml"]), yaml.safe_load(files["sweep_plain.yaml"]), files


def arguments_of(config, chosen):
    """What an agent runs, with a run's choices filled in as W&B's does it."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

    filled = create_sweep_command_args({"args": {name: {"value": value} for name, value in chosen.items()}}) | {
        "env": []
    }
    return [part for word in config["command"] for part in (filled[word[2:-1]] if word.startswith("${") else [word])]


def run_of(arguments):
    """The run that `posture train` makes of them."""
    place = arguments.index("--set-file")
    sets = {
        path: json.loads(value)
        for path, _, value in (
            arguments[index + 1].partition("=") for index, word in enumerate(arguments) if word == "--set"
        )
    }
    return override(BASE, read_changes(arguments[place + 1]) | sets)


def test_wandb_s_optuna_engine_takes_the_space_and_begins_with_the_base(tmp_path, monkeypatch):
    from wandb.sdk.sweeps.scheduler.optimizer import make_optimizer
    from wandb.sdk.sweeps.sweep_info import SweepInfo

    config, _, _ = files_of(tmp_path)
    monkeypatch.chdir(tmp_path)
    optimizer = make_optimizer(SweepInfo("s", "s", "e", "p", config, "c"))
    optimizer.validate_sweep_objective()
    suggested = [one.config.flat_dict() for one in optimizer.ask_n_runs(8)]
    runs = [run_of(arguments_of(config, chosen)) for chosen in suggested]
    assert runs[0] == override(BASE, {"epochs": 3, "metric": "map"}) and len({run.optim.lr for run in runs}) == 8
    assert config["metric"] == {"name": "best_val_map", "goal": "maximize"} and config["run_cap"] == 12
    assert type(optimizer.study.sampler) is optuna.samplers.TPESampler


def test_the_plain_sweep_holds_what_needs_no_conditions_and_says_what_it_leaves_out(tmp_path):
    from wandb.sdk.sweeps.scheduler.optuna import search_space_from_sweep_config

    _, plain, files = files_of(tmp_path, objective="accuracy")
    assert set(plain["parameters"]) == {
        "optim.lr",
        "optim.weight_decay",
        "loss.label_smoothing",
        "model.dropout",
        "model.input",
        "model.norm",
        "model.standardize",
        "model.stochastic_depth",
        "model.attention",
    }
    assert "#   model.groups" in files["sweep_plain.yaml"] and "#   model.placement" in files["sweep_plain.yaml"]
    distributions = search_space_from_sweep_config(plain["parameters"])
    ours = next(iter(sample(load_space("tune_spaces/action.py"), override(BASE, {"epochs": 3}), 1)))[0]
    assert all(ours[name] == distribution for name, distribution in distributions.items())
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(50):
        assert run_of(arguments_of(plain, study.ask(distributions).params)).epochs == 3


def test_choices_that_are_no_fields_stay_out_of_the_plain_sweep(tmp_path):
    _, plain, files = files_of(tmp_path, "tune_spaces/action.py:stages")
    assert set(plain["parameters"]) == {"optim.lr"} and "#   model.placement.stage5" in files["sweep_plain.yaml"]


def test_submitted_runs_reach_the_cluster_as_the_run_that_the_agent_began(tmp_path):
    config, _, _ = files_of(tmp_path, submit=True)
    (tmp_path / "ray").write_text('#!/bin/sh\nfor word in "$@"; do echo "$word"; done\n')
    (tmp_path / "ray").chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "WANDB_SWEEP_ID": "abc",
        "WANDB_RUN_ID": "r1",
    }
    done = subprocess.run(
        arguments_of(config, {"optim.lr": 0.01}), capture_output=True, text=True, env=environment, check=True
    )
    words = done.stdout.splitlines()
    assert json.loads(words[words.index("--runtime-env-json") + 1]) == {
        "env_vars": {"WANDB_SWEEP_ID": "abc", "WANDB_RUN_ID": "r1"}
    }
    assert (
        words[words.index("--") + 1 :][:5] == ["python", "-m", "posture", "train", "jobs/action.py:improved"]
        and run_of(words).optim.lr == 0.01
    )


def test_the_command_writes_them_and_refuses_costs(tmp_path):
    asked = [
        "sweep",
        "tune_spaces/detector.py",
        "--base",
        "jobs/detector.py:improved",
        "--store",
        "store",
        "--out",
        str(tmp_path / "sweeps"),
    ]
    done = posture_here(*asked, "--objective", "map50")
    assert done.returncode == 0 and "model.placement" in done.stdout, done.stderr
    assert sorted(path.name for path in (tmp_path / "sweeps").iterdir()) == [
        "sweep.yaml",
        "sweep_plain.yaml",
        "sweep_space.py",
    ]
    with pytest.raises(InputError, match="training does not report it"):
        sweep_files(
            "tune_spaces/action.py",
            "jobs/action.py:improved",
            "s",
            changes={},
            objective=parse_objectives("accuracy,gmacs", BASE)[1],
            trials=1,
        )


def test_spaces_written_by_earlier_versions_import_the_sweep_by_its_old_name():
    from posture import sweep

    assert sweep is wandb_sweep
