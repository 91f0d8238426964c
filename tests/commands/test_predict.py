import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file

import posture as python
from posture.config import override
from posture.data.decode.video import open_video
from posture.models import build
from posture.predict import write_labels as label_files
from posture.predict.tables import read_prediction
from posture.retrain.registry import Registry
from posture.runs.folder import RunFolder, RunRecord
from posture.runs.recipes import load_recipe
from tests.support.explained import make_run
from tests.support.footage import make_video, with_early_index, write_bad_files
from tests.support.processes import descendants, posture, posture_here, s3_server

pytestmark = pytest.mark.long

FILES = {"timeline.csv", "timeline.json", "tracks.csv", "annotated.mp4", "timeline.html"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A classifier of whole frames with random weights."""
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """A detector with random weights."""
    place = tmp_path_factory.mktemp("detector")
    changes = {"name": "finder", "model.classes": 1, "model.width": 0.125, "model.size": 64}
    trained = override(load_recipe("jobs/detector.py:yolov5s"), changes)
    folder = RunFolder(str(place / "runs"), "finder")
    folder.write_record(RunRecord(run=trained, store="store", versions={}, classes=("athlete",)))
    (place / "made").mkdir()
    save_file(build(trained.model).state_dict(), place / "made" / "model.safetensors")
    folder.publish_checkpoint("epoch-0001", place / "made", best=True)
    return folder


def answer(place):
    return json.loads((Path(place) / "timeline.json").read_text())


def test_one_video_gets_tables_an_annotated_video_and_a_page(run, tmp_path):
    video = make_video(tmp_path / "one.mp4", frames=100)
    said = posture_here("predict", str(video), "--run", run.uri, "--out", str(tmp_path / "out"))
    assert said.returncode == 0, said.stderr
    place = tmp_path / "out" / "one"
    assert {path.name for path in place.iterdir()} == FILES
    assert said.stdout.rstrip().endswith(str(place / "timeline.html"))
    rows = list(csv.DictReader((place / "timeline.csv").open()))
    assert rows[0]["start"] == "0.000" and float(rows[-1]["end"]) == pytest.approx(4.0)
    assert {row["label"] for row in rows} <= {"left", "right", "up"}
    with open_video(str(place / "annotated.mp4")) as reader:
        assert abs(len(reader) - 100) <= 1 and reader.stream.codec == "h264"
    page = (place / "timeline.html").read_text()
    assert "./annotated.mp4" in page and page.rstrip().endswith("</html>")


def test_the_command_and_python_give_the_same(run, tmp_path):
    video = make_video(tmp_path / "one.mp4", frames=90)
    said = posture_here("predict", str(video), "--run", run.uri, "--out", str(tmp_path / "out"), "--no-video")
    assert said.returncode == 0 and not (tmp_path / "out" / "one" / "annotated.mp4").exists()
    written, found = read_prediction(str(tmp_path / "out" / "one")), python.load(run.uri).predict(video)
    np.testing.assert_allclose(written.lanes[0].probabilities, found.lanes[0].probabilities, atol=1e-6)
    np.testing.assert_allclose(written.overall, found.overall, atol=1e-6)
    assert [part.label for part in written.segments] == [part.label for part in found.segments]


def test_the_same_command_leaves_alone_what_is_done(run, tmp_path):
    for seed in range(3):
        make_video(tmp_path / "in" / "deep" / f"{seed}.mp4", seed=seed, frames=60)
    command = ["predict", str(tmp_path / "in"), "--run", run.uri, "--out", str(tmp_path / "out"), "--local"]
    first = posture_here(*command)
    assert first.returncode == 0 and first.stdout.rstrip().endswith(str(tmp_path / "out" / "index.html")), first
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "deep").rglob("*.*")}
    assert len(before) == 3 * len(FILES)
    again = posture_here(*command)
    assert again.returncode == 0 and "3 videos predicted by an earlier command" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "deep").rglob("*.*")} == before
    make_video(tmp_path / "in" / "deep" / "1.mp4", seed=9, frames=80)
    (tmp_path / "out" / "deep" / "2" / "annotated.mp4").unlink()
    third = posture_here(*command, "--overlap", "0.25")
    assert third.returncode == 0 and "earlier command" not in third.stdout


def test_a_bad_file_stops_nothing_and_gives_exit_code_1(run, tmp_path):
    good = make_video(tmp_path / "in" / "good.mp4", frames=200)
    bad = write_bad_files(tmp_path / "in", good)
    (tmp_path / "in" / "long.mp4").write_bytes(with_early_index(good)[: -good.stat().st_size // 3])
    said = posture_here("predict", str(tmp_path / "in"), "--run", run.uri, "--out", str(tmp_path / "out"), "--local")
    assert said.returncode == 1 and not said.stderr, said
    whole, part = answer(tmp_path / "out" / "good"), answer(tmp_path / "out" / "long")
    assert not whole["failure"] and part["failure"] and part["segments"]
    for name in (*bad, "long.mp4"):
        assert f"{name}: " in said.stdout, name
    of_part = ("early.mp4",)
    assert said.stdout.count("unreadable") == len(bad) - len(of_part), said.stdout
    page = (tmp_path / "out" / "index.html").read_text()
    assert all(name in page for name in (*bad, "long.mp4", "good.mp4"))
    assert (tmp_path / "out" / "long" / "annotated.mp4").exists()


def test_athletes_are_looked_for(run, detector, tmp_path):
    video = make_video(tmp_path / "one.mp4", frames=60)
    for name, options in (("both", ["--run", run.uri]), ("tracks", [])):
        out = ["--out", str(tmp_path / name), "--detector", detector.uri, "--fps-cap", "5", "--tracker", "bytetrack"]
        assert posture_here("predict", str(video), *out, *options).returncode == 0
        model = answer(tmp_path / name / "one")["model"]
        assert model["detector"] == detector.uri and model["every"] == 5 and model["tracker"] == "bytetrack"


@pytest.mark.parametrize("kind", ["segments", "cvat", "label-studio"])
def test_labels_to_correct(run, tmp_path, kind):
    video = make_video(tmp_path / "one.mp4", frames=60)
    said = posture_here("predict", str(video), "--run", run.uri, "--out", str(tmp_path / "out"), "--write", kind)
    place, file = tmp_path / "out" / "one", label_files.FILES[kind]
    assert said.returncode == 0 and str(place / file) in said.stdout, said
    assert {path.name for path in place.iterdir()} >= FILES | {file}


def test_the_champion_of_a_registry_answers(run, tmp_path):
    registry = Registry(str(tmp_path / "registry"), create=True)
    record = run.record()
    with run.checkpoint("best") as checkpoint, registry.lease():
        name = registry.add(
            {
                "run": record.run.model_dump(mode="json"),
                "classes": list(record.classes),
                "pass": "0001-20260101-000000",
                "run_folder": run.uri,
            },
            checkpoint / "model.safetensors",
        )
        video = make_video(tmp_path / "one.mp4", frames=60)
        command = ["predict", str(video), "--registry", registry.uri, "--out", str(tmp_path / "out"), "--no-video"]
        none = posture_here(*command)
        assert none.returncode == 2 and "no run here" in none.stderr
        registry.promote(name, why="for the test")
    assert posture_here(*command).returncode == 0
    assert answer(tmp_path / "out" / "one")["model"]["checkpoint"] == name


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "name a video"),
        (["one.mp4"], "give a classifier"),
        (["one.mp4", "--run", "runs/none"], "there is no run here"),
        (["none.mp4", "--run", "RUN"], "no such video or folder"),
        (["empty", "--run", "RUN"], "no video files here"),
        (["one.mp4", "--run", "RUN", "--registry", "registry"], "give one of them"),
        (["one.mp4", "--run", "RUN", "--local", "--workers", "2"], "--workers is for Ray"),
        (["one.mp4", "--run", "RUN", "--tracker", "best"], "--tracker best: choose one of"),
        (["one.mp4", "--run", "RUN", "--start", "5", "--end", "4"], "must be after --start"),
        (["one.mp4", "--run", "RUN", "--overlap", "1"], "from 0 to 0.95"),
        (["one.mp4", "--run", "RUN", "--detector", "RUN"], "finding athletes takes a detector"),
        (["one.mp4", "--detector", "DETECTOR", "--max-error", "0.1"], "--max-error"),
        (["one.mp4", "--run", "RUN", "--write", "excel"], "excel"),
        (["one.mp4", "deep/one.mp4", "--run", "RUN"], "two videos have the same name"),
    ],
)
def test_bad_requests_are_one_sentence_each(run, detector, tmp_path, monkeypatch, options, said):
    make_video(tmp_path / "one.mp4", frames=30)
    (tmp_path / "empty").mkdir()
    (tmp_path / "deep").mkdir()
    shutil.copy(tmp_path / "one.mp4", tmp_path / "deep")
    monkeypatch.chdir(tmp_path)
    named = {"RUN": run.uri, "DETECTOR": detector.uri}
    found = posture_here("predict", *(named.get(option, option) for option in options))
    assert found.returncode == 2 and said in found.stderr and found.stderr.count("\n") == 1, found.stderr
    assert not (tmp_path / "predictions").exists()


@pytest.mark.slow
@pytest.mark.ray
def test_a_folder_is_predicted_on_ray(ray_cluster, run, tmp_path):
    good = make_video(tmp_path / "in" / "a.mp4", frames=80)
    make_video(tmp_path / "in" / "b.mp4", seed=1, frames=60)
    (tmp_path / "in" / "bad.mp4").write_text("no film")
    command = ["predict", str(tmp_path / "in"), "--run", run.uri]
    spread = posture_here(*command, "--out", str(tmp_path / "out"), "--workers", "2")
    assert spread.returncode == 1 and "bad.mp4: " in spread.stdout, spread
    alone = posture_here("predict", str(good), "--run", run.uri, "--out", str(tmp_path / "alone"))
    assert alone.returncode == 0
    ours, theirs = read_prediction(str(tmp_path / "out" / "a")), read_prediction(str(tmp_path / "alone" / "a"))
    np.testing.assert_allclose(ours.lanes[0].probabilities, theirs.lanes[0].probabilities, atol=1e-5)
    again = posture_here(*command, "--out", str(tmp_path / "out"))
    assert "2 videos predicted by an earlier command" in again.stdout


@pytest.mark.ray
def test_a_place_that_cannot_be_written_is_a_sentence_on_ray_too(ray_cluster, run, tmp_path):
    for seed in range(2):
        make_video(tmp_path / "in" / f"{seed}.mp4", seed=seed, frames=40)
    (tmp_path / "file").write_text("no folder")
    command = ["predict", str(tmp_path / "in"), "--run", run.uri, "--workers", "1"]
    said = posture_here(*command, "--out", str(tmp_path / "file"))
    assert said.returncode == 2 and "storage cannot be written" in said.stderr and said.stderr.count("\n") == 1, said


def test_a_run_that_needs_a_detector_is_refused_before_anything_starts(tmp_path):
    for seed in range(2):
        make_video(tmp_path / "in" / f"{seed}.mp4", seed=seed, frames=40)
    cropped = make_run(tmp_path, recipe="32x32-stretch-f16-s2-w1-raw-boxes0.2")
    said = posture_here("predict", str(tmp_path / "in"), "--run", cropped.uri, "--out", str(tmp_path / "out"))
    assert said.returncode == 2 and "--detector RUN" in said.stderr and "Ray" not in said.stdout, said


@pytest.mark.slow
def test_from_a_bucket_into_a_bucket(run, tmp_path):
    import boto3

    video = make_video(tmp_path / "one.mp4", frames=60)
    with s3_server() as environment:
        client = boto3.client(
            "s3",
            endpoint_url=environment["AWS_ENDPOINT_URL"],
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )
        client.upload_file(str(video), "lab", "in/deep/one.mp4")
        for source, place in (("s3://lab/in", "out/deep/one"), ("s3://lab/in/deep/one.mp4", "alone/one")):
            out = f"s3://lab/{place.partition('/')[0]}"
            command = ["predict", source, "--run", run.uri, "--out", out, "--local"]
            said = posture(*command, environment=environment)
            assert said.returncode == 0, said.stderr
            found = client.list_objects_v2(Bucket="lab", Prefix=f"{place}/")["Contents"]
            assert {item["Key"].removeprefix(f"{place}/") for item in found} == FILES
            assert "earlier command" in posture(*command, environment=environment).stdout
        none = posture("predict", "s3://lab/in/none.mp4", "--run", run.uri, environment=environment)
        assert none.returncode == 2 and "s3://lab/in/none.mp4: no such file" in none.stderr


@pytest.mark.slow
def test_ctrl_c_leaves_files_that_open_and_the_same_command_continues(run, tmp_path):
    video = make_video(tmp_path / "long.mp4", frames=3000, size=(240, 320))
    command = [sys.executable, "-m", "posture", "predict", str(video), "--run", run.uri, "--out", str(tmp_path / "out")]
    table = tmp_path / "out" / "long" / "timeline.json"
    for step in ("looking", "drawing"):
        before = table.stat().st_mtime_ns if table.exists() else 0
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 200
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
            if step == "looking" and any("sandbox" in name for name in descendants(process.pid).values()):
                break
            if step == "drawing" and table.exists() and table.stat().st_mtime_ns > before:
                break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=200)
        assert process.returncode == 130 and "Traceback" not in err, (out, err)
        if step == "drawing":
            assert "the same command continues" in out and answer(table.parent)["model"].get("key") is None
    assert read_prediction(str(tmp_path / "out" / "long"))
    done = posture(*command[3:])
    assert done.returncode == 0 and not answer(tmp_path / "out" / "long")["failure"], done.stderr
    with open_video(str(tmp_path / "out" / "long" / "annotated.mp4")) as reader:
        assert abs(len(reader) - 3000) <= 1
    assert os.path.getsize(tmp_path / "out" / "long" / "timeline.html") > 1000
