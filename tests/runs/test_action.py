import dataclasses
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from posture.config import override, validate
from posture.data.feed.clips import index_footage
from posture.data.feed.source_windows import SourceFootage, index_sources
from posture.data.store.tables import Store
from posture.distributed.backend import OnRay
from posture.errors import InputError
from posture.runs.action import ActionRuns
from posture.runs.backend import Local
from posture.runs.calibration import calibrate
from posture.runs.evaluate import evaluate, unfinished
from posture.runs.figures import Reads, Views
from posture.runs.folder import RunFolder, evaluation_name
from posture.runs.prepare import prepare
from posture.runs.recipes import load_recipe
from tests.support.html_pages import assert_self_contained
from tests.support.processes import posture_here
from tests.support.small_run import SMALL_ACTION

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def run(small_store, tmp_path_factory):
    """A trained run, barely."""
    changes = SMALL_ACTION | {"epochs": 2, "tracking.mode": "off"}
    session = prepare(
        "jobs/action.py:improved", small_store, runs=str(tmp_path_factory.mktemp("runs")), name="one", changes=changes
    )
    quiet = {"on_progress": lambda update: None, "on_record": lambda record: None, "on_device": lambda name: None}
    Local().train(session, **quiet)
    return session.folder


def predictions(folder, name="test"):
    table = pq.read_table(folder.path("evaluation", name, "predictions.parquet"))
    return dict(zip(table["segment"].to_pylist(), table["scores"].to_pylist(), strict=True))


def test_every_test_segment_is_scored_once_on_any_number_of_workers(run, small_store):
    alone = evaluate(run, views=Views())
    scores = predictions(run)
    expected = {row["segment"] for row in Store(small_store).read("segments").to_pylist() if row["split"] == "test"}
    assert set(scores) == expected and alone["count"] == len(expected)
    assert alone["views"] == [2, 2]  # two stored windows each
    assert alone["clips"] == 2 * alone["count"] and 0 <= alone["clip_accuracy"] <= 1
    record = run.record()
    index = ActionRuns().index(record.run, Store(small_store), "test", Reads(record.versions, record.classes))
    with run.checkpoint("best") as checkpoint:
        probabilities, _ = Local().predict(index, record.run, checkpoint, views=Views(), batch=16)
    assert alone["clip_accuracy"] == (probabilities.argmax(axis=1) == index.labels).mean()
    for workers in (1, 2, 3):
        spread = evaluate(run, views=Views(), backend=OnRay(), workers=workers)
        assert spread["count"] == len(expected) and spread["accuracy"] == alone["accuracy"]
        for segment, values in predictions(run).items():
            np.testing.assert_allclose(values, scores[segment], rtol=1e-4, atol=1e-6)


def test_more_views_and_the_original_files(run):
    more = evaluate(run, views=Views(crops=3, temporal=2))
    assert more["views"] == [12, 12] and "3 crops" in more["protocol"]
    source = evaluate(run, views=Views(source=4))
    assert source["views"] == [4, 4] and "decoded from the original files" in source["protocol"]
    spread = evaluate(run, views=Views(source=4), backend=OnRay(), workers=2)
    assert spread["accuracy"] == source["accuracy"]
    assert run.evaluation("test-4-source-windows").metrics["count"] == source["count"]


def test_every_split_and_protocol_has_a_folder_of_its_own(run, small_store):
    """Looking at val, at more views or at the last checkpoint leaves the test result as it is."""
    result = evaluate(run, views=Views())
    before = {file.name: file.read_bytes() for file in Path(run.path("evaluation", "test")).iterdir()}
    assert sorted(before) == ["metrics.json", "predictions.parquet", "report.html"] and result["name"] == "test"
    others = {
        "val": {"split": "val"},
        "test-3-crops-2-spans": {"views": Views(crops=3, temporal=2)},
        "test-last": {"which": "last"},
        "test-1-source-window": {"views": Views(source=1)},
    }
    for name, options in others.items():
        metrics = evaluate(run, **{"views": Views()} | options)
        assert metrics["name"] == name and run.evaluation(name).metrics == metrics
        assert Path(run.evaluation(name).path("report.html")).stat().st_size > 10_000
    elsewhere = evaluate(run, views=Views(), store_uri=small_store)["name"]
    assert re.fullmatch(r"test-store-small-[0-9a-f]{8}", elsewhere)
    assert {file.name: file.read_bytes() for file in Path(run.path("evaluation", "test")).iterdir()} == before
    assert run.evaluation().metrics == result


