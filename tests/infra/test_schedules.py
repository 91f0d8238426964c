"""Retraining every night: by cron, by systemd, by Kubernetes."""

import re
import shutil
import subprocess
import sys
from configparser import ConfigParser

import pytest

from tests.infra.manifests import MANIFESTS, ROOT

CRON = (ROOT / "infra" / "cron" / "posture-retrain").read_text()
SYSTEMD = ROOT / "infra" / "systemd"
(CRONJOB,) = (document["spec"] for _, document in MANIFESTS if document["kind"] == "CronJob")
(SCRIPT,) = CRONJOB["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["args"]


def test_systemd_accepts(tmp_path):
    """systemd's own check, with a Python that is there in place of /opt/posture's."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed here")
    for unit in sorted(SYSTEMD.iterdir()):
        (tmp_path / unit.name).write_text(unit.read_text().replace("/opt/posture/bin/python", sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", *sorted(tmp_path.iterdir())], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_timer_makes_up_for_a_missed_night_and_no_clock_change_moves_it():
    timer = ConfigParser(strict=False)
    timer.optionxform = str
    timer.read(SYSTEMD / "posture-retrain.timer")
    assert timer["Timer"]["Persistent"] == "true" and timer["Timer"]["OnCalendar"].endswith("UTC")


def test_the_service_is_a_user_s_with_little_to_reach():
    lines = (SYSTEMD / "posture-retrain.service").read_text().splitlines()
    assert {
        "Type=oneshot",
        "User=posture",
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "ReadWritePaths=/srv/posture",
    } <= set(lines)


def test_the_crontab_has_a_time_a_user_and_one_line_of_command():
    (line,) = [line for line in CRON.splitlines() if not line.startswith("#") and not re.match(r"[A-Z]+=", line)]
    *time, user, command = line.split(None, 6)[:7]
    assert all(re.fullmatch(r"\*|\d+", field) for field in time) and len(time) == 5 and user == "posture"
    assert "%" not in command, "cron takes % for the end of the line"
    subprocess.run(["bash", "-n", "-c", command], check=True, timeout=20)


def test_all_three_run_the_same_command():
    commands = [
        re.search(r"-m posture retrain [^>\n]+", text).group()
        for text in (SCRIPT, CRON, (SYSTEMD / "posture-retrain.service").read_text())
    ]
    assert len({re.sub(r"s3://lab/|/srv/posture/|/srv/", "", command).strip() for command in commands}) == 1


def test_kubernetes_starts_no_pass_beside_another():
    assert CRONJOB["concurrencyPolicy"] == "Forbid" and CRONJOB["timeZone"] == "Etc/UTC"
    environment = {
        variable["name"]: variable
        for variable in CRONJOB["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["env"]
    }
    assert (
        environment["SUBMISSION"]["valueFrom"]["fieldRef"]["fieldPath"]
        == "metadata.labels['batch.kubernetes.io/job-name']"
    )
    assert environment["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"] == {"name": "posture", "key": "auth_token"}
    assert environment["RAY_AUTH_MODE"]["value"] == "token"


RAY = """#!/bin/bash
echo "$*" >> "$FOLDER/calls"
case "$2" in
    status) [ -e "$FOLDER/known" ] && echo "Job '$3' $(cat "$FOLDER/end")" ;;
    submit) touch "$FOLDER/known" ;;
esac
"""


@pytest.mark.parametrize(
    ("known", "end"), [(False, "succeeded"), (True, "succeeded"), (False, "failed"), (True, "failed")]
)
def test_a_second_try_follows_the_pass_of_the_first(tmp_path, known, end):
    """The CronJob's script, run by its bash with a program that plays `ray job` for a cluster that knows the job
    already, or not.
    """
    (tmp_path / "ray").write_text(RAY)
    (tmp_path / "ray").chmod(0o755)
    (tmp_path / "end").write_text(end)
    if known:
        (tmp_path / "known").touch()
    command = CRONJOB["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["command"]
    done = subprocess.run(
        [*command, SCRIPT],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "FOLDER": str(tmp_path), "SUBMISSION": "posture-retrain-1"},
        capture_output=True,
        text=True,
        timeout=20,
    )
    calls = (tmp_path / "calls").read_text().splitlines()
    submitted = [call for call in calls if call.startswith("job submit")]
    assert done.returncode == (end != "succeeded") and len(submitted) == (not known)
    assert "job logs --follow posture-retrain-1" in calls and all(
        "--submission-id posture-retrain-1" in call for call in submitted
    )
