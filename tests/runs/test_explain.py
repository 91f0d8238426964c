import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from posture.__main__ import main
from posture.errors import InputError
from posture.models.configs import C3D, TwoStream
from posture.runs.explain import explain, peaks
from posture.runs.folder import RunFolder
from posture.runs.recipes import load_recipe
from posture.runs.reports.explanation import verdict
from tests.support.explained import CLASSES, make_run, run_command
from tests.support.footage import make_video

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def improved(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("improved"))


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        # the middle one is low
        ([0.1, 0.2, 0.9, 0.2, 0.1], [2]),
        ([0.9, 0.2, 0.1, 0.2, 0.8], [0, 4]),
        ([0.9, 0.1, 0.3, 0.1, 0.9], [0, 4]),
        ([0.5] * 5, [2]),
        ([0.2, 0.8, 0.8, 0.8, 0.1, 0.7], [2, 5]),
        ([0.1, 0.2, 0.3], [2]),
        ([1, 0, 1, 0, 1, 0, 0.9, 0, 1], [0, 2, 4, 8]),
    ],
)
def test_key_frames_are_peaks(weights, expected):
    assert peaks(np.array(weights, dtype=float)) == expected


@pytest.fixture(scope="module")
def explained(improved, tmp_path_factory):
    """A video and the folder with what the command said about it."""
    place = tmp_path_factory.mktemp("explained")
    path = make_video(place / "a.mp4", frames=75)
    run_command(improved.uri, str(path), "--out", str(place / "out"))
    return path, place / "out"


def test_the_files_tell_what_the_network_did(improved, explained):
    path, out = explained
    explanation = explain(improved, str(path))
    assert explanation.explained == CLASSES[explanation.probabilities.argmax()] == explanation.top[0][0]
    np.testing.assert_allclose(explanation.probabilities.sum(), 1, rtol=1e-5)
    files = {item.name for item in out.iterdir()}
    assert files == {"explain.html", "explain.json", "grad_cam.png", "spatial_attention.png", "temporal_attention.png"}
    said = json.loads((out / "explain.json").read_text())
    assert said["top"][0] == {
        "class": explanation.explained,
        "probability": pytest.approx(explanation.top[0][1], rel=1e-5),
    }
    assert (
        said["checkpoint"] == "best, epoch 7"
        and len(said["frames"]) == 16
        and [block["block"] for block in said["attention"]] == ["stage4", "stage5"]
    )
    weights = np.array(said["temporal"]["all blocks together"])
    assert weights.shape == (16,) and said["key_frames"][0]["weight"] >= np.median(weights)
    for name in said["pictures"]:
        image = np.asarray(Image.open(out / name).convert("RGB"))
        assert image.shape[1] > 1000 and image.std() > 10


def test_the_page_is_one_file_that_names_the_evidence(explained):
    page = (explained[1] / "explain.html").read_text().replace("<wbr>", "")
    assert "a.mp4" in page and page.count("data:image/jpeg") > 24 and "<svg" in page
    for part in ("Evidence for", "Spatial attention", "Temporal attention", "40x52-stretch-f20-s2-w2-raw"):
        assert part in page
    assert 'src="http' not in page and "<script" not in page


def test_another_class_has_other_evidence(improved, video):
    path = str(video("a.mp4"))
    maps = {name: explain(improved, path, class_name=name) for name in CLASSES}
    assert all(explanation.explained == name for name, explanation in maps.items())
    values = [explanation.evidence.class_maps[-1].values for explanation in maps.values()]
    assert not np.allclose(values[0], values[1]) and not np.allclose(values[1], values[2])
    first = maps[CLASSES[0]].top[0][0]
    for name, explanation in maps.items():
        assert ("Explained here is" in verdict(explanation)) == (name != first)


def test_below_the_run_unless_told_otherwise_and_a_place_for_each_question(improved, video):
    path = str(video("some where$.mp4"))
    run_command(improved.uri, path, "--class", "up")
    run_command(improved.uri, path, "--class", "up", "--start", "0.4")
    names = sorted(item.name for item in Path(improved.path("explain")).iterdir())
    assert names == ["some-where--0.4s-up", "some-where--up"]
    times = json.loads(Path(improved.path("explain", names[0], "explain.json")).read_text())["frames"]
    assert times[0] == pytest.approx(0.4)


def test_networks_without_attention_say_so(video, tmp_path, capsys):
    folder = make_run(tmp_path, C3D(classes=3, width=0.125, size=32))
    run_command(folder.uri, str(video("a.mp4")), "--out", str(tmp_path / "out"))
    assert "no attention blocks; only Grad-CAM is shown" in capsys.readouterr().out
    assert "no attention blocks" in (tmp_path / "out" / "explain.html").read_text()
    assert sorted(item.name for item in (tmp_path / "out").glob("*.png")) == ["grad_cam.png"]


@pytest.mark.parametrize(("streams", "names"), [("both", ["rgb", "flow"]), ("temporal", ["flow"])])
def test_two_streams_are_each_explained(video, tmp_path, streams, names):
    folder = make_run(tmp_path, TwoStream(classes=3, width=0.125, size=40, streams=streams), flow="dis")
    run_command(folder.uri, str(video("a.mp4")), "--out", str(tmp_path / "out"))
    said = json.loads((tmp_path / "out" / "explain.json").read_text())
    assert list(dict.fromkeys(item["stream"] for item in said["grad_cam"])) == names
    page = (tmp_path / "out" / "explain.html").read_text()
    assert all(f"Grad-CAM, {name} stream" in page for name in names)


def test_what_cannot_be_explained_is_one_sentence(improved, video, tmp_path, capsys):
    good, short = str(video("a.mp4")), str(video("short.mp4", frames=12))
    bare = RunFolder(str(tmp_path), "bare")
    bare.write_json("run.json", improved.read_json("run.json"))
    detector = RunFolder(str(tmp_path), "athletes")
    detector.write_json(
        "run.json",
        improved.read_json("run.json") | {"run": load_recipe("jobs/detector.py:improved").model_dump(mode="json")},
    )
    for arguments, complaint in (
        (("/nowhere/run", good), "there is no run here"),
        ((detector.uri, good), "athletes is a detector (yolov5), and posture explain is for action classifiers"),
        ((bare.uri, good), "no best checkpoint yet"),
        ((improved.uri, __file__), "test_explain.py: the video cannot be read"),
        ((improved.uri, "/nowhere.mp4"), "/nowhere.mp4: the video cannot be read"),
        ((improved.uri, short), "too short: one clip needs 1.24 s, the video lasts 0.48 s"),
        ((improved.uri, good, "--class", "rigth"), "--class 'rigth': the run has no such class; it has right"),
        ((improved.uri, good, "--start", "9"), "--start 9: "),
        ((improved.uri, good, "--checkpoint", "worst"), "worst"),
    ):
        with pytest.raises(SystemExit) as end:
            main(["explain", *arguments])
        said = capsys.readouterr().err
        assert end.value.code == 2 and complaint in said and said.count("\n") == 1, said
    with pytest.raises(InputError, match="it has left, right, up"):
        explain(improved, good, class_name="zzz")
