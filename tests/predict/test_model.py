import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import posture
from posture.data.decode.cut import Cut
from posture.data.ingest.clip_ledger import IngestOptions
from posture.data.ingest.clips import ingest_clips
from posture.data.labels.videos import read_footage
from posture.data.store.schema import DecodeRecipe
from posture.data.store.tables import Store
from posture.errors import InputError
from posture.models.configs import C3D, TwoStream
from posture.predict.answers import WHOLE_FRAME
from posture.predict.files import Outputs, find_videos, predict_file
from posture.predict.tables import read_prediction
from posture.runs.evaluate import evaluate
from tests.support.explained import IMPROVED_SMALL, make_run
from tests.support.footage import make_video

pytestmark = pytest.mark.long

RECIPES = {
    "raw": DecodeRecipe(40, 52, 20, 2, 2),
    "jpeg": DecodeRecipe(40, 52, 20, 2, 3, "stretch", 90),
    "padded": DecodeRecipe(40, 40, 16, 1, 1, "pad"),
    "long": DecodeRecipe(40, 52, 30, 3, 2),
}


def ingested(folder, place, recipe):
    store = Store(str(place / "store"), create=True)
    ingest_clips(read_footage(str(folder)), store, IngestOptions(cut=Cut(recipe), test_share=1.0, val_share=0.0))
    return store


def trained(place, store, recipe, config=IMPROVED_SMALL, **data):
    """Return a run with random weights that reads the store."""
    folder = make_run(place, config, recipe=str(recipe), **data)
    folder.write_record(replace(folder.record(), store=store.uri, classes=("left", "right", "up")))
    return folder


@pytest.mark.parametrize("name", RECIPES)
def test_a_segment_has_the_probabilities_that_evaluate_gives_it(class_folders, tmp_path, name):
    recipe = RECIPES[name]
    store = ingested(class_folders, tmp_path, recipe)
    folder = trained(tmp_path, store, recipe)
    evaluate(folder)
    scored = pq.read_table(folder.path("evaluation", "test", "predictions.parquet")).to_pylist()
    segments = {row["segment"]: row for row in store.read("segments").to_pylist()}
    videos = {row["video"]: row["uri"] for row in store.read("videos").to_pylist()}
    model = posture.load(folder.uri)
    assert len(scored) > 10
    for row in scored[:6]:
        segment = segments[row["segment"]]
        prediction = model.predict(videos[segment["video"]])
        np.testing.assert_allclose(prediction.overall, row["scores"], atol=1e-5)
        found = model.classify(videos[segment["video"]], start=segment["start"], end=segment["end"])
        np.testing.assert_allclose(found, row["scores"], atol=1e-5)


@pytest.mark.parametrize(
    "config", [IMPROVED_SMALL, C3D(classes=3, width=0.125, size=32, frames=8, head="gap")], ids=["improved", "8 frames"]
)
def test_a_window_is_classified_as_the_segment_of_its_frames(tmp_path, config):
    video, recipe = make_video(tmp_path / "one.mp4", frames=120), RECIPES["raw"]
    model = posture.load(make_run(tmp_path, config, recipe=str(recipe)).uri)
    prediction = model.predict(video)
    (lane,) = prediction.lanes
    span, hop = 39, model.sampling.hop(0.5)
    assert len(lane.starts) == len(range(0, 120 - span + 1, hop))
    for index in (0, 1, len(lane.starts) - 1):
        alone = model.classify(video, start=index * hop / 25, end=(index * hop + span) / 25)
        np.testing.assert_allclose(lane.probabilities[index], alone, atol=1e-5)
    seen = (config.frames - 1) * 2 + 1
    np.testing.assert_allclose(lane.ends - lane.starts, seen / 25, atol=1e-6)
    assert prediction.segments[0].start == 0.0 and prediction.segments[-1].end == pytest.approx(120 / 25)
    for before, after in zip(prediction.segments, prediction.segments[1:], strict=False):
        assert before.end == after.start and before.label != after.label


def test_flow_is_computed_as_in_evaluation(class_folders, tmp_path):
    recipe = DecodeRecipe(32, 40, 14, 2, 1)
    store = ingested(class_folders, tmp_path, recipe)
    from posture.data.ingest.flow import FlowOptions, add_flow

    add_flow(store, FlowOptions("dis"))
    config = TwoStream(classes=3, width=0.125, size=32, frames=12)
    folder = trained(tmp_path, store, recipe, config, flow="dis")
    evaluate(folder)
    row = pq.read_table(folder.path("evaluation", "test", "predictions.parquet")).to_pylist()[0]
    segment = next(one for one in store.read("segments").to_pylist() if one["segment"] == row["segment"])
    uri = next(one["uri"] for one in store.read("videos").to_pylist() if one["video"] == segment["video"])
    np.testing.assert_allclose(posture.load(folder.uri).predict(uri).overall, row["scores"], atol=1e-5)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return posture.load(make_run(tmp_path_factory.mktemp("run")).uri)


def same(one, other):
    for ours, theirs in zip(one.lanes, other.lanes, strict=True):
        np.testing.assert_array_equal(ours.probabilities, theirs.probabilities)
        np.testing.assert_allclose(ours.starts, theirs.starts, atol=1e-6)
    assert [(part.label, part.confidence) for part in one.segments] == [
        (part.label, part.confidence) for part in other.segments
    ]
    return True


