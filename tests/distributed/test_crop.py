import json

import numpy as np
import pyarrow.compute as pc
import pytest

from posture.commands.show import show_store
from posture.config import DetectionRun
from posture.data.decode.cut import Cut
from posture.data.decode.decode_file import frames_to_search
from posture.data.ingest.clip_ledger import IngestOptions
from posture.data.ingest.clips import find_tubes
from posture.data.labels.records import Label
from posture.data.labels.tracked_videos import read_tracked_footage
from posture.data.store.frame_codec import decode_frames
from posture.data.store.schema import DecodeRecipe, crop_name
from posture.data.store.tables import Store
from posture.distributed.ingest import ingest
from posture.errors import InputError
from posture.runs.trained import TrainedModel, open_trained
from tests.support.crops import across, make_film, seen, waiting, write_boxes

WHOLE = DecodeRecipe(48, 48, 20, 2, 1)
CROPPED = DecodeRecipe(48, 48, 20, 2, 1, crop=crop_name(0.2))


@pytest.fixture
def films(tmp_path):
    """Two films of red and green athletes: in `red` both are labelled by their group, `empty` shows nobody in its
    second half.
    """
    root = tmp_path / "films"
    shown = {
        "both.mp4": {"red": across, "green": waiting},
        "left.mp4": {"red": lambda frame: across(frame) if frame < 30 else None},
    }
    for name, athletes in shown.items():
        make_film(root / name, athletes)
    write_boxes(root / "boxes.csv", shown)
    (root / "segments.csv").write_text(
        "video,start,end,label,split,group\n"
        "both.mp4,0,2.4,wait,train,green\nleft.mp4,0,1.2,run,test,red\nleft.mp4,1.3,2.4,gone,test,red\n"
    )
    return root


def run(root, store, recipe, **options):
    footage = (
        read_tracked_footage(str(root), drawn=not recipe.searched)
        if recipe.crop
        else read_tracked_footage(str(root), drawn=False)
    )
    return ingest(
        footage,
        Store(str(store), create=True),
        IngestOptions(cut=Cut(recipe, min_frames=4), max_refused_share=1.0),
        **options,
    )


def clips(store, recipe):
    """Each clip's frames (T, H, W, 3) by the label of its segment."""
    store = Store(str(store))
    labels = {row["segment"]: row["label"] for row in store.read("segments").to_pylist()}
    rows = store.read("clips", where=pc.field("recipe") == str(recipe)).to_pylist()
    return {
        labels[row["segment"]]: decode_frames(
            row["pixels"], row["offsets"], (row["frames"], row["height"], row["width"])
        )
        for row in rows
    }


@pytest.mark.usefixtures("ray_cluster")
def test_clips_are_cut_around_the_groups_athlete_beside_whole_ones(films, tmp_path):
    store = tmp_path / "store"
    run(films, store, WHOLE)
    whole = Store(str(store)).read("clips").num_rows
    report = run(films, store, CROPPED)
    assert (report.clips, report.segments) == (2, 0) and whole == 3
    assert [refused["verdict"] for refused in report.refused] == ["no_athlete"]
    cropped = clips(store, CROPPED)
    # 30 x 60 pixels at the edge, brought to a square of 84: 48 pixels of it are shown
    green = seen(cropped["wait"], "green")
    assert not np.isnan(green).any() and (green[:, 3] - green[:, 1] > 28).all()
    red = seen(cropped["run"], "red")  # moves 80 pixels; its cut follows
    assert not np.isnan(red).any()
    centres = (red[:, :2] + red[:, 2:]) / 2
    assert np.ptp(centres, axis=0).max() < 3
    assert np.ptp(seen(clips(store, WHOLE)["run"], "red")[:, 0]) > 8
    show_store(str(store), out=tmp_path / "show.html", recipe=None, items=4, seed=0)
    assert all(str(recipe) in (tmp_path / "show.html").read_text().replace("<wbr>", "") for recipe in (WHOLE, CROPPED))
    versions = Store(str(store)).versions()
    again = run(films, store, CROPPED)
    assert (again.clips, again.decoded) == (0, 0) and Store(str(store)).versions() == versions


def narrow_detector():
    """A detector that was never trained: it is sure of nothing."""
    from safetensors.torch import save

    from posture.models import build
    from posture.models.detector_configs import YOLOv5

    run = DetectionRun(name="narrow", model=YOLOv5(classes=1, width=0.125, depth=0.34, size=64))
    return TrainedModel("runs/narrow", run, ("athlete",), save(build(run.model).state_dict()))


@pytest.mark.usefixtures("ray_cluster")
def test_where_a_detector_finds_nobody_the_segment_is_refused_once(films, tmp_path):
    detector = narrow_detector()
    recipe = DecodeRecipe(48, 48, 20, 2, 1, crop=crop_name(0.2, detector=detector.digest))
    report = run(films, tmp_path / "store", recipe, detector=detector)
    assert (
        report.clips == 0
        and {refused["verdict"] for refused in report.refused} == {"no_athlete"}
        and len(report.refused) == 3
    )
    again = run(films, tmp_path / "store", recipe, detector=detector)
    assert again.decoded == 0  # nobody is looked for a second time


def colour_finder(colour):
    """A perfect detector of one colour."""

    def find(frames):
        boxes = seen(frames, colour)
        return [
            (box[None], np.array([0.9])) if not np.isnan(box).any() else (np.zeros((0, 4)), np.zeros(0))
            for box in boxes
        ]

    return find


@pytest.mark.parametrize("longest", [160, 80])
def test_found_boxes_become_the_segments_tube_in_pixels_of_the_video(tmp_path, longest):
    film = make_film(tmp_path / "a.mp4", {"red": across, "green": waiting})
    messages = list(
        frames_to_search(
            str(film), "v", [Label(0.0, 2.4, "run", "g", "train")], Cut(CROPPED), stored=frozenset(), longest=longest
        )
    )
    (red,) = find_tubes(messages, colour_finder("red"), stride=2)
    (green,) = find_tubes(messages, colour_finder("green"), stride=2)
    assert len(red.boxes) == 20 and red.name == green.name
    for tube, place in ((red, across), (green, waiting)):
        error = max(np.abs(np.subtract(box, place(frame))).max() for frame, box in tube.boxes.items())
        assert error <= 2 * 160 / longest


def test_a_classifier_is_no_detector(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    run = {"name": "c3d", "model": {"kind": "c3d"}}
    (folder / "run.json").write_text(json.dumps({"run": run, "store": "s", "versions": {}, "classes": ["a", "b"]}))
    with pytest.raises(InputError, match="finding athletes takes a detector"):
        open_trained(str(folder), task="detection")


@pytest.mark.parametrize("centred", [True, False], ids=["centred", "of earlier versions"])
@pytest.mark.parametrize(
    ("margin", "detector", "name"),
    [(0.2, "", "boxes0.2"), (0.0, "", "boxes0"), (1.25, "1f2e3d4c", "detector-1f2e3d4c-1.25")],
)
def test_a_crop_is_part_of_the_recipes_name(margin, detector, name, centred):
    crop = crop_name(margin, detector=detector, **({} if centred else {"centred": False}))
    recipe = DecodeRecipe(48, 64, 20, 2, 1, jpeg=90, crop=crop)
    assert str(recipe).endswith(f"-{name}" + "-centred" * centred) and DecodeRecipe.parse(str(recipe)) == recipe
    assert recipe.margin == margin and recipe.searched == bool(detector) and recipe.centred == centred
    assert DecodeRecipe.parse(str(WHOLE)) == WHOLE and not WHOLE.crop