def test_confidence_is_calibrated_on_val_once_for_each_checkpoint(run, tmp_path):
    folder = RunFolder(str(tmp_path), "calibrated")
    shutil.copytree(run.uri, folder.uri)
    Path(folder.path("calibration.json")).unlink(missing_ok=True)
    metrics = evaluate(folder, views=Views())
    fitted, tag = calibrate(folder), folder.checkpoints()["best"]
    assert list(folder.read_json("calibration.json")) == [tag] and len(fitted.right) > 0
    found = metrics["calibrated"]
    assert found["temperature"] == fitted.temperature and found["sentence"] == fitted.sentence
    scores = np.array(list(predictions(folder).values()))  # as the network gave them
    confidence, right = fitted.apply(scores).max(axis=1), metrics["accuracy"] * metrics["count"]
    assert sum(found["calibration"]["count"]) == metrics["count"]
    told = [
        n * value for n, value in zip(*(found["calibration"][key] for key in ("count", "confidence")), strict=True) if n
    ]
    assert sum(told) == pytest.approx(confidence.sum(), rel=1e-5)
    hits = [
        n * value for n, value in zip(*(found["calibration"][key] for key in ("count", "accuracy")), strict=True) if n
    ]
    assert sum(hits) == pytest.approx(right)  # the same answers
    page = Path(folder.evaluation().path("report.html")).read_text()
    assert "Reliability, calibrated" in page and fitted.sentence in page

    kept = folder.read_json("calibration.json")
    folder.write_json("calibration.json", {tag: kept[tag] | {"temperature": 1.5}})
    assert calibrate(folder).temperature == 1.5  # read, not fitted again
    folder.write_json("calibration.json", {"epoch-9-of-before": kept[tag]})
    again = calibrate(folder)
    assert again.temperature == pytest.approx(fitted.temperature) and again.confidence == pytest.approx(
        fitted.confidence
    )
    assert list(folder.read_json("calibration.json")) == [tag]
    for wrong in ({"temperature": 0.0}, {"group": []}, {"confidence": ["a"]}):
        folder.write_json("calibration.json", {tag: kept[tag] | wrong})
        with pytest.raises(InputError, match=r"calibration\.json"):
            calibrate(folder)


def test_without_its_store_a_run_is_judged_but_not_calibrated(run, small_store, tmp_path):
    folder = RunFolder(str(tmp_path), "moved")
    shutil.copytree(run.uri, folder.uri)
    Path(folder.path("calibration.json")).unlink(missing_ok=True)
    folder.write_json("run.json", folder.read_json("run.json") | {"store": str(tmp_path / "gone")})
    found = evaluate(folder, views=Views(), store_uri=small_store)["calibrated"]
    assert list(found) == ["sentence"] and "not calibrated" in found["sentence"] and "gone" in found["sentence"]


