"""`ray up` files and what travels with a job, read by Ray's own code."""

import json
import shutil
import subprocess
import zipfile
from functools import cache

import pytest
import yaml

from posture.data.labels.tree import IMAGE_SUFFIXES
from posture.data.store.files import VIDEO_SUFFIXES
from tests.infra.manifests import ROOT

MIB = 1024**2
CODE = [
    "posture/__main__.py",
    "posture/display/templates/page.html",
    "jobs/mine.py",
    "tune_spaces/mine.py",
    "searches/mine/best.json",
    "pyproject.toml",
]
KEPT = [
    "weights/c3d.pth",
    "weights/c3d.safetensors",
    "runs/first/run.json",
    "wandb/run/output",
    "store/clips/part.parquet",
    "searches/mine/runs/one/run.json",
    "aws.pem",
    ".env",
    "auth_token",
    ".git/config",
    ".venv/bin/python",
    "infra/Dockerfile",
]


@cache
def prepared(name):
    """Return cluster/NAME.yaml as Ray reads and validates it."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    found = prepare_config(yaml.safe_load((ROOT / "cluster" / f"{name}.yaml").read_text()))
    validate_config(found)
    return found


@pytest.mark.parametrize("name", ["ssh", "aws"])
def test_nodes_ask_for_the_token_that_is_brought_to_them(name):
    assert "--env RAY_AUTH_MODE=token" in prepared(name)["docker"]["run_options"]
    assert prepared(name)["file_mounts"] == {"~/.ray/auth_token": "~/.ray/auth_token"}


@pytest.mark.parametrize("name", ["ssh", "aws"])
def test_the_dashboard_is_on_loopback(name):
    (head,) = [command for command in prepared(name)["head_start_ray_commands"] if "--head" in command]
    assert "--dashboard-host=127.0.0.1 --dashboard-port=8265" in head


@pytest.mark.parametrize("name", ["ssh", "aws"])
def test_nothing_is_installed_on_the_way_up(name):
    """Everything is in the image; Ray's defaults would fetch another Ray."""
    assert not any(prepared(name)[f"{part}setup_commands"] for part in ("", "head_", "worker_"))


def test_on_aws_work_goes_where_it_belongs():
    kinds = prepared("aws")["available_node_types"]
    resources = {"head": {"CPU": 0, "driver": 8}, "gpu": {"CPU": 8, "GPU": 1}, "decode": {"CPU": 16, "decode": 16}}
    assert {kind: kinds[kind]["resources"] for kind in kinds} == resources
    assert kinds["gpu"]["min_workers"] and kinds["decode"]["min_workers"], (
        "a run looks at the nodes that are there when it begins"
    )
    assert [
        kind for kind in kinds if kinds[kind]["node_config"].get("InstanceMarketOptions") == {"MarketType": "spot"}
    ] == ["gpu", "decode"]


def test_on_aws_ray_makes_no_group_that_lets_ssh_in_from_everywhere():
    configured = [kind["node_config"] for kind in prepared("aws")["available_node_types"].values()]
    assert all(
        node["SecurityGroupIds"] and node["MetadataOptions"] == {"HttpTokens": "required"} for node in configured
    )
    assert all(disk["Ebs"]["Encrypted"] for node in configured for disk in node["BlockDeviceMappings"])


