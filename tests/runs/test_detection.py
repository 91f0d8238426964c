"""Detectors from a store to a report: every kind of network, resuming, workers, weights, and a net that learns images
by heart.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from posture.compare.study_tasks import image_arrays
from posture.config import DetectionRun, override
from posture.data.feed.images import index_images
from posture.data.feed.shards import open_index
from posture.data.ingest.image_ledger import ImageOptions
from posture.data.labels.images import read_images
from posture.data.store import schema
from posture.data.store.tables import Store
from posture.distributed.backend import OnRay
from posture.distributed.ingest import ingest_images
from posture.errors import InputError
from posture.models import build
from posture.models.detector_configs import IMPROVED_YOLOV5, SSD300, FasterRCNN, YOLOv5, YOLOv7
from posture.runs.backend import Local
from posture.runs.detection import load_detector
from posture.runs.evaluate import evaluate
from posture.runs.figures import Views
from posture.runs.folder import RunFolder
from posture.runs.prepare import prepare
from posture.runs.recipes import functions, load_module, load_recipe
from posture.tasks.detection import DetectionTask
from posture.tasks.detection_metrics import detection_metrics
from posture.train.context import LocalContext
from posture.train.image_batches import ImageBatches
from posture.train.loop import fit
from tests.support.image_folders import shared
from tests.support.image_store import CLASSES, boxes_table, make_images, write_image_store

pytestmark = pytest.mark.long

QUIET = {"on_progress": lambda update: None, "on_record": lambda record: None, "on_device": lambda name: None}
NETWORKS = {
    "improved": YOLOv5(size=64, width=0.125, **IMPROVED_YOLOV5),
    "yolov7": YOLOv7(size=64, width=0.125),
    "ssd300": SSD300(size=160, width=0.125),
    "fasterrcnn": FasterRCNN(size=64, width=0.125),
}
FIGURES = ("map50", "map50_95", "precision", "recall", "f1")


def small(network="improved", **changes):
    run = DetectionRun(name=network, model=NETWORKS[network])
    return override(run, {"epochs": 2, "scale.global_batch": 4, "tracking.mode": "off", **changes})


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_image_store(
        tmp_path_factory.mktemp("images") / "store", make_images(36, splits=("train", "train", "val", "test"))
    ).uri


def trained(run, store, runs, name, **options):
    session = prepare(run, store, runs=str(runs), name=name, **options)
    Local().train(session, **QUIET)
    return session.folder


@pytest.fixture(scope="module")
def folder(store, tmp_path_factory):
    return trained(small(), store, tmp_path_factory.mktemp("runs"), "one")


@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_trains_and_is_judged(network, store, tmp_path):
    folder = trained(small(network), store, tmp_path, network)
    history = folder.read_json("history.json")
    assert len(history) == 2 and all(np.isfinite(record["train_loss"]) for record in history)
    terms = [value for name, value in history[0].items() if name.startswith("train_loss_")]
    assert len(terms) > 1 and sum(terms) == pytest.approx(history[0]["train_loss"], rel=1e-6)
    metrics = evaluate(folder, views=Views())
    assert metrics["count"] == 9 and all(0 <= metrics[name] <= 1 for name in FIGURES)
    assert metrics["speed"]["whole"]["median"] >= metrics["speed"]["model"]["median"] > 0
    page = Path(folder.path("evaluation", "test", "report.html")).read_text()
    assert page.rstrip().endswith("</html>") and "data:image/jpeg" in page


@pytest.mark.parametrize("network", NETWORKS)
def test_ignore_regions_reach_loss_figures_and_report(network, tmp_path):
    made = make_images(36, splits=("train", "train", "val", "test"))
    store = write_image_store(tmp_path / "store", made)
    crowds = [
        row | {"ignored": [[0.0, 0.0, 20.0, 20.0]], "ignored_labels": ["athlete"]}
        for row in boxes_table(made).to_pylist()
    ]
    store.upsert("boxes", pa.Table.from_pylist(crowds, schema=schema.BOXES), keys=["image"])
    folder = trained(small(network, epochs=1), store.uri, tmp_path, network)
    assert np.isfinite(folder.read_json("history.json")[0]["train_loss"])
    metrics = evaluate(folder, views=Views())
    table = pq.read_table(folder.path("evaluation", "test", "predictions.parquet"))
    assert (
        table["ignored"].to_pylist() == [[[0.0, 0.0, 20.0, 20.0]]] * 9
        and table["ignored_labels"].to_pylist() == [[0]] * 9
    )
    columns = ("boxes", "scores", "labels", "true_boxes", "true_labels", "ignored", "ignored_labels")
    images = [image_arrays(*row) for row in zip(*(table[name].to_pylist() for name in columns), strict=True)]
    again = detection_metrics(images, CLASSES)
    assert {name: metrics[name] for name in FIGURES} == pytest.approx({name: again[name] for name in FIGURES}, abs=1e-6)
    assert "an ignore region" in Path(folder.path("evaluation", "test", "report.html")).read_text()


def test_a_run_records_what_it_found_in_its_images(folder):
    record = folder.read_json("run.json")
    assert record["classes"] == ["athlete", "ball"] and record["run"]["model"]["classes"] == 2
    assert record["footage"]["train"] == {"pictures": 18, "boxes": 18}
    assert record["anchors"].startswith("anchors ") and "training boxes" in record["anchors"]


def test_anchors_are_kept_made_anew_or_judged(store, tmp_path):
    models = {
        way: prepare(small(**{"data.anchors": way}), store, runs=str(tmp_path), name=way).run.model
        for way in ("keep", "kmeans")
    }
    assert models["keep"].anchors == NETWORKS["improved"].anchors != models["kmeans"].anchors
    far = tuple(tuple((9000.0 + place, 9000.0) for place in range(3)) for _ in range(3))
    judged = prepare(small(**{"model.anchors": far}), store, runs=str(tmp_path), name="auto")
    assert judged.run.model.anchors == models["kmeans"].anchors and "the model's own 0.0%" in judged.anchors


def test_one_epoch_and_another_equal_two(folder, store, tmp_path):
    session = prepare(small(), store, runs=str(tmp_path), name="halves")
    stopped = session.run.model_copy(update={"epochs": 2})

    class Half(Exception):
        pass

    def stop(record):
        raise Half

    with pytest.raises(Half):
        Local().train(session, **QUIET | {"on_record": stop})
    assert len(session.folder.read_json("history.json")) == 1
    resumed = prepare(stopped, store, runs=str(tmp_path), name="halves", resume=True)
    Local().train(resumed, **QUIET)
    with folder.checkpoint("last") as whole, resumed.folder.checkpoint("last") as halves:
        expected, found = (load_file(place / "model.safetensors") for place in (whole, halves))
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("changes", [{"loss.l1": 1.0}, {"loss.l2": 2.0}, {"loss.l3": 0.1}, {"loss.box_loss": "ciou"}])
def test_weights_of_the_loss_and_its_kind_change_what_is_learned(changes, folder, store, tmp_path):
    other = trained(small(**changes, epochs=1), store, tmp_path, "other")
    ours, theirs = (run.read_json("history.json")[0] for run in (folder, other))
    assert ours["train_loss"] != theirs["train_loss"]
    with folder.checkpoint("best") as one, other.checkpoint("best") as two:
        first, second = (load_file(place / "model.safetensors")["head.levels.0.weight"] for place in (one, two))
    assert not torch.equal(first, second)


def test_every_test_image_is_judged_once_on_any_number_of_workers(folder, ray_cluster):
    alone = evaluate(folder, views=Views())
    before = predictions(folder)
    spread = evaluate(folder, views=Views(), backend=OnRay(), workers=2)
    assert spread["count"] == alone["count"] == len(before) == 9
    assert {name: spread[name] for name in FIGURES} == pytest.approx({name: alone[name] for name in FIGURES}, abs=1e-4)
    assert predictions(folder).keys() == before.keys()


def predictions(folder):
    table = pq.read_table(folder.path("evaluation", "test", "predictions.parquet"))
    return dict(zip(table["image"].to_pylist(), table["boxes"].to_pylist(), strict=True))


@pytest.mark.parametrize("network", ["ssd300", "fasterrcnn"])
def test_networks_that_suppress_overlaps_themselves_do_so_as_the_run_says(network, tmp_path):
    run = override(small(network), {"model.classes": 2, "detect.most": 100_000})
    save_file(build(run.model).state_dict(), tmp_path / "model.safetensors")
    images = torch.rand(1, 3, run.model.size, run.model.size)
    found = []
    for overlap in (0.2, 0.9):
        network, task = load_detector(override(run, {"detect.overlap": overlap}), ("athlete", "ball"), tmp_path)
        with torch.no_grad():
            found.append(len(task.detect(network(images))[0].boxes))
    assert 0 < found[0] < found[1]


def test_classifiers_views_are_refused(folder):
    with pytest.raises(
        InputError, match="looks at each image once: --crops, --spans and --source are for action classifiers"
    ):
        evaluate(folder, views=Views(crops=3))


def test_weights_of_a_run_start_another_and_heads_of_other_classes_start_afresh(folder, store, tmp_path):
    session = prepare(small(weights=folder.uri), store, runs=str(tmp_path), name="on")
    assert session.start == f"starting from {folder.uri}"
    published = {f"model.{number}": torch.zeros(1) for number in range(3)}
    torch.save(published, tmp_path / "other.pt")
    with pytest.raises(InputError, match=r"other.pt has (no|a) tensor"):
        prepare(small(weights=str(tmp_path / "other.pt")), store, runs=str(tmp_path), name="off")
    assert not RunFolder(str(tmp_path), "off").exists()


def test_published_weights_fill_what_they_know(store, tmp_path):
    from posture.models.yolov5 import published_names

    plain = YOLOv5(size=64, width=0.125)
    state = build(plain).state_dict()
    torch.save({theirs: state[ours] for theirs, ours in published_names(plain).items()}, tmp_path / "yolov5.pt")
    session = prepare(small(weights=str(tmp_path / "yolov5.pt")), store, runs=str(tmp_path), name="published")
    for said in (
        "nothing for attend_out3",
        "stage4",
        "whose 80 classes are not the footage's 2",
        "head.levels.0.weight",
    ):
        assert said in session.start
    started = load_file(session.folder.path("start.safetensors"))
    assert (
        torch.equal(started["down1.conv.weight"], state["down1.conv.weight"]) and "head.levels.0.weight" not in started
    )


def test_recipes_of_detectors_are_valid_and_a_study_is_of_one_task():
    made = functions(load_module("jobs/detector.py"))
    assert {"improved", "yolov5s", "yolov7", "ssd300", "faster_rcnn", "ablations", "study"} <= set(made)
    names = [run.name for run in made["ablations"]()]
    assert len(names) == len(set(names)) == 16
    assert load_recipe("jobs/detector.py:improved").model.swin
    with pytest.raises(ValueError, match="must compare runs of one task"):
        from posture.config import Study

        Study(name="mixed", subject=small(), baselines=(load_recipe("jobs/action.py:c3d"),))


def test_a_store_of_clips_is_refused_with_what_to_do(small_store, tmp_path):
    with pytest.raises(InputError, match="no labelled images; add some with: posture ingest"):
        prepare(small(), small_store, runs=str(tmp_path), name="clips")


def test_images_of_a_run_are_tracked(store, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    folder = trained(small(**{"tracking.mode": "auto", "epochs": 1}), store, tmp_path, "tracked")
    media = sorted(path.name.partition("_")[0] for path in Path(folder.uri, "wandb").rglob("media/images/*.png"))
    assert media == ["detections", "precision"]


@pytest.mark.slow
def test_a_narrow_net_learns_real_images_by_heart(tmp_path, ray_cluster):
    store = Store(str(tmp_path / "store"), create=True)
    ingest_images(read_images(str(shared("sports_target"))), store, ImageOptions())
    whole = index_images(store, "train")
    images = open_index(whole.part(np.arange(0, len(whole), len(whole) // 16)[:16]), feed="materialize")
    still = {f"data.{name}": 0.0 for name in ("mosaic", "resize", "shift", "flip", "hue", "saturation", "value")}
    run = override(
        small(),
        {
            **still,
            "model.classes": 1,
            "model.size": 192,
            "model.width": 0.25,
            "model.norm_momentum": 0.1,
            "epochs": 70,
            "scale.global_batch": 8,
            "optim.lr": 0.002,
            "optim.ema": 0.9,
            "optim.weight_decay": 0.0,
            "metric": "map50",
        },
    )
    torch.manual_seed(0)
    with LocalContext(device="cpu") as ctx:
        outcome = fit(
            run,
            DetectionTask(run, whole.classes),
            ImageBatches(images, run, rank=0, world_size=1, validation=images),
            ctx,
            None,
            model=build(run.model),
        )
    assert outcome["best"] >= 0.95