def test_path_and_content_give_the_same_answer(model, tmp_path):
    video = make_video(tmp_path / "one.mp4", frames=80)
    assert same(model.predict(video), model.predict(video.read_bytes()))
    assert same(model.predict(video), model.predict(str(video)))


def test_an_array_gives_the_answer_of_a_file_with_these_frames(model, tmp_path):
    from posture.data.decode.video import open_video

    video = make_video(tmp_path / "one.mp4", frames=80)
    with open_video(str(video)) as reader:
        frames = reader.frames(range(80))
    of_file, of_array = model.predict(video), model.predict(frames, fps=25)
    np.testing.assert_allclose(of_array.lanes[0].starts, of_file.lanes[0].starts, atol=1e-6)
    # colours are converted before and after scaling
    np.testing.assert_allclose(of_array.lanes[0].probabilities, of_file.lanes[0].probabilities, atol=0.02)
    with pytest.raises(InputError, match="their rate"):
        model.predict(frames)
    with pytest.raises(InputError, match="uint8"):
        model.predict(frames.astype(np.float32), fps=25)


def test_two_threads_get_their_own_answers(model, tmp_path):
    videos = [make_video(tmp_path / f"{seed}.mp4", seed=seed, frames=70 + 10 * seed) for seed in range(2)]
    alone = [model.predict(video) for video in videos]
    found = {}
    threads = [
        threading.Thread(target=lambda number=number: found.update({number: model.predict(videos[number])}))
        for number in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(same(found[number], alone[number]) for number in range(2))


def test_a_part_of_a_video(model, tmp_path):
    video = make_video(tmp_path / "one.mp4", frames=200)
    part = model.predict(video, start=2.0, end=6.0)
    assert part.segments[0].start == 2.0 and part.segments[-1].end == pytest.approx(6.0)
    assert part.lanes[0].starts.min() >= 2.0 and part.lanes[0].ends.max() <= 6.0 + 1e-6
    np.testing.assert_allclose(part.overall, model.classify(video, start=2.0, end=6.0), atol=1e-5)


def test_a_video_shorter_than_a_window_is_one_segment_and_says_so(model, tmp_path):
    found = model.predict(make_video(tmp_path / "one.mp4", frames=9))
    assert len(found.segments) == 1 and any("shorter than one window" in note for note in found.notes)


def test_what_can_be_read_is_answered(model, tmp_path):
    from tests.support.footage import with_early_index

    video = make_video(tmp_path / "one.mp4", frames=200)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(with_early_index(video)[: -video.stat().st_size // 2])
    found, whole = model.predict(cut), model.predict(video)
    assert found.failure and found.segments and found.overall is None and not whole.failure
    count = len(found.lanes[0].starts)
    assert 0 < count < len(whole.lanes[0].starts)
    np.testing.assert_allclose(found.lanes[0].probabilities, whole.lanes[0].probabilities[:count], atol=1e-5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"start": 100.0}, "the video lasts 3.20 s"),
        ({"start": -1.0}, "start -1"),
        ({"start": 2.0, "end": 1.0}, "must be after start"),
        ({"overlap": 1.0}, "overlap 1"),
    ],
)
def test_bad_requests_are_one_sentence_each(model, tmp_path, options, said):
    with pytest.raises(InputError, match=said):
        model.predict(make_video(tmp_path / "one.mp4", frames=80), **options)


def test_what_is_no_video_is_a_sentence(model, tmp_path):
    (tmp_path / "text.mp4").write_text("no film")
    for video in (tmp_path / "text.mp4", tmp_path / "none.mp4", b"", Path(tmp_path)):
        with pytest.raises(InputError, match="cannot be read"):
            model.predict(video)


def test_whole_frames_are_track_zero(model, tmp_path):
    found = model.predict(make_video(tmp_path / "one.mp4", frames=80))
    assert {part.track for part in found.segments} == {WHOLE_FRAME} and not found.tracks
    assert found.lane(WHOLE_FRAME) is found.lanes[0]


def test_a_thread_keeps_its_decoder_from_video_to_video(model, tmp_path):
    video = make_video(tmp_path / "one.mp4", frames=80)
    with model.decoder() as first:
        expected = model.predict(video)  # with another decoder: the first is in use
    with model.decoder() as again:
        assert again is first
    stops = iter([False, False, True, True])
    assert model.predict(make_video(tmp_path / "long.mp4", frames=400), should_stop=lambda: next(stops)).failure
    assert same(model.predict(video), expected), "a decoder that was left halfway starts afresh"
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: model.decoder().__enter__()).result() is not first


def test_stopped_before_its_video_is_drawn_an_answer_says_so(model, tmp_path):
    make_video(tmp_path / "in" / "one.mp4", frames=400)
    (job,) = find_videos([str(tmp_path / "in")], str(tmp_path / "out"))
    asked = iter(range(1000))
    found = predict_file(model, job, Outputs(), should_stop=lambda: next(asked) > 1)
    answer = read_prediction(str(tmp_path / "out" / "one"))
    assert found.is_stopped and answer.failure and any("no annotated video" in note for note in answer.notes)
    whole = predict_file(model, job, Outputs(), should_stop=lambda: False)
    answer = read_prediction(str(tmp_path / "out" / "one"))
    assert not whole.was_done and not answer.failure and not any("no annotated video" in note for note in answer.notes)
    assert predict_file(model, job, Outputs(), should_stop=lambda: False).was_done