@pytest.mark.slow
def test_on_aws_ray_can_start_every_kind_of_machine(tmp_path, monkeypatch):
    """Ray's own preparation for AWS, and the call that starts a machine, against a server that plays AWS."""
    import boto3
    from moto import mock_aws
    from ray.autoscaler._private.aws.config import bootstrap_aws

    for name, value in (
        ("HOME", str(tmp_path)),
        ("AWS_ACCESS_KEY_ID", "testing"),
        ("AWS_SECRET_ACCESS_KEY", "testing"),
    ):
        monkeypatch.setenv(name, value)
    (tmp_path / ".ssh").mkdir()
    with mock_aws():
        ec2, iam = boto3.client("ec2", region_name="eu-central-1"), boto3.client("iam")
        group = ec2.create_security_group(GroupName="posture", Description="Ray nodes")["GroupId"]
        for name in ("posture-head", "posture-worker"):
            iam.create_instance_profile(InstanceProfileName=name)
        ready = bootstrap_aws(json.loads(json.dumps(prepared("aws")).replace("sg-0123456789abcdef0", group)))
        for kind in ready["available_node_types"].values():
            machine = {name: value for name, value in kind["node_config"].items() if name != "SubnetIds"}
            ec2.run_instances(MinCount=1, MaxCount=1, SubnetId=kind["node_config"]["SubnetIds"][0], **machine)
        started = [
            machine for reservation in ec2.describe_instances()["Reservations"] for machine in reservation["Instances"]
        ]
        groups = {group["GroupName"] for group in ec2.describe_security_groups()["SecurityGroups"]}
    assert [machine["InstanceType"] for machine in started] == ["m7i.xlarge", "g6.2xlarge", "c7i.4xlarge"]
    assert [machine.get("InstanceLifecycle") for machine in started] == [None, "spot", "spot"]
    assert groups == {"default", "posture"}, "Ray made a group of its own"


def test_by_ssh_a_machine_without_a_gpu_says_that_it_decodes(tmp_path):
    """The start commands, run by bash with programs that say what they were given in place of Ray's and NVIDIA's."""
    for program, body in (("ray", 'printf "%s\\n" "$@"'), ("nvidia-smi", "exit ${GPU:?}"), ("nproc", "echo 12")):
        (tmp_path / program).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / program).chmod(0o755)

    def start(node, gpu):
        environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "RAY_HEAD_IP": "192.0.2.10", "GPU": gpu}
        command = ["bash", "-c", prepared("ssh")[f"{node}_start_ray_commands"][-1]]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20, env=environment)
        return done.stdout.splitlines()

    assert start("worker", "0") == ["start", "--address=192.0.2.10:6379", "--metrics-export-port=8080"]
    assert start("worker", "1") == [
        "start",
        "--address=192.0.2.10:6379",
        "--metrics-export-port=8080",
        '--resources={"decode": 12}',
    ]
    assert {"--num-cpus=0", "--num-gpus=0", '--resources={"driver": 8}'} <= set(start("head", "0"))


def upload(folder, target):
    """Names that `ray job submit --working-dir FOLDER` sends."""
    from ray._private.ray_constants import get_runtime_env_default_excludes
    from ray._private.runtime_env.packaging import create_package

    create_package(str(folder), target, include_gitignore=True, excludes=get_runtime_env_default_excludes())
    with zipfile.ZipFile(target) as package:
        return {name for name in package.namelist() if not name.endswith("/")}


def test_footage_weights_and_keys_do_not_travel(tmp_path):
    folder = tmp_path / "lab"
    footage = [
        f"{place}match{suffix}"
        for place in ("", "jobs/footage/deep/")
        for small in VIDEO_SUFFIXES | IMAGE_SUFFIXES
        for suffix in (small, small.upper())
    ]
    for name in [*CODE, *KEPT, *footage]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    for name in (".gitignore", ".rayignore"):
        shutil.copy(ROOT / name, folder)
    assert upload(folder, tmp_path / "package.zip") == {*CODE, ".gitignore", ".rayignore"}


def test_the_project_itself_is_a_small_upload(tmp_path):
    """The upload is smaller than cluster/README.md says; the dashboard takes at most 100 MiB."""
    names = upload(ROOT, tmp_path / "package.zip")
    assert (
        "posture/__main__.py" in names
        and "jobs/action.py" in names
        and not any(name.startswith(("tests/", "infra/")) for name in names)
    )
    assert (tmp_path / "package.zip").stat().st_size < 3 * MIB