def test_the_place_where_older_versions_wrote_is_still_read(run, tmp_path):
    folder = RunFolder(str(tmp_path), "old")
    older = {"split": "test", "checkpoint": "best", "protocol": Views().describe(), "accuracy": 0.5}
    folder.write_json("evaluation/metrics.json", older)
    assert folder.evaluation("test").metrics == older and folder.evaluation("val") is None
    assert folder.evaluation("test").path("report.html") == folder.path("evaluation", "report.html")
    folder.write_json("evaluation/metrics.json", older | {"split": "val"})
    assert folder.evaluation("test") is None and folder.evaluation("val").metrics["split"] == "val"
    folder.write_json("evaluation/metrics.json", older | {"protocol": Views(crops=3).describe()})
    assert folder.evaluation("test") is None
    folder.write_json(
        "evaluation/metrics.json", older | {"protocol": "each image once, letterboxed to 640 x 640 pixels"}
    )
    folder.write_json("evaluation/test/metrics.json", older | {"accuracy": 0.75})
    assert folder.evaluation("test").metrics["accuracy"] == 0.75


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ""),
        ({"model.frames": 32}, "stored clips have 16 of the 32 frames that a clip spans: the last is repeated"),
        (
            {"data.step": 2, "model.size": 112},
            "have 16 of the 31 frames .*; stored frames of 64x80 are enlarged to 112",
        ),
    ],
)
def test_what_stored_clips_lack_is_said(changes, said):
    run = override(
        load_recipe("jobs/action.py:c3d"), {"data.recipe": "64x80-stretch-f16-s2-w1-raw", "model.size": 56, **changes}
    )
    assert re.search(f"{said}$", ActionRuns().lacking(run)) and bool(said) == bool(ActionRuns().lacking(run))


def test_names_of_evaluations():
    assert evaluation_name("test") == "test" and evaluation_name(
        "val", crops=3, spans=2, source=10, checkpoint="last"
    ) == ("val-3-crops-2-spans-10-source-windows-last")
    assert re.fullmatch(r"test-store-a_b-[0-9a-f]{8}", evaluation_name("test", store="s3://lab/a b"))
    assert len({evaluation_name("test", store=store) for store in ("s3://lab/a/store", "s3://lab/b/store", None)}) == 3


def test_a_run_that_is_not_trained_to_its_end_says_so_first(run, tmp_path):
    """On the terminal, as a banner on the page, and in metrics.json; a run that stopped early by itself is finished."""
    assert evaluate(run, views=Views())["notice"] == ""
    assert '<p class="notice">' not in Path(run.evaluation().path("report.html")).read_text()
    half = RunFolder(str(tmp_path), "half")
    shutil.copytree(run.uri, half.uri)
    record = half.read_json("run.json")
    half.write_json("run.json", record | {"run": record["run"] | {"epochs": 60}})
    said = "one is unfinished: 2 of its 60 epochs are trained."
    done = posture_here("evaluate", half.uri)
    assert done.returncode == 0, done.stderr
    assert next(line for line in done.stdout.splitlines() if not line.endswith(" ...")).startswith(said)
    assert (
        said in half.evaluation().metrics["notice"]
        and f'<p class="notice">{said}' in Path(half.evaluation().path("report.html")).read_text()
    )
    half.write_json("history.json", [])
    assert evaluate(half, views=Views())["notice"].startswith("one is untrained: none of its 60 epochs is finished.")
    trained = validate(record["run"] | {"epochs": 60, "patience": 2, "metric": "accuracy"})
    for values, notice in (
        ([0.5, 0.4, 0.4], ""),
        ([0.5, 0.6, 0.4], "unfinished: 3 of its 60"),
        ([0.1, 0.2], "unfinished: 2 of its 60"),
    ):
        half.write_json("history.json", [{"val_accuracy": value} for value in values])
        assert notice in unfinished(trained, half) and bool(notice) == bool(unfinished(trained, half))


def test_the_same_windows_from_the_file_and_from_the_store(small_store):
    """Decoding anew gives the very frames that ingest stored."""
    store = Store(small_store)
    index = index_footage(store, "test")
    source = index_sources(store, index, windows=2)
    assert len(source) == len(index)
    from posture.data.feed.shards import open_index

    stored = open_index(index, feed="materialize")
    by_segment = {}
    for clip in range(len(index)):
        by_segment.setdefault(index.segment_ids[index.segments[clip]], set()).add(stored.clip(clip).tobytes())
    anew = {}
    for clip, frames in SourceFootage(source).stream(0, 0, 1, 0):
        anew.setdefault(source.segment_ids[source.segments[clip]], set()).add(frames.tobytes())
    assert anew == by_segment


def test_a_file_that_is_gone_says_what_to_do(small_store):
    store = Store(small_store)
    source = index_sources(store, index_footage(store, "test"), windows=1)
    lost = dataclasses.replace(source, uris=["/nowhere/a.mp4"] * len(source.uris))
    with pytest.raises(InputError, match=r"/nowhere/a.mp4: cannot be decoded again .*leave out --source"):
        list(SourceFootage(lost).stream(0, 0, 1, 0))


def test_the_report_has_images_and_facts(run):
    evaluate(run, views=Views())
    page = Path(run.path("evaluation", "test", "report.html")).read_text()
    assert "data:image/jpeg" in page and "<svg" in page and "accuracy of" in page
    assert "http://" not in page.replace("http://www.w3.org", "") and 'src="http' not in page


def test_the_accuracy_has_an_interval_and_examples_name_their_files(run, small_store):
    metrics = evaluate(run, views=Views())
    segments = [row for row in Store(small_store).read("segments").to_pylist() if row["split"] == "test"]
    assert metrics["interval"]["of"] == "accuracy" and metrics["interval"]["groups"] == len({
        row["group"] for row in segments
    })
    page = assert_self_contained(Path(run.path("evaluation", "test", "report.html")).read_text())
    links = page.values("a", "href")
    assert len(links) == metrics["count"], "so few segments are all shown"
    uris = {row["video"]: row["uri"] for row in Store(small_store).read("videos").to_pylist()}
    assert set(links) == {f"{Path(uris[row['video']]).as_uri()}#t={row['start']:g}" for row in segments}
    assert "recipe jobs/action.py:improved" in page.text and "Recipe jobs/action.py:improved" in page.text


def test_a_run_that_is_not_there_or_has_nothing_to_show(run, small_store, tmp_path):
    with pytest.raises(InputError, match="there is no run here"):
        RunFolder.open(str(tmp_path / "none"))
    prepared = prepare(
        "jobs/action.py:improved", small_store, runs=str(tmp_path), name="bare", changes={"scale.global_batch": 4}
    )
    with pytest.raises(InputError, match="no best checkpoint yet"):
        evaluate(prepared.folder, views=Views())


@pytest.fixture(scope="module")
def two_stream(flow_store, tmp_path_factory):
    changes = SMALL_ACTION | {"model.width": 0.05, "epochs": 1, "tracking.mode": "off"}
    session = prepare(
        "jobs/action.py:two_stream", flow_store, runs=str(tmp_path_factory.mktemp("runs")), name="two", changes=changes
    )
    Local().train(session, on_progress=lambda update: None, on_record=lambda record: None, on_device=lambda name: None)
    return session.folder


def test_a_two_stream_run_is_scored_alike_wherever_its_flow_comes_from(two_stream):
    """From the store, on Ray, and computed anew from the original files' same windows."""
    assert two_stream.read_json("run.json")["run"]["data"]["flow"] == "dis"
    stored = evaluate(two_stream, views=Views(crops=3))
    scores = predictions(two_stream, "test-3-crops")
    assert stored["count"] == len(scores) > 0
    for options in ({"backend": OnRay(), "workers": 2}, {"views": Views(crops=3, source=2)}):
        metrics = evaluate(two_stream, **{"views": Views(crops=3)} | options)
        assert metrics["accuracy"] == stored["accuracy"]
        for segment, values in predictions(two_stream, metrics["name"]).items():
            np.testing.assert_allclose(values, scores[segment], rtol=1e-4, atol=1e-6)
    assert "data:image/jpeg" in Path(two_stream.path("evaluation", "test-3-crops", "report.html")).read_text()


def test_a_store_without_flow_is_refused_with_the_command(two_stream, small_store):
    with pytest.raises(InputError, match=r"test clips have no optical flow by dis, .* --flow dis"):
        evaluate(two_stream, views=Views(), store_uri=small_store)
    evaluate(two_stream, views=Views(source=1), store_uri=small_store)
